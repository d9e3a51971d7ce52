"""What a node blocks on, told to everybody: an event at begin and end, and a key for as long as it lasts."""

from __future__ import annotations

import json
import threading
import time
from typing import Dict, List, Optional, Tuple

from testbed.agent.outbox import Outbox
from testbed.coord.keys import RunKeys
from testbed.coord.store import Delete, Put
from testbed.events import WaitEnded, WaitStarted

MET, TIMED_OUT, ABORTED, GONE = "met", "timeout", "aborted", "gone"
"""How a wait ends."""


class Waits:
    """The waits of one node, numbered from 0; its methods may be called from any thread."""

    def __init__(self, outbox: Outbox, keys: RunKeys, node: str) -> None:
        self._outbox, self._keys, self._node = outbox, keys, node
        self._lock = threading.Lock()
        self._count = 0
        self._open: Dict[int, float] = {}

    def begin(self, what: str, names: List[str], timeout: Optional[float]) -> int:
        """Tell that a call blocks, for at most ``timeout`` seconds; gives the wait's number."""
        with self._lock:
            wait, self._count = self._count, self._count + 1
            self._open[wait] = time.monotonic()
        since = time.time()
        until = None if timeout is None else since + timeout
        value = json.dumps({"what": what, "names": names, "since": since, "until": until})
        self._outbox.say(WaitStarted, wait=wait, what=what, names=names, timeout=timeout)
        self._outbox.send(Put(self._keys.waiting(self._node, wait), value.encode()))
        return wait

    def end(self, wait: int, outcome: str) -> None:
        """Tell that it blocks no more; a wait ends once, whoever says so first."""
        with self._lock:
            began = self._open.pop(wait, None)
        if began is None:
            return
        self._outbox.say(WaitEnded, wait=wait, outcome=outcome, duration=round(time.monotonic() - began, 6))
        self._outbox.send(Delete(self._keys.waiting(self._node, wait)))

    def end_all(self, outcome: str) -> None:
        """Tell the end of all that are still open."""
        with self._lock:
            waits: Tuple[int, ...] = tuple(self._open)
        for wait in waits:
            self.end(wait, outcome)
