"""Whether a node could go on without the others: what its processes do, as its agent tells whoever asks."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from testbed.agent.doing import STILL
from testbed.agent.plan import PlannedStep
from testbed.coord.store import Put, Span
from tests.agent.machine import LIMIT, Machine, step

PYTHON_API = """#!{python}
from testbed.coord import Scope
with Scope.here() as scope:
    scope.wait("never")
"""

LISTENS = """#!{python}
import os, socket
server = socket.create_server(("127.0.0.1", 0))
if os.fork() == 0:
    server.accept()
os.execvp("testbed", ["testbed", "get", "-b", "never"])
"""

TWO_THREADS = """#!{python}
import threading, time
from testbed.coord import Scope
threading.Thread(target=time.sleep, args=(300,), daemon=True).start()
with Scope.here() as scope:
    scope.wait("never")
"""

STANDS = {
    "a command": "testbed get -b never",
    "in a substitution": 'x=$(testbed get -b never); echo "$x"',
    "in a subshell of bash": "#!/bin/bash\n(testbed get -b never; true)",
    "jobs": "testbed get -b never & testbed get -b never.too & wait",
    "jobs of bash": "#!/bin/bash\ntestbed get -b never & testbed get -b never.too & wait",
    "a pipeline": "testbed subscribe never | while read -r line; do echo; done",
    "a program": PYTHON_API,
}

GOES_ON = {
    "a job that sleeps": ("sleep 300 & testbed get -b never", "sleep 300"),
    "a time limit of its own": ("timeout 300 testbed get -b never", "timeout 300 testbed get -b never"),
    "a server in the background": (LISTENS, sys.executable),
    "a thread beside the wait": (TWO_THREADS, sys.executable),
}


class Asking:
    """Asks the agent of a machine; the answers come over one watch."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._watch = machine.store.watch([Span(machine.keys.doing("n0"), revision=1)])
        self._timer = threading.Timer(LIMIT, self._watch.close)
        self._timer.start()
        self._answers = (json.loads(c.value or b"{}") for batch in self._watch for c in batch)
        self._count = 0

    def ask(self) -> dict[str, Any]:
        """What the agent answers."""
        self._count += 1
        question = f"{STILL}{self._count}"
        self._machine.store.commit([Put(self._machine.keys.asked("n0"), question.encode())])
        return next(a for a in self._answers if a["asked"] == question)

    def until(self, right: Callable[[dict[str, Any]], bool]) -> None:
        """Ask until the answer is right twice running with nothing having run between; fails after `LIMIT`.

        What a wait needs to begin may still run at first: a command that starts, a shell on its way to wait for it.
        """
        found: list[dict[str, Any]] = []
        while not (len(found) > 1 and right(found[-1]) and right(found[-2]) and found[-1]["ran"] == found[-2]["ran"]):
            try:
                found.append(self.ask())
            except StopIteration:
                raise AssertionError(found[-3:]) from None

    def close(self) -> None:
        """End the watch."""
        self._timer.cancel()
        self._watch.close()


def check(
    machine: Machine,
    *steps: PlannedStep,
    able: str = "",
    waits: int = 1,
    line: str = "wait_started get never",
    **plan: Any,
) -> None:
    """Hold what the agent of a machine answers when its step waits against what could go on; then abort the run."""
    assert machine.start(machine.plan(*steps, **plan))["ok"]
    machine.await_line(line)
    asking = Asking(machine)
    try:
        asking.until(
            lambda a: (
                len(a["open"]) == waits
                and len(a["able"]) == bool(able)
                and all(command.startswith(able) for command in a["able"])
            )
        )
    finally:
        asking.close()
        machine.scope.raise_flag("abort", "enough")
        machine.await_end()


@pytest.mark.parametrize("name", STANDS)
def test_node_that_stands(name: str, machine: Machine) -> None:
    """A node whose processes all wait for others, each in its own way, says that nothing of it could go on."""
    line = "wait_started subscribe never" if "subscribe" in STANDS[name] else "wait_started get never"
    script = STANDS[name].replace("{python}", sys.executable)
    check(machine, step("test", "main", script), line=line, waits=2 if "jobs" in name else 1)


@pytest.mark.parametrize("name", GOES_ON)
def test_node_that_goes_on(name: str, machine: Machine) -> None:
    """A node with anything that may do something by itself says so, and names it."""
    script, command = GOES_ON[name]
    check(machine, step("test", "main", script.replace("{python}", sys.executable)), able=command)


def test_services_are_passed_over(machine: Machine) -> None:
    """A service answers others: that it lives does not let its node go on."""
    service = step("service", "web", "setsid sleep 300 & exec sleep 300", kind="service", timeout=30.0)
    check(machine, service, step("test", "main", "testbed get -b never"))


def test_node_at_the_end_of_its_way_stands(machine: Machine) -> None:
    """A node that is through and waits for the end of the run stands."""
    check(machine, step("test", "main", "true"), finalise="n1", line="wait_started finalise finalise")


def test_node_that_works_goes_on(machine: Machine) -> None:
    """A node without any wait says what works."""
    script = "testbed set begun; exec sleep 300"
    check(machine, step("test", "main", script), able="sleep 300", waits=0, line="set begun")
