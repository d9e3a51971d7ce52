"""What goes wrong around a run: the operator, the controller itself, its etcd, the disk."""

from __future__ import annotations

import fcntl
import io
import os
import select
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from testbed import events
from testbed.etcd import binary
from testbed.run import directory as directories
from testbed.run.controller import execute
from testbed.run.freeze import Timing
from testbed.run.pipeline import Options, prepare

CASES = Path(__file__).parent.parent / "cases" / "runs"
STAYS = CASES / "stays.yml"

FILLS = """
deployment: fills
timeout: 1m
configurations:
  c: {test: 'cat /dev/zero > fill', finalise: echo finalised}
nodes:
  a: {configurations: [c]}
"""


def finalised(run: Any, *nodes: str) -> None:
    """The nodes have finalised and their results are home."""
    for node in nodes:
        assert "finalised" in run.log(node, "c.finalise.main.out")
        assert (run.path / "nodes" / node / "reports" / "finalised").exists()


def test_second_interruption_does_not_wait(start: Callable[..., Any]) -> None:
    """A second Ctrl-C ends the run at once, exit 130; `testbed clean` later brings home and removes what it left."""
    run = start(CASES / "slow-finalise.yml")
    run.await_line("waits: get never", 2)
    run.process.send_signal(signal.SIGINT)
    run.await_line("SIGINT: aborting")
    run.process.send_signal(signal.SIGINT)
    code, out = run.end()
    assert code == 130, out
    assert run.report()["verdict"] == "cancelled"
    assert "the operator did not wait" in out
    done = run.testbed("clean", run.name)
    assert done.returncode == 0, done
    finalised(run, "a", "b")
    report = run.report()
    assert (report["verdict"], report["exit_code"]) == ("cancelled", 130)
    assert {n["name"]: (n["verdict"], n["results"]) for n in report["nodes"]} == {
        "a": ("aborted", "collected"), "b": ("aborted", "collected"),
    }  # fmt: skip
    run.check_nothing_left()


def test_interruption_before_nodes_live(start: Callable[..., Any]) -> None:
    """Ctrl-C while the run is still being set up ends it, exit 130, with a report and nothing left."""
    run = start(STAYS)
    run.await_line("run stays-")
    run.process.send_signal(signal.SIGINT)
    code, out = run.end()
    assert code == 130, (run.lines, out)
    assert run.report()["verdict"] == "cancelled"
    run.check_nothing_left()


def test_interruption_of_the_last_phase(start: Callable[..., Any]) -> None:
    """A signal when all nodes are home loses no report: the run ends as it would have."""
    run = start(CASES / "finalise-explicit.yml")
    run.await_line("a  waits: wait finalise")
    assert run.testbed("finalise", run.name).returncode == 0
    run.await_line("a  results are home")
    run.process.send_signal(signal.SIGTERM)
    code, out = run.end()
    assert code in (0, 130, -signal.SIGTERM), out
    assert run.report()["verdict"] == ("cancelled" if code == 130 else "passed")
    run.check_nothing_left()


REPORTS = """
deployment: reports
timeout: 3m
configurations:
  c: {test: 'head -c 300000 /dev/urandom > "$TESTBED_REPORTS/large"; testbed wait finalise'}
nodes:
  a: {configurations: [c]}
finalise: explicit
"""


def test_interruption_while_reports_are_written(start: Callable[..., Any], tmp_path: Path) -> None:
    """A signal while the run's reports are being written does not tear them: they are whole, and the run has passed."""
    spec = tmp_path / "reports.yml"
    spec.write_text(REPORTS)
    run = start(spec)
    run.await_line("a  waits: wait finalise")
    slow = run.path / f".reports.tar.gz.{run.process.pid}"  # what the archive is written as
    os.mkfifo(slow)
    assert run.testbed("finalise", run.name).returncode == 0
    with slow.open("rb") as pipe:
        run.process.send_signal(signal.SIGTERM)
        assert fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) < 300000  # the writer waits for who reads
        archive = pipe.read()
    code, out = run.end()
    assert (code, "PASSED" in out) == (0, True), run.lines
    assert run.report()["verdict"] == "passed"
    with tarfile.open(fileobj=io.BytesIO(archive)) as packed:
        assert f"{run.name}/report.json" in packed.getnames()
        assert packed.getmember(f"{run.name}/nodes/a/reports/large").size == 300000


