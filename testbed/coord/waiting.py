"""Every wait of a run: it knows its deadline, the abort flag and who cancels it, and tells what it waits for."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, Optional, Protocol, Sequence, Set, Tuple, TypeVar

from testbed.coord.feed import Feed, Following
from testbed.coord.flags import Flag, read_flag
from testbed.coord.keys import RunKeys, end_of
from testbed.coord.punctual import TooLate, in_time
from testbed.coord.store import Change, Span, Store, StoreError
from testbed.events import ABORT

T = TypeVar("T")

MET, TIMED_OUT, ABORTED, GONE = "met", "timeout", "aborted", "gone"
"""How a wait ends."""

LOOK_PATIENCE = 2.0
"""Seconds that a wait's first look at the store may take although its time-out has come: it looks at least once."""

EXPLAIN_PATIENCE = 2.5
"""Seconds that explaining a time-out may take."""

AWAY = "; etcd does not answer"
"""What a time-out is explained by while etcd is away."""


class Aborted(Exception):
    """The run's abort flag ended the wait."""

    def __init__(self, flag: Flag) -> None:
        super().__init__(f"the run is aborted by {flag.by}: {flag.why}")
        self.flag = flag


class WaitTimeout(Exception):
    """What was waited for did not come in time; ``waited`` in seconds, ``explained`` says who is missing and why."""

    def __init__(self, what: str, waited: float, missed: str = "did not come", explained: str = "") -> None:
        super().__init__(f"{what} {missed} within {round(waited, 1):g} s{explained}")
        self.what = what
        self.waited = waited
        self.explained = explained

    @classmethod
    def told(cls, message: str) -> WaitTimeout:
        """One that was told by somebody else, in these words."""
        error = cls(message, 0.0)
        error.args = (message,)
        return error


class Bound:
    """The time that a call has for all it does: ``timeout`` seconds from now, and in any case enough for each look."""

    def __init__(self, phrase: str, missed: str, timeout: Optional[float]) -> None:
        self.began = time.monotonic()
        self.timeout = timeout
        self._phrase, self._missed = phrase, missed

    def ask(self, do: Callable[[], T], undo: Optional[Callable[[T], object]] = None) -> T:
        """Give what ``do()`` is answered by the store; raises WaitTimeout, and what comes later is undone."""
        waited = time.monotonic() - self.began
        left = None if self.timeout is None else max(self.timeout - waited, LOOK_PATIENCE)
        try:
            return in_time(do, left, undo)
        except TooLate:
            waited = time.monotonic() - self.began
            raise WaitTimeout(self._phrase, waited, self._missed, AWAY) from None


class Broken(Exception):
    """What was waited for can never come: somebody whom it needs takes part no more."""


class Cancelled(Exception):
    """Whoever asked for the wait does not want it any more."""


class Cancel:
    """Ends a wait from another thread: give it to the wait, and `fire` it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fired = False
        self._listeners: List[Callable[[], None]] = []

    @property
    def fired(self) -> bool:
        """Whether `fire` was called."""
        return self._fired

    def fire(self) -> None:
        """End all waits that were given this."""
        with self._lock:
            self._fired = True
            listeners = list(self._listeners)
        for listener in listeners:
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` when fired."""
        with self._lock:
            self._listeners.append(listener)

    def unlisten(self, listener: Callable[[], None]) -> None:
        """Forget a listener."""
        with self._lock:
            self._listeners.remove(listener)


@dataclass(frozen=True)
class Awaited:
    """What a wait is for: its word and names, how a sentence says it, and what else an observer must know (JSON)."""

    what: str
    names: List[str]
    phrase: str
    missed: str = "did not come"
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Standing:
    """How far something awaited has got: who has done their part, and who has not; None where nobody can tell.

    ``told`` says it in words where it is not a matter of who has arrived.
    """

    arrived: Optional[Sequence[str]] = None
    missing: Optional[Sequence[str]] = None
    told: str = ""


class Board(Protocol):
    """Where a member tells what it waits for."""

    def begin(self, what: str, names: List[str], timeout: Optional[float], details: Mapping[str, Any]) -> int:
        """Tell that a call blocks, for at most ``timeout`` seconds; gives the wait's number."""

    def end(self, wait: int, outcome: str) -> None:
        """Tell that it blocks no more."""


