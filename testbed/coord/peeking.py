"""The client's side of peeking: asks nodes for their steps' output, puts it in order, confirms it, and asks again.

The protocol is in docs/peek.md. Nothing is lost or doubled: every byte has its offset, and what was not confirmed
stays in the store until it is.
"""

from __future__ import annotations

import os
import queue
import re
import time
from binascii import hexlify
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from testbed.coord.chunks import (
    EVERY,
    FROM_START,
    OUT,
    RUNNING,
    Ask,
    Ended,
    Frame,
    Garbled,
    Note,
    Position,
    matches,
    read_frames,
    write_ask,
)
from testbed.coord.feed import Feed, Following
from testbed.coord.gateway import GatewayStore
from testbed.coord.keys import RunKeys, end_of
from testbed.coord.looked import Gone, Looked, Seen, Wanted
from testbed.coord.session import Session
from testbed.coord.store import Change, Delete, LeaseExpired, Operation, Put, Span, StoreError
from testbed.events import (
    AnsibleTask,
    Event,
    EventError,
    NodeEnded,
    NodeLost,
    ResultsMissing,
    RunEnded,
    StepStarted,
    decode,
)

LIVENESS = 10.0
"""Seconds that a client's lease lives on when the client is dead; then its streams end."""

SLOW = 2.0
"""Seconds after which a node that has not answered is said to be silent."""

_NUMBER = re.compile("[0-9]{12}")  # a chunk's, as `RunKeys.chunk` writes it
_NOTES = 32  # of a node that are remembered

_CHUNKS = 32  # unconfirmed chunks, however small, after which a client confirms


