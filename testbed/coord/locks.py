"""Locks: a fair queue on leases, so that a dead holder frees what it holds.

The queue's order is that of the keys' creation, as in etcd's own recipe: each waits for the one just before it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Callable, Optional, Sequence, Union

from testbed.coord.keys import end_of
from testbed.coord.punctual import TooLate, in_time
from testbed.coord.store import Change, Delete, Entry, LeaseExpired, Put, Span, StoreError, Unchanged
from testbed.coord.waiting import Awaited, Bound, Cancel, Standing, Waiting

LEAVE_PATIENCE = 2.0
"""Seconds that leaving the queue may take; then it goes on in the background."""


class Held:
    """A lock that is held; ``token`` grows from holder to holder, for whoever must refuse a holder of before."""

    def __init__(self, waiting: Waiting, entry: Entry) -> None:
        self._waiting, self._entry = waiting, entry
        self.token = entry.created

    def release(self) -> bool:
        """Give it up; False if it was lost before, because the lease had ended. Raises StoreError."""
        key, created = self._entry.key, self._entry.created
        if self._waiting.store.commit([Delete(key)], [Unchanged(key, created)]).succeeded:
            return True
        return self._lease_lives()  # then it was this very call that gave it up, by an attempt whose answer was lost

    def _lease_lives(self) -> bool:
        """Whether the lease is still there, as only a key that is put on it can tell."""
        probe = self._waiting.keys.probe(self._entry.key)
        try:
            self._waiting.store.commit([Put(probe, b"", self._entry.lease)])
        except LeaseExpired:
            return False
        self._waiting.store.commit([Delete(probe)])
        return True


class Lock:
    """One lock for one member; ``lease`` gives the id of the lease on which the member lives."""

    def __init__(self, waiting: Waiting, name: str, member: str, lease: Callable[[], int]) -> None:
        self._waiting, self._name, self._member, self._lease = waiting, name, member, lease
        self._prefix = waiting.keys.lock(name)
        self._own = f"{self._prefix}{member}.{os.urandom(8).hex()}"

    def acquire(self, timeout: Optional[float], cancelled: Optional[Cancel]) -> Held:
        """Queue up and wait for one's turn. Raises Aborted, WaitTimeout, Cancelled (then no longer in the queue)."""
        awaited = Awaited("lock", [self._name], f"the lock {self._name!r}", "did not get free")
        bound = Bound(awaited.phrase, awaited.missed, timeout)
        try:
            held = bound.ask(self._look, self._leave)
            return held if isinstance(held, Held) else self._await_turn(held, awaited, bound, cancelled)
        except BaseException:
            with suppress(StoreError, TooLate):  # then it goes on in the background, or the lease takes it away
                in_time(self._leave, LEAVE_PATIENCE)
            raise

    def _leave(self, _: object = None) -> None:
        """Be no longer in the queue."""
        self._waiting.store.commit([Delete(self._own)])

    def _await_turn(self, ahead: Entry, awaited: Awaited, bound: Bound, cancelled: Optional[Cancel]) -> Held:
        with self._waiting.open(awaited, bound.timeout, cancelled, self._standing, bound.began) as wait:
            while True:
                wait.listen([Span(ahead.key)])
                wait.until(_deletion())
                held = bound.ask(self._look, self._leave)
                if isinstance(held, Held):
                    return held
                ahead = held

    def _look(self) -> Union[Held, Entry]:
        """The lock, or who is just before us in the queue; queues up where we are not in it."""
        while True:
            queue = self._queue()
            place = next((n for n, e in enumerate(queue) if e.key == self._own), None)
            if place == 0:
                return Held(self._waiting, queue[0])
            if place is not None:
                return queue[place - 1]
            with suppress(LeaseExpired):  # a new one is on its way: ask again
                self._waiting.store.commit([Put(self._own, b"", self._lease())], [Unchanged(self._own)])

    def _queue(self) -> Sequence[Entry]:
        entries = self._waiting.store.range(self._prefix, end_of(self._prefix)).entries
        return sorted(entries, key=lambda e: e.created)

    def _standing(self) -> Standing:
        """Who is before us; the first of them holds it."""
        names = [e.key[len(self._prefix) :].partition(".")[0] for e in self._queue() if e.key != self._own]
        return Standing(missing=names[:1], told=f"held by: {names[0]}" if names else "")


def _deletion() -> Callable[[Sequence[Change]], Optional[bool]]:
    """Looks whether the one key that is listened to has gone: nothing was read at first, or it was deleted since."""
    read = [1]

    def look(changes: Sequence[Change]) -> Optional[bool]:
        first = bool(read and read.pop())
        if not changes:
            return first or None
        return changes[-1].value is None or None

    return look
