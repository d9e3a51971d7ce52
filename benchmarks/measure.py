"""Run a command and measure what it costs: wall time, CPU and memory of all its processes.

Run as a program of its own (``python -m benchmarks.measure RESULT COMMAND...``), so that nothing else is counted. It
adopts what the command's processes leave behind (agents of local workspaces, kept SSH connections), so that these are
measured too, apart from the rest.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

SAMPLE = 0.5
"""Seconds between two looks at memory: a peak that is shorter goes unseen."""

_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True)
class Detached:
    """A process that outlived the one that started it: CPU seconds with its own children, peak RSS in bytes.

    ``memory`` is the peak of its PSS, where that was asked for.
    """

    cpu: float
    rss: int
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command cost: seconds until it ended, CPU seconds of it and its children, peak of their PSS in bytes.

    ``memory`` counts neither etcd, whose own peak is ``etcd_memory``, nor agents that are just being started on this
    machine; ``cpu`` counts both, ``etcd_cpu`` is etcd's part as last seen. ``detached`` is what it left behind.
    """

    code: int
    wall: float
    cpu: float
    memory: int
    etcd_cpu: float
    etcd_memory: int
    detached: tuple[Detached, ...] = field(default=(), repr=False)

    @property
    def all_cpu(self) -> float:
        """CPU seconds, with those of the processes left behind."""
        return self.cpu + sum(d.cpu for d in self.detached)


class Failure(Exception):
    """A measured command failed; what it costs means nothing then."""


def measure(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log: Path | None = None,
    patient: bool = False,
    look: bool = True,
) -> Cost:
    """Run ``command`` to its end, its output going to ``log``; raises `Failure` unless its exit code is 0.

    What it leaves behind is ended with it, but when ``patient`` waited for and looked at too. Looking takes time from
    the command: without ``look`` the cost has no memory and nothing of etcd's own.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "cost.json"
        log = log or Path(folder) / "log"
        with log.open("wb") as output:
            words = [str(result), str(cwd or folder), str(int(patient)), str(int(look))]
            subprocess.run(
                [sys.executable, "-m", "benchmarks.measure", *words, *command],
                cwd=Path(__file__).resolve().parent.parent, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}, check=True,
            )  # fmt: skip
        raw = json.loads(result.read_text())
        cost = Cost(**{**raw, "detached": tuple(Detached(**d) for d in raw["detached"])})
        if cost.code:
            end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise Failure(f"exit code {cost.code} of {' '.join(command)[:200]}:\n{end}")
    return cost


def descendants(pid: int) -> list[int]:
    """``pid`` and all processes below it that live now."""
    found, todo = [], [pid]
    while todo:
        one = todo.pop()
        try:
            threads = os.listdir(f"/proc/{one}/task")
            for thread in threads:
                todo += [int(p) for p in Path(f"/proc/{one}/task/{thread}/children").read_text().split()]
        except OSError:
            continue  # it has ended
        found.append(one)
    return found


def name_of(pid: int) -> str:
    """The process's name as the kernel has it; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def memory_of(pid: int) -> int:
    """Bytes of a process's proportional share (PSS): pages shared by several count in part for each."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass  # it has ended
    return 0


def cpu_of(pid: int) -> float:
    """CPU seconds of a living process, its ended children included."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(int(f) for f in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def _is_agent(pid: int) -> bool:
    """Whether the process starts an agent on this very machine."""
    try:
        return b"testbed-agent" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


class _Sampler(threading.Thread):
    """Looks at the memory of ``pid`` and its children until told to stop."""

    def __init__(self, pid: int, patient: bool) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._patient = patient
        self.left: dict[int, int] = {}
        self._over = threading.Event()
        self.memory = self.etcd_memory = 0
        self.etcd_cpu = 0.0

    def run(self) -> None:
        while not self._over.wait(SAMPLE):
            total = 0
            for pid in descendants(self._pid):
                share = memory_of(pid)
                if name_of(pid) == "etcd":
                    self.etcd_cpu = max(self.etcd_cpu, cpu_of(pid))
                    self.etcd_memory = max(self.etcd_memory, share)
                elif not _is_agent(pid):
                    total += share
            self.memory = max(self.memory, total)
            for pid in descendants(os.getpid())[1:] if self._patient else ():
                self.left[pid] = max(self.left.get(pid, 0), memory_of(pid))

    def stop(self) -> None:
        self._over.set()
        self.join()


def _watch(command: Sequence[str], cwd: str, patient: bool, look: bool) -> Cost:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    began = time.monotonic()
    main = subprocess.Popen(command, cwd=cwd)
    sampler = _Sampler(main.pid, patient)
    if look:
        sampler.start()
    detached, wall, cpu, code = [], 0.0, 0.0, 0
    while True:
        try:
            pid, status, usage = os.wait4(-1, 0)
        except ChildProcessError:
            break
        seconds = usage.ru_utime + usage.ru_stime
        if pid != main.pid:
            detached.append(Detached(seconds, usage.ru_maxrss * 1024, sampler.left.get(pid, 0)))
            continue
        wall, cpu, code = time.monotonic() - began, seconds, os.waitstatus_to_exitcode(status)
        main.returncode = code
        for left in () if patient else descendants(os.getpid())[1:]:
            os.kill(left, signal.SIGTERM)
    if look:
        sampler.stop()
    return Cost(code, wall, cpu, sampler.memory, sampler.etcd_cpu, sampler.etcd_memory, tuple(detached))


if __name__ == "__main__":
    found = _watch(sys.argv[5:], sys.argv[2], sys.argv[3] == "1", sys.argv[4] == "1")
    Path(sys.argv[1]).write_text(json.dumps(asdict(found)))
