"""The run's record: every event, in one order, into ``events.jsonl`` and to whoever listens."""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from testbed import events
from testbed.events import Event

Listener = Callable[[Event], None]
"""Told every event once, in order, on the thread that recorded it."""


class Journal:
    """Appends events to a file, line by line, whole lines only; a scope."""

    def __init__(self, path: Path, listener: Listener) -> None:
        self._file = path.open("a", encoding="utf-8")
        fcntl.flock(self._file, fcntl.LOCK_EX)  # for as long as the controller lives: so others tell whether it does
        if _is_torn(path):
            self._file.write("\n")  # what is written next is a line of its own
        self._listener = listener
        self._lock = threading.Lock()
        self._mirror: Callable[[Event], None] | None = None
        self._own: list[Event] = []
        self.recorded: list[Event] = []

    def take(self, event: Event) -> None:
        """Write down what a node told, then tell the listener."""
        with self._lock:
            self._write(event)

    def record(self, event: Event) -> None:
        """Write down an event of the controller's own, then tell the listener and the mirror."""
        with self._lock:
            self._write(event)
            self._own.append(event)
            if self._mirror is not None:
                self._mirror(event)

    def mirror(self, mirror: Callable[[Event], None] | None) -> None:
        """Tell ``mirror`` all of the controller's own events, those so far first; None ends that."""
        with self._lock:
            self._mirror = mirror
            if mirror is not None:
                for event in self._own:
                    mirror(event)

    def _write(self, event: Event) -> None:
        self._file.write(events.encode(event) + "\n")
        self._file.flush()
        self.recorded.append(event)
        self._listener(event)

    def say(self, kind: type[Event], node: str = "", **fields: Any) -> None:
        """Record an event of the controller's own, now."""
        self.record(kind(at=time.time(), node=node, **fields))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._file.close()


def _is_torn(path: Path) -> bool:
    """Whether the file ends in the middle of a line, because its writer was killed there."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 1))
        return file.read(1) not in (b"", b"\n")
