"""What a node tells: events and notes to etcd, in order, at least once, and every event into a file at hand."""

from __future__ import annotations

import os
import queue
import threading
import time
from typing import Any, Callable, List, Optional, Type, Union

from testbed.agent.answer import write_all
from testbed.coord.keys import RunKeys
from testbed.coord.store import Operation, Put, Store, StoreError
from testbed.events import Event, Notice, encode

BATCH = 64
"""Operations that one transaction takes; etcd's own limit is 128."""

BATCH_BYTES = 512 * 1024
"""Bytes of values that one transaction takes; etcd's own limit for a request is 1.5 MiB."""

Job = Callable[[], Any]


class Outbox:
    """One queue and one thread between a node and etcd; `lost` is called once if etcd does not take it any more.

    Events get their numbers, their line in ``journal`` and their place in the queue under one lock, so that all
    three orders are the same. After a loss they are still written to the journal.
    """

    def __init__(self, store: Store, keys: RunKeys, node: str, journal: str, lost: Callable[[str], None]) -> None:
        self._store, self._keys, self._node, self._lost_call = store, keys, node, lost
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._journal_broken = False
        self._lock = threading.RLock()
        self._sequence = 0
        self._queue: queue.SimpleQueue[Union[Operation, Job, None]] = queue.SimpleQueue()
        self._next: Union[Operation, Job, None] = None
        self._lost = False
        self._thread = threading.Thread(target=self._work, name="outbox", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def say(self, kind: Type[Event], **fields: Any) -> None:
        """Append an event of this node to journal and etcd."""
        with self._lock:
            self.send(self.record(kind, **fields))

    def record(self, kind: Type[Event], **fields: Any) -> Put:
        """Number an event and write it to the journal; what is given back is still to be sent."""
        with self._lock:
            text = encode(kind(at=time.time(), node=self._node, **fields))
            operation = Put(self._keys.event(self._node, self._sequence), text.encode("utf-8", "replace"))
            self._sequence += 1
            broken = self._append(operation.value + b"\n")
        if broken:
            self.say(Notice, level="warning", message=f"cannot write events.jsonl on the node: {broken}")
        return operation

    def send(self, work: Union[Operation, Job]) -> None:
        """Queue an operation, or something else to be done after all that is queued already."""
        self._queue.put(work)

    def close(self) -> None:
        """Send all that is queued, bounded by the store's patience, and end."""
        self._queue.put(None)
        self._thread.join()

    def _append(self, line: bytes) -> str:
        """Write a line to the journal; the reason of the first failure, else empty."""
        try:
            write_all(self._journal, line)
        except OSError as error:
            first, self._journal_broken = not self._journal_broken, True
            return str(error.strerror) if first else ""
        return ""

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
                    self._store.commit(self._batch(work))
            except StoreError as error:
                self._lost = True
                self._lost_call(str(error))

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
