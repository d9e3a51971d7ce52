"""What a node that is played by hand waits for, told to everybody as an agent would tell it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from testbed.coord.keys import RunKeys
from testbed.coord.sender import Sender
from testbed.coord.store import Delete, Put, Store

LAST_WORDS = 2.0
"""Seconds that telling the end of the last wait may take; else the lease ends it."""

_AT_ONCE = 1000  # waits of one process


class Played:
    """The waits of one command on behalf of ``node``; ``lease`` gives the id of the lease that the command lives on."""

    def __init__(self, store: Store, keys: RunKeys, node: str, lease: Callable[[], int]) -> None:
        self._store, self._keys, self._node, self._lease = store, keys, node, lease
        self._sender: Sender | None = None
        self._count = 0

    def begin(self, what: str, names: list[str], timeout: float | None, details: Mapping[str, Any]) -> int:
        """Tell that the command blocks; gives the wait's number."""
        if self._sender is None:
            self._sender = Sender(self._store, lambda _: None)  # who waits hears of the loss himself
            self._sender.start()
        wait, self._count = os.getpid() * _AT_ONCE + self._count, self._count + 1
        since = time.time()
        until = None if timeout is None else since + timeout
        told = json.dumps({"what": what, "names": names, "since": since, "until": until, **details}).encode()
        key = self._keys.waiting(self._node, wait)
        self._sender.send(lambda: self._store.commit([Put(key, told, self._lease())]))
        return wait

    def end(self, wait: int, outcome: str) -> None:  # noqa: ARG002  an agent makes an event of it
        """Tell that it blocks no more."""
        if self._sender is not None:
            self._sender.send(Delete(self._keys.waiting(self._node, wait)))

    def close(self) -> None:
        """Tell what is still to be told."""
        if self._sender is not None:
            self._sender.close(LAST_WORDS)
