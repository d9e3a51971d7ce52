"""What a node tells: events and notes to etcd, in order, each event once, and every event into a file at hand."""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Type, Union

from testbed.agent.answer import write_all
from testbed.coord.keys import RunKeys
from testbed.coord.sender import Job, Once, Sender
from testbed.coord.store import Operation, Store, StoreError
from testbed.events import Event, Notice, StepStarted, ValueSet, WaitEnded, WaitStarted, encode


class Outbox:
    """Between a node and etcd; ``lost`` is called once if etcd does not take what is sent any more.

    Events get their numbers, their line in ``journal`` and their place in the queue under one lock, so that all
    three orders are the same. After a loss they are still written to the journal.

    Events of waits and values say how much the running step has written into its logs, which lie in the folder
    ``logs``: that gives its lines a time, as a step writes nothing while it waits.
    """

    def __init__(
        self, store: Store, keys: RunKeys, node: str, journal: str, lost: Callable[[StoreError], None], logs: str = ""
    ) -> None:
        self._keys, self._node, self._logs, self._step = keys, node, logs, ""
        self._journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._journal_broken = False
        self._lock = threading.RLock()
        self._sequence = 0
        self._sender = Sender(store, lost)
        self._listeners: List[Callable[[Type[Event], Dict[str, Any]], None]] = []

    def listen(self, listener: Callable[[Type[Event], Dict[str, Any]], None]) -> None:
        """Have ``listener`` called with every event of this node, kind and fields; before `start`."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Begin to send."""
        self._sender.start()

    def say(self, kind: Type[Event], **fields: Any) -> None:
        """Append an event of this node to journal and etcd."""
        with self._lock:
            self.send(self.record(kind, **fields))

    def record(self, kind: Type[Event], **fields: Any) -> Once:
        """Number an event and write it to the journal; what is given back is still to be sent."""
        with self._lock:
            if kind is StepStarted:
                self._step = "{configuration}.{target}.{step}".format(**fields)
            elif kind in (WaitStarted, WaitEnded, ValueSet):
                fields = {**fields, "out": self._written(".out"), "err": self._written(".err")}
            text = encode(kind(at=time.time(), node=self._node, **fields))
            operation = Once(self._keys.event(self._node, self._sequence), text.encode("utf-8", "replace"))
            self._sequence += 1
            broken = self._append(operation.value + b"\n")
        for listener in self._listeners:
            listener(kind, fields)
        if broken:
            self.say(Notice, level="warning", message=f"cannot write events.jsonl on the node: {broken}")
        return operation

    def send(self, work: Union[Operation, Job]) -> None:
        """Queue an operation, or something else to be done after all that is queued already."""
        self._sender.send(work)

    def close(self, seconds: Optional[float] = None) -> bool:
        """Send all that is queued, bounded by the store's patience, and end; False if that takes longer than that."""
        return self._sender.close(seconds)

    def _written(self, stream: str) -> int:
        """The size of the running step's log in bytes; -1 where it has none."""
        try:
            return os.stat(os.path.join(self._logs, self._step + stream)).st_size if self._logs else -1
        except OSError:
            return -1

    def _append(self, line: bytes) -> str:
        """Write a line to the journal; the reason of the first failure, else empty."""
        try:
            write_all(self._journal, line)
        except OSError as error:
            first, self._journal_broken = not self._journal_broken, True
            return str(error.strerror) if first else ""
        return ""
