"""What ansible-runner tells becomes task results: recorded events, with what each of them means.

tests/cases/bursts/recorded.jsonl holds the events of a real playbook run on a machine that is there and one that is
not; recorded.expect.json says what they come to: node, task, action, outcome, ignored, message. silent.json holds ends
of Ansible's output by how it ended, and what is made of them for a node of which it told no result.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testbed.run.bursts import forks_for, task_result
from testbed.run.executor import CHANGED, FAILED, OK, SKIPPED, UNREACHABLE, BurstOutcome, TaskResult

CASES = Path(__file__).parent.parent / "cases" / "bursts"


def recorded() -> list[TaskResult]:
    """The results that the recorded events tell."""
    lines = (CASES / "recorded.jsonl").read_text().splitlines()
    return [result for line in lines if (result := task_result(json.loads(line))) is not None]


def test_recorded_events() -> None:
    """Each recorded event that tells a task's result is understood, and no other is taken for one."""
    found = [[r.node, r.task, r.action, r.outcome, r.ignored, r.message] for r in recorded()]
    assert found == json.loads((CASES / "recorded.expect.json").read_text())
    assert {r.outcome for r in recorded()} == {OK, CHANGED, SKIPPED, FAILED, UNREACHABLE}


SILENT = json.loads((CASES / "silent.json").read_text())


@pytest.mark.parametrize("how", SILENT)
def test_why_a_node_was_not_told_of(how: str) -> None:
    """Where Ansible ended without a node's result the reason is its own, never a heading or another node's result."""
    case = SILENT[how]
    outcome = BurstOutcome(case["exit_code"], case["cancelled"], case["output"], log="")
    assert outcome.message == case["message"]


def test_what_is_hidden_stays_hidden() -> None:
    """A task with no_log tells neither its command nor its output."""
    (secret,) = [r for r in recorded() if r.task == "Secret"]
    assert "hidden" not in json.dumps(dict(secret.result)).replace("has been hidden", "")
    assert "echo" not in secret.output


@pytest.mark.parametrize(
    "event",
    [
        {},
        {"event": "verbose", "stdout": "x"},
        {"event": "runner_on_start", "event_data": {"host": "a"}},
        {"event": "runner_item_on_ok", "event_data": {"host": "a"}},
        {"event": "playbook_on_stats", "event_data": {}},
    ],
)
def test_other_events(event: dict[str, object]) -> None:
    """What tells no task's result is passed over."""
    assert task_result(event) is None


@pytest.mark.parametrize("data", [None, {}, {"res": None}, {"res": []}, {"res": "text"}, {"host": None}])
def test_torn_events(data: object) -> None:
    """An event with parts missing is a result with parts empty, never an error."""
    result = task_result({"event": "runner_on_failed", "event_data": data})
    assert result is not None
    assert result.outcome == FAILED
    assert result.message == ""


def test_forks() -> None:
    """There is a fork for every node as far as the machine bears it, and always one."""
    assert forks_for(1) == 1
    assert 1 <= forks_for(10_000) < 10_000