class NoBoard:
    """Tells nobody: for a member that is no node."""

    def begin(self, *_: Any) -> int:
        """Tell nobody."""
        return 0

    def end(self, *_: Any) -> None:
        """Tell nobody."""


class Waiting:
    """The waits of one member of a run; all go over ``feed``. ``explain`` says in lines how a standing came about."""

    def __init__(
        self, store: Store, feed: Feed, keys: RunKeys, board: Board, explain: Callable[[Standing], str]
    ) -> None:
        self.store, self.feed, self.keys = store, feed, keys
        self.board, self.explain = board, explain
        self._lock = threading.Lock()  # guards all below
        self._open: Set[Wait] = set()
        self._flags: Dict[str, Flag] = {}
        self._flags_following: Optional[Following] = None
        self._flags_error: Optional[StoreError] = None
        self._closed = False

    def wait(
        self,
        awaited: Awaited,
        spans: Sequence[Span],
        look: Callable[[Sequence[Change]], Optional[T]],
        timeout: Optional[float],
        cancelled: Optional[Cancel],
        standing: Callable[[], Standing] = Standing,
        began: Optional[float] = None,
    ) -> T:
        """Wait until ``look(changes)`` of the spans gives something; the first changes are all that the spans hold."""
        with self.open(awaited, timeout, cancelled, standing, began) as wait:
            wait.listen(spans)
            return wait.until(look)

    def open(
        self,
        awaited: Awaited,
        timeout: Optional[float],
        cancelled: Optional[Cancel],
        standing: Callable[[], Standing] = Standing,
        began: Optional[float] = None,
    ) -> Wait:
        """A wait that listens and looks as its owner says, for ``timeout`` seconds in all; use it by ``with``.

        They count from the monotonic time ``began``, now unless said.
        """
        return Wait(self, awaited, timeout, cancelled, standing, time.monotonic() if began is None else began)

    def close(self) -> None:
        """End all waits; they raise StoreError."""
        with self._lock:
            self._closed = True
            following, waits = self._flags_following, tuple(self._open)
        if following is not None:
            following.close()
        for wait in waits:
            wait.poke()

    def enter(self, wait: Wait) -> None:
        """Count a wait as open: it is woken when a flag is raised."""
        with self._lock:
            self._follow_flags()
            self._open.add(wait)

    def leave(self, wait: Wait) -> None:
        """Count it no more."""
        with self._lock:
            self._open.discard(wait)

    def heed(self, looked: bool) -> None:
        """Raise what ends every wait: the scope's end, an error of the store, and abort once the wait has looked."""
        with self._lock:
            if self._closed:
                raise StoreError("the wait was given up: the scope is closed")
            if self._flags_error is not None:
                raise self._flags_error
            if looked and ABORT in self._flags:
                raise Aborted(self._flags[ABORT])

    def _follow_flags(self) -> None:
        """Follow the run's flags from the first wait on, and anew after an error."""
        if not self._closed and (self._flags_following is None or self._flags_following.closed):
            self._flags_error = None
            span = Span(self.keys.flags, end_of(self.keys.flags))
            self._flags_following = self.feed.follow(span, self._flags_changed, self._flags_failed, read=True)

    def _flags_changed(self, changes: Sequence[Change]) -> None:
        with self._lock:
            for change in changes:
                name = change.key[len(self.keys.flags) :]
                if change.value is None:
                    self._flags.pop(name, None)
                else:
                    self._flags[name] = read_flag(name, change.value)
        self._poke_all()

    def _flags_failed(self, error: StoreError) -> None:
        with self._lock:
            self._flags_error = error
        self._poke_all()

    def _poke_all(self) -> None:
        with self._lock:
            waits = tuple(self._open)
        for wait in waits:
            wait.poke()