class Peek:
    """One look at a run, over a ``store`` that is the caller's to close: iterate for what is seen.

    What was given out counts as read, and is confirmed, when the next is asked for. Iterating raises StoreError where
    the store is away for longer than its patience; ``away`` is told why as soon as it is away, and "" when it is back,
    on any thread. Ends when every node is through.
    """

    def __init__(
        self, store: GatewayStore, run: str, wanted: Wanted, away: Callable[[str], object] = lambda _: None
    ) -> None:
        self._away = away
        store.client.listen = self._hear_etcd
        self._store, self._keys, self._wanted = store, RunKeys(run), wanted
        self._nodes = {name: Looked(name, wanted.positions.get(name)) for name in wanted.nodes}
        self._inbox: queue.SimpleQueue[Tuple[str, Any]] = queue.SimpleQueue()
        self._feed = Feed(store)
        self._session: Optional[Session] = None
        self._following: Optional[Following] = None
        self._request = ""
        self._current: Dict[str, str] = {}  # node -> the step it is at
        self._caught_up = False
        self._closed = False

    def position(self, node: str) -> Optional[Position]:
        """Where the next look would have to begin to miss nothing of the node; None before anything was seen."""
        return self._nodes[node].position

    def close(self) -> None:
        """Let the iteration end; from any thread."""
        self._closed = True
        self._inbox.put(("closed", None))

    def __iter__(self) -> Iterator[Seen]:
        try:
            self._follow()
            self._open()
            while not self._closed and not all(node.done for node in self._nodes.values()):
                yield from self._heed(*self._next())
                self._confirm()
        finally:
            if self._session is not None:
                self._session.close()  # what was asked goes with the lease
            self._feed.close()

    # --- what is heard ------------------------------------------------------------------------------------------

    def _follow(self) -> None:
        """Hear of events and of nodes' lives; the events come first."""
        wanted = [(Span(self._keys.events, end_of(self._keys.events)), self._hear("events"))]
        wanted += [(Span(self._keys.alive(name)), self._hear("alive", name)) for name in self._nodes]
        self._feed.follow_all(wanted, self._fail, read=True)

    def _hear(self, what: str, node: str = "") -> Any:
        def changed(changes: Sequence[Change]) -> None:
            self._inbox.put((what, (node, changes) if node else changes))

        return changed

    def _hear_etcd(self, why: str) -> None:
        self._away(why)
        if not why:
            self._inbox.put(("back", self._request))

    def _fail(self, error: StoreError) -> None:
        self._inbox.put(("failed", error))

    def _open(self) -> None:
        """Have a lease and a request of its own on it."""
        request = self._request = hexlify(os.urandom(8)).decode()
        self._session = Session(self._store, LIVENESS, lambda error: self._inbox.put(("lease", (request, error))))
        prefix = self._keys.chunks(self._request)
        self._following = self._feed.follow(Span(prefix, end_of(prefix)), self._hear("chunks"), self._fail, read=True)

    def _next(self) -> Tuple[str, Any]:
        """What happens next, be it that somebody's patience is over."""
        now = time.monotonic()
        limits = [limit for node in self._nodes.values() for limit in self._limits(node)]
        try:
            return self._inbox.get(timeout=max(0.0, min(limits) - now) if limits else None)
        except queue.Empty:
            return "late", None

    def _limits(self, node: Looked) -> List[float]:
        """When something is to be said of a node that gives no sign."""
        if node.done or node.answered or not node.since:
            return []
        limits = [] if node.said else [node.since + SLOW]
        return limits if self._wanted.patience is None else [*limits, node.since + self._wanted.patience]

    def _heed(self, what: str, told: Any) -> Iterator[Seen]:
        if what == "chunks":
            for change in told:
                yield from self._take(change)
        elif what == "events":
            for change in told:
                yield from self._learn(change)
            self._caught_up = True
        elif what == "alive":
            name, changes = told
            yield from self._see_life(self._nodes[name], changes)
        elif what == "late":
            for node in self._nodes.values():
                yield from self._miss(node)
        elif what == "failed":
            raise told
        elif what == "back" and told == self._request:  # what was written last, etcd may have lost with its life
            self._ask_again()
        elif what == "lease" and told[0] == self._request:
            yield from self._renew(told[1])

    def _see_life(self, node: Looked, changes: Sequence[Change]) -> Iterator[Seen]:
        alive = any(change.value is not None for change in changes[-1:])
        if alive and not node.alive and not node.done:
            node.alive = True
            self._ask(node)
        elif not alive and node.alive:
            node.alive = False
            yield from self._settle(node, "its agent is gone without a word: killed, or its machine or network is down")
        elif not alive and node.alive is None:
            if node.verdict:
                yield from self._settle(node, node.verdict)
            else:
                node.since = node.since or time.monotonic()

    def _miss(self, node: Looked) -> Iterator[Seen]:
        """Say what there is to say of a node that gives no sign."""
        if not self._limits(node):
            return
        waited, patience = time.monotonic() - node.since, self._wanted.patience
        silent = "does not answer" if node.alive else "has not started yet"
        if patience is not None and waited >= patience:
            node.done = True
            yield node.name, Gone(f"{silent}; waited for {patience:g} s", well=False, late=True)
        elif waited >= SLOW and not node.said:
            node.said = True
            yield node.name, Note(f"{silent}; waiting" + ("" if patience is None else f" for up to {patience:g} s"))

    def _learn(self, change: Change) -> Iterator[Seen]:
        """Take in an event; one of Ansible's is shown."""
        try:
            event: Event = decode((change.value or b"").decode("utf-8", "replace"))
        except EventError:
            return
        node = self._nodes.get(event.node)
        if isinstance(event, RunEnded):
            for one in self._nodes.values():
                one.verdict = one.verdict or "the run has ended"
                yield from self._settle(one, one.verdict)
        if node is None:
            return
        if isinstance(event, StepStarted):
            self._current[node.name] = f"{event.configuration}.{event.target}.{event.step}"
        elif isinstance(event, AnsibleTask) and not node.done and self._is_shown(event):
            yield node.name, event
        elif isinstance(event, NodeEnded):
            node.verdict = f"the node has ended: {event.verdict}" + (f": {event.reason}" if event.reason else "")
        elif isinstance(event, (NodeLost, ResultsMissing)):
            node.verdict = node.verdict or event.reason
            if node.alive is None:
                yield from self._settle(node, event.reason)

    def _is_shown(self, task: AnsibleTask) -> bool:
        step = f"{task.configuration}.{task.target}.{task.step}"
        if "." not in step or not matches(self._wanted.step, step) or OUT not in self._wanted.streams:
            return False
        return self._caught_up or (self._wanted.lines == FROM_START and self._wanted.step != RUNNING)

    # --- output -------------------------------------------------------------------------------------------------

    def _ask(self, node: Looked) -> None:
        assert self._session is not None  # noqa: S101  made first
        wanted = self._wanted
        node.since, node.answered, node.said = time.monotonic(), False, False
        node.next = node.confirmed = node.unconfirmed = 0
        ask = Ask(self._session.lease.id, wanted.step, wanted.streams, wanted.lines, node.position, wanted.window)
        self._write([Put(self._keys.ask(node.name, self._request), write_ask(ask), ask.lease)])

    def _renew(self, error: StoreError) -> Iterator[Seen]:
        """The lease has run out, and the requests with it."""
        if not isinstance(error, LeaseExpired):
            raise error
        for name in self._ask_again():
            yield name, Note("was asked again: etcd was out of reach for too long")

    def _ask_again(self) -> List[str]:
        """Ask for what was not seen yet by a request of its own; the names of the nodes that were asked."""
        if self._following is not None:
            self._following.close()
        if self._session is not None:
            self._session.close()  # what was asked goes with the lease
        self._open()
        asked = [node for node in self._nodes.values() if node.alive and not node.done]
        for node in asked:
            self._ask(node)
        return [node.name for node in asked]

    def _take(self, change: Change) -> Iterator[Seen]:
        """Take in a chunk; one that has come before is passed over."""
        prefix = self._keys.chunks(self._request)
        name, _, number = change.key[len(prefix) :].partition("/")
        node = self._nodes.get(name)
        if change.value is None or node is None or not change.key.startswith(prefix):
            return
        node.answered = True
        if node.done or not _NUMBER.fullmatch(number) or int(number) < node.next:
            return
        try:
            if int(number) > node.next:
                raise Garbled(f"chunk {number} instead of {node.next}")
            node.next += 1
            node.unconfirmed += len(change.value)
            for frame in read_frames(change.value):
                yield from self._show(node, frame)
        except Garbled as error:
            node.done = True
            yield name, Gone(f"what it sends makes no sense: {error}", well=False)

    def _show(self, node: Looked, frame: Frame) -> Iterator[Seen]:
        if isinstance(frame, Note):
            node.done = frame.over
            if frame.over:
                yield node.name, Gone(frame.text, well=True, whole=True)
            elif frame.text not in node.noted:
                if len(node.noted) < _NOTES:
                    node.noted.add(frame.text)
                yield node.name, frame
        elif isinstance(frame, Ended):
            if frame.step not in node.ended:
                node.ended.add(frame.step)
                yield node.name, frame
        else:
            if node.place(frame):
                yield node.name, frame

    def _settle(self, node: Looked, why: str) -> Iterator[Seen]:
        """The node is gone: show what it has still left in the store, then say so."""
        if node.done:
            return
        prefix = self._keys.chunks(self._request, node.name)
        for entry in self._store.range(prefix, end_of(prefix)).entries:
            yield from self._take(Change(entry.key, entry.value, entry.revision))
        if node.done:
            return
        if not node.verdict:  # it may stand there and not have been heard yet
            prefix = f"{self._keys.events}{node.name}/"
            for entry in self._store.range(prefix, end_of(prefix)).entries[-4:]:
                for _ in self._learn(Change(entry.key, entry.value, entry.revision)):
                    pass
        node.done = True
        yield node.name, Gone(node.verdict or why, well=bool(node.verdict))

    def _confirm(self) -> None:
        """Tell nodes what was read, and remove it, before their windows are full."""
        due = [n for n in self._nodes.values() if self._is_due(n)]
        operations: List[Operation] = []
        for node in due:
            assert self._session is not None  # noqa: S101  what was read was asked for
            lease = self._session.lease.id
            operations += [
                Put(self._keys.confirmed(node.name, self._request), b"%d" % node.next, lease),
                Delete(
                    self._keys.chunk(self._request, node.name, node.confirmed),
                    self._keys.chunk(self._request, node.name, node.next),
                ),
            ]
            node.confirmed, node.unconfirmed = node.next, 0
        for start in range(0, len(operations), 64):
            self._write(operations[start : start + 64])

    def _is_due(self, node: Looked) -> bool:
        unread = node.unconfirmed >= self._wanted.window // 4 or node.next - node.confirmed >= _CHUNKS
        return unread and not node.done

    def _write(self, operations: Sequence[Operation]) -> None:
        try:
            self._store.commit(operations)
        except LeaseExpired:
            return  # which the session tells too; then all is asked for again


__all__ = ["EVERY", "Gone", "Peek", "Seen", "Wanted"]
