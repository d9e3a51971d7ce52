"""A step that its SERVE has left without a word of its end: what is made of Ansible's last words.

Cases are in tests/cases/bursts/unserved.json: what Ansible printed last (``{playbooks}`` stands for the run's), and the
verdict of node a's step; null: it has still to be done.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testbed.events import SERVE
from testbed.run import directory as directories
from testbed.run.executor import Burst, BurstOutcome
from testbed.run.journal import Journal
from testbed.run.messages import BurstDone
from testbed.run.phases import Phases
from testbed.run.pipeline import Options, prepare

HERE = Path(__file__).parent.parent / "cases"
CASES = json.loads((HERE / "bursts" / "unserved.json").read_text())


@pytest.mark.parametrize("how", CASES)
def test_unserved(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Content that Ansible refuses fails its own node's step, what a task failed at none but its own."""
    monkeypatch.setenv("TESTBED_STATE_HOME", str(tmp_path))
    plan = prepare(Options(HERE / "runs" / "interrupted.yml")).plan
    directory = directories.create(plan.run)
    case = CASES[how]
    output = case["output"].replace("{playbooks}", str(directory.playbooks))
    done = BurstDone(Burst(1, SERVE, ("a", "b"), {}), BurstOutcome(case["exit_code"], False, output, ""))
    with Journal(directory.events, lambda _: None) as journal:
        found = Phases(plan, directory, journal).unserved(done, "a")
    assert (found and found[0]) == case["verdict"]
    assert case.get("reason", "") in (found[1] if found else "")