HANGS = """
deployment: hangs
timeout: 2m
configurations:
  c:
    test: |
      for agent in "$TESTBED_WORKSPACE"/.testbed/agent-*.pyz; do
        echo 'import signal; signal.pause()' >other && mv other "$agent" || exit 1
      done
      kill -{signal} "$PPID"
      : >{pipe}
nodes:
  a: {{configurations: [c]}}
"""


@pytest.mark.parametrize(
    ("sent", "liveness", "lost"),
    [
        pytest.param("KILL", 3, "the agent's lease of 3 s ran out", id="of-a-node-without-a-lease"),
        pytest.param("STOP", 60, "did not end within its own limits", id="of-a-node-that-was-given-up"),
    ],
)
def test_collecting_that_never_ends(
    start: Callable[..., Any], tmp_path: Path, sent: str, liveness: float, lost: str
) -> None:
    """When a machine hangs while its results are fetched the run ends, and tells the machine and what to do."""
    spec = tmp_path / "hangs.yml"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    spec.write_text(HANGS.format(signal=sent, pipe=pipe))
    run = start(spec, timing={"liveness": liveness, "finalise": 1, "grace": 0.5, "packing": 0, "slack": 1})
    pipe.read_bytes()  # the signal was sent
    if sent == "STOP":
        assert run.testbed("abort", run.name).returncode == 0
    code, out = run.end()
    assert code != 0, (run.lines, out)
    (gone,) = [event["reason"] for event in run.events() if event["event"] == "node_lost"]
    assert gone.startswith(lost)
    (why,) = [event["reason"] for event in run.events() if event["event"] == "results_missing"]
    hangs = "a, or the agent on it, hangs or is slow: not done in the time that the run has for it"
    told = f"{hangs}; `testbed clean {run.name}` tries again"
    assert why.startswith(told)
    assert why.endswith("(on this machine)")
    assert any(why in line for line in run.lines), run.lines
    assert told in out


FROZEN = """
deployment: frozen
timeout: 5m
configurations:
  c: {test: echo tested; kill -STOP "$PPID"}
nodes:
  a: {configurations: [c]}
"""


def test_frozen_agent(start: Callable[..., Any], tmp_path: Path) -> None:
    """An agent that does not answer is killed when its time to end is over; its node's logs come home all the same."""
    spec = tmp_path / "frozen.yml"
    spec.write_text(FROZEN)
    run = start(spec, timing={"liveness": 3, "finalise": 1, "grace": 0.5, "packing": 1})
    code, out = run.end()
    assert code == 3, (run.lines, out)
    assert [n["results"] for n in run.report()["nodes"]] == ["collected"]
    assert run.log("a", "c.test.main.out") == "tested\n"
    run.check_nothing_left()


def test_killed_controller(start: Callable[..., Any]) -> None:
    """After kill -9 of the controller the agents finalise by themselves; `testbed clean` fetches all and tidies up."""
    run = start(STAYS, timing={"liveness": 3, "outage": 3})
    run.await_line("waits: get never", 2)
    agents = [os.pidfd_open(run.pid_of_agent(node)) for node in ("a", "b")]
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait()
    for agent in agents:
        assert wait_for_end(agent)
    with (run.path / "events.jsonl").open("a") as journal:
        journal.write('{"event": "torn in the mid')  # as a disk might have it
    sockets = (run.path / "private" / "sockets").readlink()
    assert sockets.is_dir()
    done = run.testbed("clean", run.name)
    assert done.returncode == 0, done
    assert "a: fetched" in done.stderr
    finalised(run, "a", "b")
    report = run.report()
    assert (report["verdict"], report["exit_code"]) == ("error", 3)
    assert {n["name"]: (n["verdict"], n["results"]) for n in report["nodes"]} == {
        "a": ("error", "collected"), "b": ("error", "collected"),
    }  # fmt: skip
    told = run.testbed("report", run.name)
    assert told.returncode == 0, told
    assert "etcd was lost" in told.stdout
    run.check_nothing_left()
    assert not sockets.exists()


def wait_for_end(pidfd: int) -> bool:
    """Block until the process has ended, a minute at most."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    ended = bool(poll.poll(60_000))
    os.close(pidfd)
    return ended


def test_etcd_gone_for_good(start: Callable[..., Any], tmp_path: Path) -> None:
    """When the run's etcd dies and cannot be started again: exit 3, every node finalised, all results home."""
    program = tmp_path / "etcd"
    shutil.copy(binary.find(None).path, program)
    run = start(STAYS, "--etcd-binary", str(program))
    run.await_line("waits: get never", 2)
    program.unlink()
    os.kill(run.etcd(), signal.SIGKILL)
    code, out = run.end()
    assert code == 3, (run.lines, out)
    assert run.report()["first_cause"]["machine"] == "etcd"
    assert (run.report()["further"], {c["node"] for c in run.report()["induced"]}) == ([], {"a", "b"})
    assert "it was ended by SIGKILL" in out
    assert {n["name"]: n["results"] for n in run.report()["nodes"]} == {"a": "collected", "b": "collected"}
    finalised(run, "a", "b")
    run.check_nothing_left()


