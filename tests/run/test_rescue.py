"""What is still done for nodes when the run's loop has failed."""

from __future__ import annotations

import queue
import threading
from pathlib import Path

import pytest

from testbed.errors import LabError
from testbed.events import COLLECT, ResultsMissing
from testbed.run import directory as directories
from testbed.run.executor import Burst
from testbed.run.journal import Journal
from testbed.run.phases import Phases
from testbed.run.pipeline import Options, prepare
from testbed.run.rescue import rescue

SPEC = Path(__file__).parent.parent / "cases" / "runs" / "interrupted.yml"


class Absent:
    """An executor whose Ansible is not there."""

    serves = 1

    def run(self, *_: object) -> None:
        """Fail."""
        raise LabError("ansible-playbook is not there")

    def close(self) -> None:
        """Nothing was opened."""


def test_ansible_that_cannot_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each node that could not be collected it is told what kept Ansible from it."""
    monkeypatch.setenv("TESTBED_STATE_HOME", str(tmp_path))
    plan = prepare(Options(SPEC)).plan
    directory = directories.create(plan.run)
    with Journal(directory.events, lambda _: None) as journal:
        phases = Phases(plan, directory, journal)
        burst = Burst(1, COLLECT, ("a", "b"))
        troubles = rescue(burst, Absent(), phases, journal, queue.SimpleQueue(), threading.Event())  # type: ignore[arg-type]
        told = {e.node: e.reason for e in journal.recorded if isinstance(e, ResultsMissing)}
    assert [str(trouble) for trouble in troubles] == ["ansible-playbook is not there"]
    assert set(told) == {"a", "b"}
    assert all(reason.startswith("Ansible could not be run: ansible-playbook is not there") for reason in told.values())
