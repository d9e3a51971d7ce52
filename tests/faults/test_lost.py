"""Nodes and controllers that are cut off or killed: what the others do, and what the lost ones still may."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import testbed
from testbed.agent.workspace import Workspace, wait_free
from testbed.coord.gateway import connect
from testbed.coord.keys import RunKeys
from testbed.coord.store import Denied, Put
from testbed.lab import practice
from tests.faults.live import LIMIT, LiveRun

NETWORK = """
deployment: network
finalise: all
configurations:
  worker:
    test: |
      read _ < "{folder}/gate"
      testbed set "done" yes
    finalise: echo "$TESTBED_NODE" > "{folder}/finalised"
  keeper:
    test: testbed get -b "done"
    finalise: read _ < "{folder}/hold"
nodes:
  far: {{configurations: [worker]}}
  near: {{configurations: [keeper]}}
"""


class Pipes:
    """Named pipes in a folder that every node on this machine sees; nobody blocks in opening one."""

    def __init__(self, folder: Path, *names: str) -> None:
        self.folder = folder
        self._ends: dict[str, int] = {}
        for name in names:
            os.mkfifo(folder / name)
            self._ends[name] = os.open(folder / name, os.O_RDWR)

    def open(self, name: str) -> None:
        """Let go whoever reads that pipe, now or later."""
        os.write(self._ends[name], b"go\n")

    def await_word(self, name: str) -> str:
        """Block until somebody has written to that pipe."""
        assert select.select([self._ends[name]], [], [], LIMIT)[0], f"nobody wrote to {name}"
        return os.read(self._ends[name], 100).decode().strip()

    def close(self) -> None:
        """Give the pipes back."""
        for end in self._ends.values():
            os.close(end)


@pytest.fixture
def pipes() -> Iterator[Pipes]:
    """Pipes where practice hosts, which have a /tmp of their own, see them; without root there are no such hosts."""
    folder = Path(tempfile.mkdtemp(prefix="testbed-faults-", dir="/srv" if os.geteuid() == 0 else None))
    made = Pipes(folder, "gate", "hold", "finalised")
    yield made
    made.close()
    shutil.rmtree(folder)


@pytest.mark.lab
def test_a_short_cut_is_nothing(start: Callable[..., LiveRun], practice_lab: practice.Lab, pipes: Pipes) -> None:
    """A node whose network is cut for less than its lease loses nothing, and nobody says anything of it."""
    pipes.open("hold")
    text = NETWORK.format(folder=pipes.folder)
    run = start(text, {"liveness": 15}, inventories=(str(practice_lab.inventory),))
    run.await_event("step_started", node="far")
    run.await_event("wait_started", node="near")
    name = practice_lab.hosts[0].name
    practice.cut(practice_lab, name)
    try:
        pipes.open("gate")  # what the node tells now has to wait
        threading.Event().wait(3)  # the fault itself
    finally:
        practice.join(practice_lab, name)
    assert run.end().judgement.exit_code == 0, run.events
    assert run.all_of("node_lost") == []
    assert pipes.await_word("finalised") == "far"


@pytest.mark.lab
def test_a_long_cut_is_death(
    start: Callable[..., LiveRun], practice_lab: practice.Lab, pipes: Pipes, tmp_path: Path
) -> None:
    """A node cut for longer than its lease is lost; when it returns it finalises, and its credentials write nothing.

    Its results can be fetched then, and nothing of the run stays on its machine.
    """
    text = NETWORK.format(folder=pipes.folder)
    impatient = tmp_path / "impatient.yml"  # with machines that do not answer
    impatient.write_text("all: {vars: {ansible_ssh_timeout: 5}}\n")
    run = start(text, {"liveness": 3, "outage": 60}, inventories=(str(practice_lab.inventory), str(impatient)))
    run.await_event("step_started", node="far")
    run.await_event("wait_started", node="near")
    keys = RunKeys(run.directory.run)
    name = practice_lab.hosts[0].name
    with contextlib.closing(connect(run.access_of("far"))) as stranger:
        stranger.commit([Put(keys.value("before"), b"1")])
        practice.cut(practice_lab, name)
        try:
            run.await_event("node_lost", node="far")
            run.await_event("step_started", node="near", target="finalise")  # it obeys the abort
            run.await_event("results_missing", node="far")
        finally:
            practice.join(practice_lab, name)
        with pytest.raises(Denied):
            stranger.commit([Put(keys.value("after"), b"1")])
    assert pipes.await_word("finalised") == "far"
    pipes.open("hold")
    outcome = run.end()
    assert outcome.judgement.exit_code == 3, run.events
    assert outcome.judgement.first_cause is not None
    assert outcome.judgement.first_cause.node == "far"
    cleaned = clean(str(run.directory.path))
    assert "far: fetched" in cleaned.stderr, cleaned
    left = subprocess.run([*practice.enter(practice_lab, name), "ls", "-A", "/root"], capture_output=True, check=True)
    assert left.stdout == b""


def clean(run: str) -> subprocess.CompletedProcess[str]:
    """`testbed clean`, as an operator would call it."""
    return subprocess.run(
        [sys.executable, "-m", "testbed", "clean", run], capture_output=True, text=True, check=False,
        timeout=LIMIT, cwd=Path(testbed.__file__).parent.parent,
    )  # fmt: skip


def controller_of(spec: Path, run_dir: Path, timing: dict[str, float]) -> subprocess.Popen[str]:
    """A controller as a process of its own, to be killed."""
    root = Path(testbed.__file__).parent.parent
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.live", spec, run_dir, json.dumps(timing)],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=root,
    )  # fmt: skip


def test_the_controller_is_killed(pipes: Pipes, tmp_path: Path) -> None:
    """Agents go on to the end of their step, bear the outage, finalise, and keep what `testbed clean` brings home."""
    spec, run_dir = tmp_path / "spec.yml", tmp_path / "run"
    spec.write_text(
        f"""
deployment: orphans
finalise: all
configurations:
  worker:
    test:
      run: |
        echo begun
        read _ < "{pipes.folder}/gate"
        echo worked | tee "$TESTBED_REPORTS/worked"
    publish: echo published
    finalise: echo finalised; cp "$TESTBED_REPORTS/worked" "$TESTBED_REPORTS/kept"
nodes:
  a: {{configurations: [worker]}}
"""
    )
    controller = controller_of(spec, run_dir, {"liveness": 2, "outage": 4})
    workspace = Workspace(str(run_dir / "workspaces" / "a"))
    assert controller.stdout is not None
    with controller, controller.stdout:
        for line in controller.stdout:
            if line.strip() == "step_started":
                break
        controller.send_signal(signal.SIGKILL)
    pipes.open("gate")
    assert wait_free(workspace, LIMIT)
    run = (run_dir / "run-id").read_text().strip()
    cleaned = clean(run)
    assert cleaned.returncode == 0, cleaned
    logs = run_dir / "nodes" / "a" / "logs"
    assert (logs / "worker.test.main.out").read_text() == "begun\nworked\n"
    assert (logs / "worker.finalise.main.out").read_text() == "finalised\n"
    assert (run_dir / "nodes" / "a" / "reports" / "kept").read_text() == "worked\n"
    assert not Path(workspace.path).exists()