class Wait:
    """One wait; made by `Waiting.open`. It is told to others only if it has looked and must block."""

    def __init__(
        self,
        waiting: Waiting,
        awaited: Awaited,
        timeout: Optional[float],
        cancelled: Optional[Cancel],
        standing: Callable[[], Standing],
        began: float,
    ) -> None:
        self._waiting, self._awaited, self._timeout = waiting, awaited, timeout
        self._cancelled, self._standing = cancelled, standing
        self._begun = began
        self._number: Optional[int] = None
        self._followings: List[Following] = []
        self._wake = threading.Condition()  # guards all below
        self._poked = False
        self._unread = 0
        self._tuned = 0  # how often `listen` was called: what comes from before is passed over
        self._heard: List[Change] = []
        self._error: Optional[StoreError] = None

    def __enter__(self) -> Wait:
        self._waiting.enter(self)
        if self._cancelled is not None:
            self._cancelled.listen(self.poke)
        return self

    def __exit__(self, kind: object, error: Optional[BaseException], trace: object) -> None:
        self._waiting.leave(self)
        if self._cancelled is not None:
            self._cancelled.unlisten(self.poke)
        for following in self._followings:
            following.close()
        if self._number is not None:
            outcomes = {WaitTimeout: TIMED_OUT, Aborted: ABORTED, type(None): MET, GeneratorExit: MET}
            self._waiting.board.end(self._number, outcomes.get(type(error), GONE))
        if isinstance(error, WaitTimeout):
            explained = error.explained or self._explain()
            raise WaitTimeout(error.what, error.waited, self._awaited.missed, explained) from None

    def listen(self, spans: Sequence[Span]) -> None:
        """Hear from now on what these spans hold and what changes in them, instead of those before."""
        for following in self._followings:
            following.close()
        with self._wake:
            self._tuned += 1
            self._heard, self._unread = [], len(spans)
        wanted = [(span, self._hearer(self._tuned)) for span in spans]
        self._followings = self._waiting.feed.follow_all(wanted, self._failed, read=True)

    def until(self, look: Callable[[Sequence[Change]], Optional[T]]) -> T:
        """Block until ``look`` gives something of what was heard since it looked last.

        Raises Aborted, WaitTimeout, Cancelled, StoreError, and whatever ``look`` raises.
        """
        while True:
            with self._wake:
                ready, error = not self._unread, self._error
                heard, self._heard = (self._heard, []) if ready else ([], self._heard)
            if ready:
                found = look(heard)
                if found is not None:
                    return found
            if error is not None:
                raise error
            self._waiting.heed(looked=ready)
            if self._cancelled is not None and self._cancelled.fired:
                raise Cancelled(f"the wait for {self._awaited.phrase} was cancelled")
            self._block(ready)

    def poke(self) -> None:
        """Have the wait look again; from any thread."""
        with self._wake:
            self._poked = True
            self._wake.notify_all()

    def _block(self, ready: bool) -> None:
        waited = time.monotonic() - self._begun
        left = None if self._timeout is None else self._timeout - waited
        if left is not None and not ready:
            left = max(left, LOOK_PATIENCE - waited)
        if left is not None and left <= 0:
            raise WaitTimeout(self._awaited.phrase, waited, self._awaited.missed)
        if ready and self._number is None:
            awaited = self._awaited
            self._number = self._waiting.board.begin(awaited.what, awaited.names, self._timeout, awaited.details)
        with self._wake:
            self._wake.wait_for(lambda: self._poked, None if left is None else min(left, threading.TIMEOUT_MAX))
            self._poked = False

    def _hearer(self, tuned: int) -> Callable[[Sequence[Change]], None]:
        unread = [1]

        def changed(changes: Sequence[Change]) -> None:
            with self._wake:
                if tuned != self._tuned:
                    return
                self._unread -= unread.pop() if unread else 0
                self._heard += changes
                self._poked = True
                self._wake.notify_all()

        return changed

    def _failed(self, error: StoreError) -> None:
        with self._wake:
            self._error = self._error or error
        self.poke()

    def _explain(self) -> str:
        """Who is missing and what they do; bounded, because whoever waited has waited long enough."""
        if self._unread:
            return AWAY
        try:
            return in_time(lambda: self._waiting.explain(self._standing()), EXPLAIN_PATIENCE)
        except TooLate:
            return f"{AWAY}, so that nobody can say why"
        except StoreError as error:
            return f"; why cannot be told: {error}"


def newest(changes: Sequence[Change], into: Dict[str, Tuple[bytes, int]]) -> None:
    """Bring a view, key -> (value, revision), up to date."""
    for change in changes:
        if change.value is None:
            into.pop(change.key, None)
        else:
            into[change.key] = (change.value, change.revision)
