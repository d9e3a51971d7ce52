"""The primitives that nodes and controller share in one run: values, blocking reads, flags."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Callable, Mapping, Sequence, TypeVar

from testbed.coord.feed import Feed, Following
from testbed.coord.keys import RunKeys, end_of
from testbed.coord.store import MAX_VALUE, Change, Put, Span, Store, StoreError, TooLarge, Unchanged
from testbed.events import ABORT

T = TypeVar("T")

MAX_KEY = 1024
"""The longest key a user may set, in bytes of UTF-8."""


class BadKey(ValueError):
    """A key that no value can have."""


@dataclass(frozen=True)
class Flag:
    """A flag that stands: raised ``by`` a node or ``controller``, ``why`` a sentence, ``at`` Unix seconds."""

    name: str
    by: str
    why: str
    at: float
    cause: Mapping[str, Any] = field(default_factory=dict)


class Aborted(Exception):
    """The run's abort flag ended the wait."""

    def __init__(self, flag: Flag) -> None:
        super().__init__(f"the run is aborted by {flag.by}: {flag.why}")
        self.flag = flag


class WaitTimeout(Exception):
    """What was waited for did not come in time; ``waited`` in seconds."""

    def __init__(self, what: str, waited: float) -> None:
        super().__init__(f"{what} did not come within {round(waited, 1):g} s")
        self.what = what
        self.waited = waited


class Cancelled(Exception):
    """Whoever asked for the wait does not want it any more."""


class Cancel:
    """Ends a wait from another thread: give it to the wait, and `fire` it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._fired = False
        self._listeners: list[Callable[[], None]] = []

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


def check_key(key: str) -> None:
    """Raise BadKey unless a value can have this key."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise BadKey(f"the key {key!r} is not UTF-8") from None
    if not key:
        raise BadKey("a key must not be empty")
    if "\0" in key:
        raise BadKey(f"the key {key!r} holds a NUL")
    if size > MAX_KEY:
        raise BadKey(f"the key {key[:40]!r}... holds {size} bytes; the limit is {MAX_KEY}")


def read_flag(name: str, raw: bytes) -> Flag:
    """Read the flag that ``raw`` tells of; whatever a node wrote there, a flag stands."""
    try:
        told = dict(json.loads(raw))
        cause = told.get("cause")
        at = float(told.get("at", 0))
        return Flag(name, str(told["by"]), str(told["why"]), at, cause if isinstance(cause, dict) else {})
    except (ValueError, TypeError, KeyError):
        return Flag(name, "unknown", f"its reason cannot be read: {raw[:80]!r}", 0.0)


