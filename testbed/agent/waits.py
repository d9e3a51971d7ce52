"""What a node blocks on, told to everybody: an event at begin and end, and a key for as long as it lasts."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Mapping, Optional, Tuple

from testbed.agent.outbox import Outbox
from testbed.coord.keys import RunKeys
from testbed.coord.store import Delete, Put
from testbed.events import WaitEnded, WaitStarted


class Waits:
    """The waits of one node, numbered from 0; its methods may be called from any thread."""

    def __init__(self, outbox: Outbox, keys: RunKeys, node: str) -> None:
        self._outbox, self._keys, self._node = outbox, keys, node
        self._lock = threading.Lock()
        self._count = 0
        self._open: Dict[int, Tuple[float, str, List[str], int]] = {}
        self._caller = threading.local()

    @contextmanager
    def on_behalf(self, caller: int) -> Iterator[None]:
        """Whatever begins on this thread meanwhile is waited for by that process."""
        self._caller.pid = caller
        try:
            yield
        finally:
            self._caller.pid = 0

    def begin(
        self, what: str, names: List[str], timeout: Optional[float], details: Optional[Mapping[str, Any]] = None
    ) -> int:
        """Tell that a call blocks, for at most ``timeout`` seconds; gives the wait's number.

        What is told is documented in docs/coordination.md; ``details`` are the members that not all waits have.
        """
        with self._lock:
            wait, self._count = self._count, self._count + 1
            self._open[wait] = (time.monotonic(), what, names, getattr(self._caller, "pid", 0))
        since = time.time()
        until = None if timeout is None else since + timeout
        told = {"what": what, "names": names, "since": since, "until": until, **(details or {})}
        self._outbox.say(WaitStarted, wait=wait, what=what, names=names, timeout=timeout)
        self._outbox.send(Put(self._keys.waiting(self._node, wait), json.dumps(told).encode()))
        return wait

    def end(self, wait: int, outcome: str) -> None:
        """Tell that it blocks no more; a wait ends once, whoever says so first."""
        with self._lock:
            ended = self._open.pop(wait, None)
        if ended is None:
            return
        self._outbox.say(WaitEnded, wait=wait, outcome=outcome, duration=round(time.monotonic() - ended[0], 6))
        self._outbox.send(Delete(self._keys.waiting(self._node, wait)))

    def end_all(self, outcome: str) -> None:
        """Tell the end of all that are still open."""
        with self._lock:
            waits: Tuple[int, ...] = tuple(self._open)
        for wait in waits:
            self.end(wait, outcome)

    def now(self) -> List[Dict[str, Any]]:
        """What the node waits for right now: ``{what, names, for}`` each, ``for`` in seconds, the longest first."""
        with self._lock:
            waits = list(self._open.values())
        return [{"what": w, "names": n, "for": round(time.monotonic() - began, 1)} for began, w, n, _ in waits]

    def callers(self) -> Tuple[List[int], Dict[int, int]]:
        """The numbers of the open waits, and how many of them each process has, 0 standing for the agent."""
        with self._lock:
            waits = dict(self._open)
        counts: Dict[int, int] = {}
        for _, _, _, caller in waits.values():
            counts[caller] = counts.get(caller, 0) + 1
        return list(waits), counts
