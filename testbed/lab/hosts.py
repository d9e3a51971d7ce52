"""Practice hosts as processes: started in their namespaces, found again, and ended with all that runs on them."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import LabError

PATIENCE = 60.0
"""How long all hosts of a lab together can take to start or to end, in seconds."""

INIT = Path(__file__).with_name("init.sh")
_UNSHARE = "unshare --net --uts --ipc --pid --mount --fork --kill-child=KILL"
# the launcher leaves at once, so no host is a child of whoever started the lab
_LAUNCHER = f"""
state=$1 init=$2; shift 2
exec 3<&0
for host; do
    {_UNSHARE} sh "$init" "${{host%%=*}}" "$state" "${{host#*=}}" <&3 3<&- &
done
"""


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the machine; ``started`` (clock ticks since boot) tells it from a later one of the same number."""

    pid: int
    started: int


class Launch:
    """Hosts between their start and their readiness: they wait for their network cards, then for nothing."""

    def __init__(self, gate: int, reports: int, session: int, names: Sequence[str]) -> None:
        self._gate, self._reports, self._session, self._names = gate, reports, session, tuple(names)
        self._unread = b""
        self._talk: list[str] = []
        self._deadline = time.monotonic() + PATIENCE

    def expect(self, word: str) -> None:
        """Block until every host has said ``word`` (born, ready); raises `LabError` with what was said instead."""
        waiting = set(self._names)
        for line in self._lines():
            said, _, name = line.partition(" ")
            if said == word and name in waiting:
                waiting.remove(name)
            elif said == "failed":
                raise LabError(f"practice host {name} did not start{self._reason()}", _privileges())
            else:
                self._talk.append(line)
            if not waiting:
                return
        raise LabError(f"practice hosts {_few(waiting)} did not start{self._reason()}", _privileges())

    def open_gate(self) -> None:
        """Tell the hosts that their network cards are there."""
        if self._gate >= 0:
            os.close(self._gate)
            self._gate = -1

    def close(self, failed: bool) -> None:
        """Let go of the hosts; end them if the start failed."""
        if failed:
            try:
                os.killpg(self._session, signal.SIGKILL)
            except ProcessLookupError:
                self._talk.append("none of the hosts lives")
        self.open_gate()
        os.close(self._reports)

    def _lines(self) -> Iterator[str]:
        """What the hosts say, line by line, until all of them are silent for good or the time is over."""
        while True:
            line, end, rest = self._unread.partition(b"\n")
            if end:
                self._unread = rest
                yield line.decode(errors="replace")
                continue
            readable, _, _ = select.select([self._reports], [], [], max(0.0, self._deadline - time.monotonic()))
            more = os.read(self._reports, 65536) if readable else b""
            if not more:
                return
            self._unread += more

    def _reason(self) -> str:
        return ": " + "; ".join(self._talk[-3:]) if self._talk else ""


@contextmanager
def launched(state: Path, addresses: Mapping[str, str]) -> Iterator[Launch]:
    """Start a host for each name of ``addresses`` (name to address/prefix); an error inside ends them all."""
    gate_read, gate_write = os.pipe()
    reports_read, reports_write = os.pipe()
    hosts = [f"{name}={address}" for name, address in addresses.items()]
    launcher = subprocess.Popen(
        ["sh", "-c", _LAUNCHER, "sh", str(state), str(INIT), *hosts],
        stdin=gate_read,
        stdout=reports_write,
        stderr=reports_write,
        cwd="/",
        start_new_session=True,
    )
    os.close(gate_read)
    os.close(reports_write)
    launch = Launch(gate_write, reports_read, launcher.pid, list(addresses))
    failed = True
    try:
        launcher.wait(PATIENCE)
        yield launch
        failed = False
    finally:
        launch.close(failed)
        launcher.kill()
        launcher.wait()


def init_of(state: Path, name: str) -> Process | None:
    """The living first process of a host; None if the host is off."""
    try:
        recorded = (state / "hosts" / name / "init").read_text()
        pid = int(recorded.split()[0])
    except (FileNotFoundError, ValueError, IndexError):
        return None
    process = Process(pid, _started(recorded))
    return process if _lives(process) else None


def end(processes: Sequence[Process]) -> None:
    """Kill these processes and return when all are gone; raises `LabError` if one still is there after `PATIENCE`."""
    _await_end(processes, kill=True)


def await_end(processes: Sequence[Process]) -> None:
    """Return when these processes, which are about to end by themselves, are gone; raises as `end`."""
    _await_end(processes, kill=False)


def _await_end(processes: Sequence[Process], kill: bool) -> None:
    waiting: dict[int, Process] = {}
    poll = select.poll()
    deadline = time.monotonic() + PATIENCE
    try:
        for process in processes:
            try:
                descriptor = os.pidfd_open(process.pid)
            except ProcessLookupError:
                continue
            waiting[descriptor] = process
            # opened first, compared then: from here on the number cannot come to mean another process
            if not _lives(process):
                os.close(descriptor)
                del waiting[descriptor]
                continue
            poll.register(descriptor, select.POLLIN)
            if kill:
                with suppress(ProcessLookupError):  # it went by itself just now
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        while waiting:
            gone = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
            if not gone:
                pids = ", ".join(str(process.pid) for process in waiting.values())
                raise LabError(f"processes {pids} are still there after {PATIENCE:.0f} s")
            for descriptor, _ in gone:
                poll.unregister(descriptor)
                os.close(descriptor)
                del waiting[descriptor]
    finally:
        for descriptor in waiting:
            os.close(descriptor)


def parent_of(process: Process) -> Process | None:
    """The `unshare` that waits for a host's first process; None once it is gone."""
    try:
        parent = int(Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[1])
        stat = Path(f"/proc/{parent}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Process(parent, _started(stat)) if "(unshare)" in stat else None


def _started(stat: str) -> int:
    return int(stat.rpartition(")")[2].split()[19])


def _lives(process: Process) -> bool:
    try:
        stat = Path(f"/proc/{process.pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return _started(stat) == process.started and stat.rpartition(")")[2].split()[0] not in "ZX"


def _few(names: set[str]) -> str:
    shown = sorted(names)[:3]
    return ", ".join(shown) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _privileges() -> str:
    return "in a container, namespaces and mounts need `--privileged`; otherwise see the reason given"
