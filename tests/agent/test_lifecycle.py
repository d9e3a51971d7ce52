"""What an agent does with a plan, as tables: tests/cases/agent/NAME.yml, each run by a real agent over a real etcd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from testbed.agent.plan import PlannedStep
from testbed.coord.store import Put
from tests.agent.machine import Machine, step

CASES = sorted((Path(__file__).parent.parent / "cases" / "agent").glob("*.yml"))


def planned(text: str, script: str, options: dict[str, Any]) -> PlannedStep:
    """The step that a case's ``configuration.target.step`` and script mean."""
    configuration, target, name = text.split(".")
    return step(target, name, script or "", configuration, **options)


def act(machine: Machine, what: str) -> None:
    """Do what a case has done from outside: raise a flag, set a value, answer for Ansible."""
    word, *rest = what.split()
    if word == "raise":
        machine.scope.raise_flag(rest[0], "the test says so")
    elif word == "set":
        machine.scope.set(rest[0], b"")
    elif word == "serve":
        told = {"serial": int(rest[0]), "verdict": rest[1], "reason": " ".join(rest[2:])}
        machine.store.commit([Put(machine.keys.served("n0"), json.dumps(told).encode())])
    else:
        raise AssertionError(what)


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_case(path: Path, machine: Machine) -> None:
    """A node goes through its plan exactly as the case says, and leaves no process."""
    case = yaml.safe_load(path.read_text())
    steps = [planned(s["step"], s.get("run", ""), s.get("with", {})) for s in case["steps"]]
    for what in case.get("before", []):
        act(machine, what)
    assert machine.start(machine.plan(*steps, **case.get("plan", {})))["ok"]
    due = list(case.get("when", []))
    if due:
        for line in machine.happenings():
            if line == due[0]["at"]:
                act(machine, due.pop(0)["do"])
            if not due:
                break
    machine.await_end()
    assert machine.lines() == case["expect"], machine.log()
    assert machine.left() == []
    abort = machine.scope.flag("abort")
    wanted = case.get("abort")
    assert (abort is None) == (wanted is None)
    if abort is not None:
        assert abort.by == wanted["by"]
        assert {k: abort.cause.get(k) for k in wanted.get("cause", {})} == wanted.get("cause", {})
    reason = machine.events()[-1]["reason"]
    assert case.get("reason", reason) == reason


def test_there_are_cases() -> None:
    """The table is found."""
    assert len(CASES) > 15
