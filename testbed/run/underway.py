"""The bursts of a run that are under way, each on a thread of its own, and what nodes are still owed of them."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbed import events
from testbed.errors import TestbedError
from testbed.run.executor import Burst, Executor
from testbed.run.journal import Journal
from testbed.run.messages import BurstDone, Failed, Result


@dataclass(frozen=True, slots=True)
class _Running:
    """``began`` is monotonic seconds."""

    burst: Burst
    cancelled: threading.Event
    thread: threading.Thread
    began: float


class Underway:
    """Begins bursts, and ends them; what comes of them goes into ``inbox``, begin and end into the journal."""

    def __init__(self, executor: Executor, journal: Journal, inbox: queue.SimpleQueue[Any]) -> None:
        self._executor = executor
        self._journal = journal
        self._inbox = inbox
        self._running: dict[int, _Running] = {}
        self.count = 0

    def begin(self, phase: str, nodes: Sequence[str], steps: Mapping[str, str] | None = None) -> int:
        """Begin a burst over the nodes; ``steps`` names the step of each to serve. Gives its number."""
        self.count += 1
        burst = Burst(self.count, phase, tuple(nodes), steps or {})
        cancelled = threading.Event()
        thread = threading.Thread(target=self._play, args=(burst, cancelled), name=f"burst-{burst.number}-{phase}")
        self._journal.say(events.BurstStarted, burst=burst.number, phase=phase, nodes=list(nodes))
        self._running[burst.number] = _Running(burst, cancelled, thread, time.monotonic())
        thread.start()
        return burst.number

    def over(self, burst: Burst) -> None:
        """Take in that a burst is done."""
        duration = round(time.monotonic() - self._running.pop(burst.number).began, 3)
        self._journal.say(events.BurstEnded, burst=burst.number, phase=burst.phase, duration=duration)

    def any_of(self, phase: str) -> bool:
        """Whether a burst of that phase is under way."""
        return any(running.burst.phase == phase for running in self._running.values())

    def cancel(self, *phases: str) -> None:
        """Have the bursts of these phases end."""
        for running in self._running.values():
            if running.burst.phase in phases:
                running.cancelled.set()

    def end(self) -> None:
        """End all bursts and wait for it."""
        for running in self._running.values():
            running.cancelled.set()
        for running in self._running.values():
            running.thread.join()

    def _play(self, burst: Burst, cancelled: threading.Event) -> None:
        """On the burst's own thread: do it, and tell."""
        try:
            outcome = self._executor.run(burst, lambda task: self._inbox.put(Result(burst, task)), cancelled)
            self._inbox.put(BurstDone(burst, outcome))
        except TestbedError as error:
            self._inbox.put(BurstDone(burst, None, error.message))
        except Exception as error:  # noqa: BLE001  raised again by the loop, which would wait for ever for a dead thread
            self._inbox.put(Failed(error))


class Wishes:
    """Which step each node stands before last, by its serial, and which bursts owe it an answer to that."""

    def __init__(self, answer: Callable[[str, str, int, str, str], None]) -> None:
        self._answer = answer
        self._serial: dict[str, int] = {}
        self._owed: dict[tuple[int, str], int] = {}

    def wish(self, node: str, serial: int) -> None:
        """A node stands before its step of that serial."""
        self._serial[node] = serial

    def owe(self, burst: int, wishes: Mapping[str, tuple[int, str]]) -> None:
        """A burst does these steps: node -> (serial, step)."""
        self._owed.update({(burst, node): serial for node, (serial, _) in wishes.items()})

    def is_owed(self, burst: Burst, node: str) -> bool:
        """Whether the burst has not answered the node yet."""
        return (burst.number, node) in self._owed

    def answer(self, burst: Burst, node: str, verdict: str, reason: str) -> None:
        """Tell the node how its step ended: once for each burst, and not if it waits no longer for that step.

        A burst lasts until its slowest node is done; meanwhile the others may stand before further steps.
        """
        serial = self._owed.pop((burst.number, node), None)
        if serial is not None and serial == self._serial[node]:
            self._answer(node, burst.steps[node], serial, verdict, reason)

    def take_back(self, burst: Burst, node: str) -> int | None:
        """The burst is over without the node's step: its serial if that is still to be done, else None."""
        serial = self._owed.pop((burst.number, node))
        return serial if serial == self._serial[node] else None
