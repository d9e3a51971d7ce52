"""The store in this process's memory: the same contract as etcd's, for tests and for dry runs."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import Callable, Iterator, Sequence

from testbed.coord.store import (
    Change,
    Committed,
    Compacted,
    Delete,
    Entry,
    LeaseExpired,
    Operation,
    Put,
    Snapshot,
    Span,
    StoreError,
    Unavailable,
    Unchanged,
    check_size,
)


class MemoryStore:
    """A `Store` without a server.

    ``clock`` gives seconds and drives the leases; who turns a clock by hand calls `tick` afterwards. ``patience``
    is how many seconds calls and watches bear an `outage`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, patience: float = 30.0) -> None:
        self.patience = patience
        self._clock = clock
        self._changed = threading.Condition(threading.RLock())  # guards all below
        self._entries: dict[str, Entry] = {}
        self._history: list[tuple[Change, ...]] = []
        self._revision = 1  # as a fresh etcd
        self._compacted = 0
        self._leases: dict[int, tuple[float, float]] = {}  # id -> seconds, end
        self._last_lease = 0
        self._watches: list[MemoryWatch] = []
        self._outages = 0
        self._closed = False

    def range(self, start: str, end: str = "") -> Snapshot:
        """Read the key ``start``, or all keys in ``[start, end)``."""
        with self._ready():
            return Snapshot(self._find(Span(start, end)), self._revision)

    def commit(
        self, operations: Sequence[Operation], conditions: Sequence[Unchanged] = (), counted: Span | None = None
    ) -> Committed:
        """Do all operations at one revision if all conditions hold, else none; count the keys in ``counted`` after."""
        check_size(operations)
        _check_keys(operations)
        with self._ready():
            found = tuple(e for c in conditions for e in self._find(Span(c.key)))
            held = {e.key: e.revision for e in found}
            if any(held.get(c.key, 0) != c.revision for c in conditions):
                return Committed(False, self._revision, found)
            for operation in operations:
                if isinstance(operation, Put) and operation.lease and operation.lease not in self._leases:
                    raise LeaseExpired(f"there is no lease {operation.lease:x}")
            self._apply(operations)
            return Committed(True, self._revision, count=len(self._find(counted)) if counted else 0)

    def watch(self, spans: Sequence[Span]) -> MemoryWatch:
        """Watch several spans."""
        if not spans:
            raise ValueError("nothing to watch")
        with self._ready():
            starts = [s.revision or self._revision + 1 for s in spans]
            watch = MemoryWatch(self, [Span(s.start, s.end, r) for s, r in zip(spans, starts)])
            if min(starts) < self._compacted:
                watch.fall = Compacted(self._compacted)
            for batch in self._history:
                watch.offer(batch)
            self._watches.append(watch)
            return watch

    def lease(self, seconds: float) -> MemoryLease:
        """Make a lease; whole seconds, at least 2, as etcd does it."""
        with self._ready():
            self._last_lease += 1
            granted = float(max(2, -int(-seconds // 1)))
            self._leases[self._last_lease] = (granted, self._clock() + granted)
            self._changed.notify_all()  # who waits for the next lease to end must look at this one too
            return MemoryLease(self, self._last_lease, granted)

    def close(self) -> None:
        """End all watches and whoever waits for an outage to end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def tick(self) -> None:
        """Look at the clock again: leases may have ended."""
        with self._changed:
            self._expire()
            self._changed.notify_all()

    def compact(self, revision: int) -> None:
        """Forget what was before ``revision``; a later watch from before it finds `Compacted`."""
        with self._changed:
            self._compacted = max(self._compacted, revision)
            self._history = [b for b in self._history if b[0].revision >= revision]

    @contextmanager
    def outage(self) -> Iterator[None]:
        """Be unavailable for the while: calls wait, and raise Unavailable after ``patience`` seconds."""
        with self._changed:
            self._outages += 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._outages -= 1
                self._changed.notify_all()

    def refresh(self, lease: int) -> None:
        """Start that lease's time to live anew; raises LeaseExpired."""
        with self._ready():
            if lease not in self._leases:
                raise LeaseExpired(f"there is no lease {lease:x}")
            seconds, _ = self._leases[lease]
            self._leases[lease] = (seconds, self._clock() + seconds)

    def revoke(self, lease: int) -> None:
        """End that lease now, if it is there."""
        with self._ready():
            self._end_lease(lease)

    def next_batch(self, watch: MemoryWatch) -> tuple[Change, ...] | None:
        """Wait for the watch's next batch; None when it or the store is closed."""
        with self._changed:
            dark = None  # since when no answer comes, on the real clock: an outage is waited for, not simulated
            while not (self._closed or watch.closed):
                if self._outages:
                    dark = time.monotonic() if dark is None else dark
                    left = dark + self.patience - time.monotonic()
                    if left <= 0:
                        raise Unavailable(f"the memory store did not answer for {self.patience:g} s")
                    self._changed.wait(left)
                    continue
                dark = None
                self._expire()
                batch = watch.take()
                if batch:
                    return batch
                self._changed.wait(self._until_next_end())
            return None

    def forget(self, watch: MemoryWatch) -> None:
        """Count the watch as over."""
        with self._changed:
            if watch in self._watches:
                self._watches.remove(watch)
            self._changed.notify_all()

    @contextmanager
    def _ready(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._outages, self.patience)
            if self._closed:
                raise StoreError("the memory store is closed")
            if self._outages:
                raise Unavailable(f"the memory store did not answer for {self.patience:g} s")
            self._expire()
            yield

    def _find(self, span: Span) -> tuple[Entry, ...]:
        if not span.start:
            raise StoreError("key is not provided")
        if not span.end:
            entry = self._entries.get(span.start)
            return (entry,) if entry else ()
        return tuple(sorted((e for k, e in self._entries.items() if span.holds(k)), key=lambda e: e.key.encode()))

    def _apply(self, operations: Sequence[Operation]) -> None:
        revision = self._revision + 1
        changes: list[Change] = []
        for operation in operations:
            if isinstance(operation, Put):
                before = self._entries.get(operation.key)
                created = before.created if before else revision
                self._entries[operation.key] = Entry(operation.key, operation.value, revision, created, operation.lease)
                changes.append(Change(operation.key, operation.value, revision))
            else:
                for entry in self._find(Span(operation.key, operation.end)):
                    del self._entries[entry.key]
                    changes.append(Change(entry.key, None, revision))
        if changes:
            self._revision = revision
            self._history.append(tuple(changes))
            for watch in self._watches:
                watch.offer(tuple(changes))
            self._changed.notify_all()

    def _expire(self) -> None:
        now = self._clock()
        for identifier in [i for i, (_, end) in self._leases.items() if end <= now]:
            self._end_lease(identifier)

    def _end_lease(self, identifier: int) -> None:
        if self._leases.pop(identifier, None):
            keys = sorted(e.key for e in self._entries.values() if e.lease == identifier)
            self._apply([Delete(key) for key in keys])

    def _until_next_end(self) -> float | None:
        ends = [end for _, end in self._leases.values()]
        return max(0.0, min(ends) - self._clock()) if ends else None


class MemoryLease:
    """A lease of the memory store."""

    def __init__(self, store: MemoryStore, identifier: int, seconds: float) -> None:
        self.id = identifier
        self.seconds = seconds
        self._store = store

    def refresh(self) -> None:
        """Start the time to live anew."""
        self._store.refresh(self.id)

    def revoke(self) -> None:
        """End the lease now; no error if it is gone already."""
        self._store.revoke(self.id)


class MemoryWatch:
    """A watch of the memory store; every batch is what one commit did to the spans."""

    def __init__(self, store: MemoryStore, spans: Sequence[Span]) -> None:
        self.fall: StoreError | None = None
        self._store = store
        self._spans = spans
        self._batches: deque[tuple[Change, ...]] = deque()
        self._closed = False

    def offer(self, batch: tuple[Change, ...]) -> None:
        """Take from a commit what the spans hold; called by the store."""
        mine = tuple(c for c in batch if any(s.holds(c.key) and c.revision >= s.revision for s in self._spans))
        if mine:
            self._batches.append(mine)

    def __iter__(self) -> Iterator[tuple[Change, ...]]:
        try:
            while True:
                batch = self._store.next_batch(self)
                if batch is None:
                    return
                yield batch
        finally:
            self.close()

    def take(self) -> tuple[Change, ...] | None:
        """Give the next batch, None where there is none yet; called by the store."""
        if self.fall:
            raise self.fall
        return self._batches.popleft() if self._batches else None

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """End the watch; whoever iterates it comes to the end."""
        self._closed = True
        self._store.forget(self)


def _check_keys(operations: Sequence[Operation]) -> None:
    """Raise StoreError where etcd would: a key without a name, or one written twice in a commit."""
    puts = [o.key for o in operations if isinstance(o, Put)]
    deleted = [Span(o.key, o.end) for o in operations if not isinstance(o, Put)]
    if not all(o.key for o in operations):
        raise StoreError("key is not provided")
    if len(set(puts)) < len(puts) or any(s.holds(k) for s in deleted for k in puts):
        raise StoreError("duplicate key given in txn request")