class Scope:
    """One run's values and flags for one member, ``by`` (a node's name, or ``controller``).

    All methods may be called from any thread and raise StoreError; waits go over ``feed`` (an own one if None).
    """

    def __init__(self, store: Store, run: str, by: str, feed: Feed | None = None) -> None:
        self.keys_of = RunKeys(run)
        self.feed = feed or Feed(store)
        self._own_feed = feed is None
        self._store = store
        self._by = by
        self._changed = threading.Condition()  # guards all below, and what waits wait for
        self._flags: dict[str, Flag] = {}
        self._flags_following: Following | None = None
        self._flags_error: StoreError | None = None
        self._closed = False

    def set(self, key: str, value: bytes) -> None:
        """Set the user's value ``key``; raises BadKey, TooLarge."""
        check_key(key)
        if len(value) > MAX_VALUE:
            raise TooLarge(f"the value of {key!r} holds {len(value)} bytes; the limit is {MAX_VALUE} bytes (1 MiB)")
        self._store.commit([Put(self.keys_of.value(key), value)])

    def get(self, key: str) -> bytes | None:
        """Read the user's value ``key``, None where it is not set; raises BadKey."""
        check_key(key)
        entries = self._store.range(self.keys_of.value(key)).entries
        return entries[0].value if entries else None

    def keys(self, prefix: str = "") -> list[str]:
        """List the users' keys that begin with ``prefix``."""
        start = self.keys_of.values + prefix
        return [e.key[len(self.keys_of.values) :] for e in self._store.range(start, end_of(start)).entries]

    def wait(self, key: str, timeout: float | None = None, cancelled: Cancel | None = None) -> bytes:
        """Give the user's value ``key`` as soon as it is set; ``timeout`` in seconds.

        A value that is there is given even when the run is aborted. Raises Aborted, WaitTimeout, Cancelled, BadKey.
        """
        check_key(key)
        held: list[bytes | None] = []
        errors: list[StoreError] = []

        def changed(changes: Sequence[Change]) -> bool:
            with self._changed:
                held.append(next((c.value for c in changes if c.value is not None), None))
                self._changed.notify_all()
                return held[-1] is not None

        def failed(error: StoreError) -> None:
            with self._changed:
                errors.append(error)
                self._changed.notify_all()

        def come() -> bytes | None:
            if held and held[-1] is not None:
                return held[-1]
            self._heed(errors, ABORT if held else "")  # abort counts once the value was looked for
            return None

        following = self.feed.follow(Span(self.keys_of.value(key)), changed, failed, read=True)
        try:
            return self._await(come, f"the value {key!r}", timeout, cancelled)
        finally:
            following.close()

    def raise_flag(self, name: str, why: str, cause: Mapping[str, Any] | None = None) -> Flag:
        """Raise a flag of the run; the first writer wins: gives the flag that stands, one's own or the other's."""
        flag = Flag(name, self._by, why, time.time(), cause or {})
        told = {k: v for k, v in asdict(flag).items() if k != "name"}
        key = self.keys_of.flag(name)
        committed = self._store.commit([Put(key, json.dumps(told).encode())], [Unchanged(key)])
        return flag if committed.succeeded else read_flag(name, committed.found[0].value)

    def flag(self, name: str) -> Flag | None:
        """Read a flag of the run, None where it is not raised."""
        entries = self._store.range(self.keys_of.flag(name)).entries
        return read_flag(name, entries[0].value) if entries else None

    def wait_flag(self, name: str, timeout: float | None = None, cancelled: Cancel | None = None) -> Flag:
        """Give the flag as soon as it is raised; ``timeout`` in seconds.

        Waiting for another flag than abort ends on abort too. Raises Aborted, WaitTimeout, Cancelled.
        """

        def come() -> Flag | None:
            flag = self._flags.get(name)
            if flag is None:
                self._heed((), ABORT)
            return flag

        return self._await(come, f"the flag {name}", timeout, cancelled)

    def close(self) -> None:
        """End all waits; they raise StoreError."""
        with self._changed:
            self._closed = True
            following = self._flags_following
            self._changed.notify_all()
        if following is not None:
            following.close()
        if self._own_feed:
            self.feed.close()

    def _await(self, come: Callable[[], T | None], what: str, timeout: float | None, cancelled: Cancel | None) -> T:
        """Wait until ``come()`` gives something; it is asked again whenever something has changed."""
        begun = time.monotonic()
        if cancelled is not None:
            cancelled.listen(self._look_again)
        try:
            with self._changed:
                self._follow_flags()
                while True:
                    if self._closed:
                        raise StoreError("the wait was given up: the scope is closed")
                    found = come()
                    if found is not None:
                        return found
                    if cancelled is not None and cancelled.fired:
                        raise Cancelled(f"the wait for {what} was cancelled")
                    left = None if timeout is None else begun + timeout - time.monotonic()
                    if left is not None and left <= 0:
                        raise WaitTimeout(what, time.monotonic() - begun)
                    self._changed.wait(left)
        finally:
            if cancelled is not None:
                cancelled.unlisten(self._look_again)

    def _heed(self, errors: Sequence[StoreError], flag: str) -> None:
        """Raise what ends a wait: an error of the store, or that flag."""
        for error in [*errors, self._flags_error]:
            if error is not None:
                raise error
        if flag in self._flags:
            raise Aborted(self._flags[flag])

    def _follow_flags(self) -> None:
        """Follow the run's flags from the first wait on, and anew after an error."""
        if self._flags_following is None or self._flags_following.closed:
            self._flags_error = None
            span = Span(self.keys_of.flags, end_of(self.keys_of.flags))
            self._flags_following = self.feed.follow(span, self._flags_changed, self._flags_failed, read=True)

    def _flags_changed(self, changes: Sequence[Change]) -> None:
        with self._changed:
            for change in changes:
                name = change.key[len(self.keys_of.flags) :]
                if change.value is None:
                    self._flags.pop(name, None)
                else:
                    self._flags[name] = read_flag(name, change.value)
            self._changed.notify_all()

    def _flags_failed(self, error: StoreError) -> None:
        with self._changed:
            self._flags_error = error
            self._changed.notify_all()

    def _look_again(self) -> None:
        with self._changed:
            self._changed.notify_all()
