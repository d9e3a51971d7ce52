"""Writes that nobody waits for: queued, sent in order by one thread, many in a transaction."""

from __future__ import annotations

import queue
import threading
from typing import Any, Callable, List, Optional, Union

from testbed.coord.store import Operation, Put, Store, StoreError, Unchanged

BATCH = 64
"""Operations that one transaction takes; etcd's own limit is 128."""

BATCH_BYTES = 512 * 1024
"""Bytes of values that one transaction takes; etcd's own limit for a request is 1.5 MiB."""

Job = Callable[[], Any]


class Once(Put):
    """Set a key that nobody else sets, never twice: one that is there with this value was set by a lost answer."""


class Sender:
    """One queue and one thread before a store; ``lost`` is called once if the store does not take it any more."""

    def __init__(self, store: Store, lost: Callable[[StoreError], None]) -> None:
        self._store, self._lost_call = store, lost
        self._queue: queue.SimpleQueue[Union[Operation, Job, None]] = queue.SimpleQueue()
        self._next: Union[Operation, Job, None] = None
        self._lost = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, name="sender", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def send(self, work: Union[Operation, Job]) -> None:
        """Queue an operation, or something else to be done after all that is queued already."""
        self._queue.put(work)

    def close(self, seconds: Optional[float] = None) -> bool:
        """Send all that is queued, bounded by the store's patience, and end; False if that takes longer than that."""
        self._queue.put(None)
        return self._ended.wait(seconds)  # unlike a join, a wait may be left by an exception of a signal's handler

    def _live(self) -> None:
        try:
            self._work()
        finally:
            self._ended.set()

    def _work(self) -> None:
        while True:
            work = self._take()
            if work is None:
                return
            if self._lost:
                continue
            try:
                if callable(work):
                    work()
                else:
                    self._commit(self._batch(work))
            except StoreError as error:
                self._lost = True
                self._lost_call(error)

    def _commit(self, batch: List[Operation]) -> None:
        conditions = [Unchanged(o.key) for o in batch if isinstance(o, Once)]
        committed = self._store.commit(batch, conditions)
        if committed.succeeded:
            return
        there = {entry.key: entry.value for entry in committed.found}
        for operation in batch:
            if isinstance(operation, Once) and there.get(operation.key) != operation.value:
                raise StoreError(f"somebody else writes what is written here alone: {operation.key}")

    def _take(self) -> Union[Operation, Job, None]:
        """The next piece of work; None at the end."""
        held, self._next = self._next, None
        return self._queue.get() if held is None else held

    def _batch(self, first: Operation) -> List[Operation]:
        """All that is queued and fits into one transaction; a key may be in it only once."""
        batch, size = [first], _size(first)
        keys = {first.key}
        while len(batch) < BATCH:
            work = self._peek()
            if work is None:
                break
            if callable(work) or work.key in keys or size + _size(work) > BATCH_BYTES:
                self._next = work
                break
            batch.append(work)
            keys.add(work.key)
            size += _size(work)
        return batch

    def _peek(self) -> Optional[Union[Operation, Job]]:
        try:
            work = self._queue.get_nowait()
        except queue.Empty:
            return None
        if work is None:
            self._queue.put(None)  # the end stays in the queue for `_take`; nothing comes after it
        return work


def _size(operation: Operation) -> int:
    return len(operation.key) + (len(operation.value) if isinstance(operation, Put) else 0)
