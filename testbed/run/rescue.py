"""What is still done for nodes when the run's loop itself has failed: they are ended, and their results come home."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

from testbed.run import watching
from testbed.run.executor import Burst, Executor
from testbed.run.journal import Journal
from testbed.run.phases import Phases


def rescue(
    burst: Burst,
    executor: Executor,
    phases: Phases,
    journal: Journal,
    inbox: queue.SimpleQueue[Any],
    cancelled: threading.Event,
) -> list[Exception]:
    """Collect the nodes of ``burst``, which ends their agents in order; gives what went wrong on the way.

    ``inbox`` holds what the loop did not come to; the events among it are kept.
    """
    troubles: list[Exception] = []
    silence = ""

    def attempt(work: Callable[..., object], *arguments: Any) -> None:
        try:
            work(*arguments)
        except Exception as error:  # noqa: BLE001  told beside what this is to rescue from; the rest is done all the same
            troubles.append(error)

    def collect() -> None:
        nonlocal silence
        outcome = executor.run(burst, phases.collect, cancelled)
        silence = "the operator did not wait for it" if outcome.cancelled else outcome.message

    attempt(collect)
    silence = silence or "".join(f"Ansible could not be run: {trouble}" for trouble in troubles)
    while not inbox.empty():
        message = inbox.get()
        if isinstance(message, watching.Recorded):
            attempt(journal.take, message.event)
    for node in burst.nodes:
        attempt(phases.settle, node, silence)
    return troubles
