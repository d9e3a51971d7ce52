"""Whole runs as processes, and what must be true after each of them, whatever happened."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import testbed

CASES = Path(__file__).parent.parent / "cases" / "runs"
LIMIT = 240.0
"""Seconds after which a test gives up on a run."""


def living(state: Path, run: str) -> list[int]:
    """Processes with the run's mark in their environment, or that stand in its state or name it."""
    mark, home = f"TESTBED_RUN={run}".encode(), str(state)
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            environ, folder = (entry / "environ").read_bytes(), str((entry / "cwd").readlink())
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if mark in environ.split(b"\0") or folder.startswith(home) or home.encode() in words:
            found.append(int(entry.name))
    return found


def staying(pids: list[int]) -> list[int]:
    """Those of the processes that do not end by themselves in a moment: an agent says its last word while it lives."""
    ending = {}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            ending[os.pidfd_open(pid)] = pid
    try:
        return [pid for pidfd, pid in ending.items() if not select.select([pidfd], [], [], 20)[0]]
    finally:
        for pidfd in ending:
            os.close(pidfd)


class Run:
    """One ``testbed run`` as a process of its own, with its state in a folder of its own."""

    def __init__(self, state: Path, command: list[str], **environment: str) -> None:
        self.state = state
        self.environment = {
            **os.environ,
            "TESTBED_STATE_HOME": str(state),
            "PYTHONPATH": str(Path(testbed.__file__).parent.parent),
            "NO_COLOR": "1",
            **environment,
        }
        self.lines: list[str] = []
        self._wake = threading.Condition()
        self._ended = False
        self.passwords: set[str] = set()
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            errors="replace", env=self.environment,
        )  # fmt: skip
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stderr or ():
            with self._wake:
                self.lines.append(line.rstrip("\n"))
                self._wake.notify_all()
        with self._wake:
            self._ended = True
            self._wake.notify_all()

    def await_line(self, text: str, count: int = 1) -> None:
        """Block until so many lines on stderr hold ``text``."""

        def there() -> bool:
            return sum(text in line for line in self.lines) >= count

        with self._wake:
            self._wake.wait_for(lambda: self._ended or there(), LIMIT)
            assert there(), "\n".join(self.lines)
        if not self.passwords and self.access.exists():
            self.passwords.add(json.loads(self.access.read_text())["password"])

    @property
    def path(self) -> Path:
        """The run directory."""
        (path,) = (self.state / "runs").iterdir()
        return path

    @property
    def name(self) -> str:
        """The run's id."""
        return self.path.name

    @property
    def access(self) -> Path:
        """Where the run's secrets are while it lasts."""
        return self.path / "private" / "access.json"

    def end(self) -> tuple[int, str]:
        """Wait for its end; exit code and stdout."""
        out = self.process.stdout.read() if self.process.stdout else ""
        code = self.process.wait(LIMIT)
        self._reader.join(LIMIT)
        return code, out

    def report(self) -> dict[str, Any]:
        """The report as data."""
        return json.loads((self.path / "report.json").read_text())

    def events(self) -> list[dict[str, Any]]:
        """All events."""
        return [json.loads(line) for line in (self.path / "events.jsonl").read_text().splitlines()]

    def log(self, node: str, name: str) -> str:
        """What a step wrote; ``name`` is ``configuration.target.step.out`` or ``.err``."""
        return (self.path / "nodes" / node / "logs" / name).read_text(errors="replace")

    def testbed(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Another command over the same state."""
        return subprocess.run(
            [sys.executable, "-m", "testbed", *words], env=self.environment, capture_output=True, text=True,
            errors="replace", timeout=LIMIT, check=False,
        )  # fmt: skip

    def pid_of_agent(self, node: str) -> int:
        """The agent's process id, as it told it itself."""
        return next(e["pid"] for e in self.events() if e["event"] == "node_started" and e["node"] == node)

    def processes(self) -> list[int]:
        """Whatever lives of the run: its steps, its agents, its etcd."""
        runs = [p.name for p in (self.state / "runs").glob("*")]
        return [pid for run in runs or ["-"] for pid in living(self.state, run) if pid != self.process.pid]

    def etcd(self) -> int:
        """The process id of the run's server."""
        home = str(self.path / "etcd")
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if str((entry / "cwd").readlink()).startswith(home):
                        return int(entry.name)
                except OSError:
                    continue
        raise AssertionError("no etcd of the run lives")

    def check_nothing_left(self) -> None:
        """No process, no workspace, no etcd data, no secret is left of the run."""
        assert staying(self.processes()) == []
        assert not (self.path / "private").exists()
        assert not (self.path / "workspaces").exists()
        assert [p for p in (self.path / "etcd").glob("*") if p.name != "etcd.log"] == []
        for file in self.path.rglob("*"):
            if file.is_file() and not file.is_symlink():
                raw = file.read_bytes()
                assert not any(p.encode() in raw for p in self.passwords), file

    def kill(self) -> None:
        """End what a failed test left."""
        for pid in (self.process.pid, *self.processes()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()
        self._reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """Start ``testbed run`` over a case's spec, or with ``timing`` over the same by way of the library."""
    runs: list[Run] = []

    def begin(spec: Path, *options: str, timing: dict[str, float] | None = None, **environment: str) -> Run:
        folder = tmp_path / f"spec-{len(runs)}"
        folder.mkdir()
        shutil.copy(spec, folder / "deployment.yml")
        beside = spec.with_suffix("")
        if beside.is_dir():
            shutil.copytree(beside, folder, dirs_exist_ok=True)
        command = [sys.executable, "-m", "testbed", "run", str(folder / "deployment.yml"), *options]
        if timing is not None:
            script = str(Path(__file__).with_name("timed.py"))
            command = [sys.executable, script, str(folder / "deployment.yml"), json.dumps(timing)]
        runs.append(Run(tmp_path / f"state-{len(runs)}", command, **environment))
        return runs[-1]

    yield begin
    for run in runs:
        run.kill()


@pytest.fixture
def nothing_left() -> Callable[[Path, str], None]:
    """Check that nothing is left of a run with its state in a folder."""

    def check(state: Path, run: str) -> None:
        path = state / "runs" / run
        assert staying(living(state, run)) == []
        assert not (path / "private").exists()
        assert not (path / "workspaces").exists()
        assert [p.name for p in (path / "etcd").glob("*")] == ["etcd.log"]

    return check