def on_small_disk(size: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A run, and `testbed clean` after it, on a file system of that size, which is gone when they are."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it mounts a small file system")
    (folder / "deployment.yml").write_text(FILLS)
    place = folder / "small"
    place.mkdir()
    script = f"""
        mount -t tmpfs -o size={size} none "$1" || exit 99
        "$2" -m testbed run "$3/deployment.yml" --run-dir "$1"
        code=$?
        "$2" -m testbed clean "$1" || code=98
        ls -d "$1"/private "$1"/workspaces "$1"/etcd/etcd-* 2>/dev/null && code=97
        exit $code"""
    command = ["unshare", "--mount", "sh", "-c", script, "sh", str(place), sys.executable, str(folder)]
    environment = {**os.environ, "TESTBED_STATE_HOME": str(folder / "state")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=150, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    assert "bug" not in done.stderr, done.stderr
    return done


def test_disk_full_at_once(tmp_path: Path) -> None:
    """A run that finds no room ends with exit 3 and says how much it needs."""
    done = on_small_disk("256k", tmp_path)
    assert done.returncode == 3, done
    assert "make room, or choose another one with --run-dir" in done.stderr


def test_disk_filled_by_a_node(tmp_path: Path) -> None:
    """When a step fills the disk it is the first cause; its results are home at the latest after `testbed clean`."""
    done = on_small_disk("200m", tmp_path)
    assert done.returncode == 1, done
    assert "First cause: a c.test.main: failed" in done.stdout
    assert "No space left on device" in done.stdout
    assert "a: fetched" in done.stderr or "a  results are home" in done.stderr


def test_place_that_cannot_be_written(start: Callable[..., Any], tmp_path: Path) -> None:
    """A run directory below a file is refused with exit 3 before anything starts."""
    (tmp_path / "file").write_text("")
    run = start(STAYS, "--run-dir", str(tmp_path / "file" / "run"))
    code, _ = run.end()
    assert code == 3
    assert any("cannot make the run directory" in line for line in run.lines), run.lines
    assert run.processes() == []
    assert not list(run.state.rglob("events.jsonl"))


@pytest.mark.parametrize("kind", [events.BurstStarted, events.StepStarted, events.FlagRaised])
def test_bug_while_nodes_live(
    kind: type[events.Event], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nothing_left: Callable[[Path, str], None]
) -> None:
    """An error that nobody foresaw still has every node finalise and come home, and is told as it is."""
    monkeypatch.setenv("TESTBED_STATE_HOME", str(tmp_path))
    made = prepare(Options(CASES / "interrupted.yml"))
    request = replace(made, timing=Timing(liveness=3))
    directory = directories.create(request.plan.run)
    broken = []
    started: set[str] = set()  # a node that Ansible is still about to start when the error comes has nothing to bring

    def listener(event: events.Event) -> None:
        if isinstance(event, events.StepStarted) and event.node not in started:
            started.add(event.node)
            if kind is events.FlagRaised and len(started) == 2:
                raise_abort(directory)
        due = kind is events.BurstStarted or len(started) == 2
        if isinstance(event, kind) and due and not broken:
            broken.append(event)
            raise RuntimeError("nobody foresaw this")

    with pytest.raises(RuntimeError, match="nobody foresaw"):
        execute(request, directory, listener)
    recorded = list(directory.read_events())
    assert isinstance(recorded[-1], events.RunEnded)
    assert recorded[-1].exit_code == 70
    home = {e.node for e in recorded if isinstance(e, events.ResultsCollected)}
    if kind is not events.BurstStarted:  # that comes before anything is started
        assert home == {"a", "b"}
        for node in home:
            assert "finalised" in (directory.logs(node) / "c.finalise.main.out").read_text()
    assert directory.report_json.exists()
    nothing_left(tmp_path, request.plan.run)


def raise_abort(directory: directories.RunDirectory) -> None:
    """`testbed abort`, from another process."""
    subprocess.run([sys.executable, "-m", "testbed", "abort", directory.run], check=True, timeout=60)
