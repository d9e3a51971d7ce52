"""A burst whose Ansible is started before it is asked for, and waits at a gate."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from testbed.run.executor import Burst, BurstOutcome, TaskResult
from testbed.run.remote import GATE

Do = Callable[[Burst, Callable[[TaskResult], None], Callable[[], bool], Mapping[str, str]], BurstOutcome]
"""Does a burst: tells each result, asks whether it is cancelled, gives Ansible further environment variables."""


class Foreseen:
    """The burst under way on a thread of its own; what it tells is kept until `go_on`.

    ``gate`` is a named pipe: Ansible goes no further than to reading from it, and ends when this process has gone.
    """

    def __init__(self, burst: Burst, gate: Path, do: Do) -> None:
        self.burst = burst
        self._gate = gate
        self._pipe = os.open(gate, os.O_RDWR)  # does not wait for the reader; what is written stays while it is open
        self._do = do
        self._told: queue.SimpleQueue[TaskResult | BurstOutcome | Exception] = queue.SimpleQueue()
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._play, name=f"burst-{burst.number}-{burst.phase}-foreseen")
        self._thread.start()

    def go_on(self, on_result: Callable[[TaskResult], None], cancelled: threading.Event) -> BurstOutcome:
        """Open the gate and see the burst through, as `testbed.run.executor.Executor.run` does."""
        self._cancelled = cancelled
        try:
            os.write(self._pipe, b"go")
            while True:
                told = self._told.get()
                if isinstance(told, BurstOutcome):
                    return told
                if isinstance(told, Exception):
                    raise told
                on_result(told)
        finally:
            self._end()

    def give_up(self) -> None:
        """End the burst; it has done nothing yet."""
        self._cancelled.set()
        self._end()

    def _end(self) -> None:
        self._thread.join()
        os.close(self._pipe)
        self._gate.unlink()

    def _play(self) -> None:
        try:
            self._told.put(self._do(self.burst, self._told.put, self._is_cancelled, {GATE: str(self._gate)}))
        except Exception as error:  # noqa: BLE001  raised again by `go_on`, on the thread that asked
            self._told.put(error)

    def _is_cancelled(self) -> bool:
        return self._cancelled.is_set()
