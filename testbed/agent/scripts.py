"""The scripts of a node: written down, run in sessions of their own with logs of their own, and stopped at the end."""

from __future__ import annotations

import os
import subprocess
import time
from typing import Any, Callable, Collection, Dict, List, Mapping, Optional, Tuple

from testbed.agent import process
from testbed.agent.environment import of_step
from testbed.agent.messages import Outcome
from testbed.agent.plan import PlannedStep
from testbed.agent.workspace import Workspace
from testbed.events import ERROR


class Scripts:
    """All that a node runs; ``ended`` is called on another thread with number and exit code of each main process."""

    def __init__(self, workspace: Workspace, environment: Mapping[str, str], ended: Callable[[int, int], None]) -> None:
        self._workspace, self._environment, self._ended = workspace, dict(environment), ended
        self._mains: List[subprocess.Popen[bytes]] = []

    @property
    def sessions(self) -> List[int]:
        """The sessions of all main processes."""
        return [main.pid for main in self._mains]

    def start(self, step: PlannedStep, name: str, text: str) -> subprocess.Popen[bytes]:
        """Run a script for a step; ``name`` is the script's, and its logs'. Raises OSError, ValueError."""
        main = process.launch(
            self._command(name, text),
            self._workspace.path,
            of_step(self._environment, step),
            os.path.join(self._workspace.logs, name + ".out"),
            os.path.join(self._workspace.logs, name + ".err"),
            self._ended,
        )
        self._mains.append(main)
        return main

    def stop_all(self, marks: Collection[bytes], grace: float) -> List[Dict[str, Any]]:
        """Stop whatever is left of any script, or has ``marks`` in its environment; tells of each process."""
        sessions = {main.pid for main in self._mains}
        born = process.born(os.getpid())  # nothing of the node's is older
        stopped = process.stop(lambda: process.find(sessions, marks, born), grace)
        for main in self._mains:
            main.poll()  # reaps it; one that hangs in the kernel is left to it
        return stopped

    def forget(self, pid: int) -> None:
        """Reap a script that has ended and left nothing; its number may be another's from now on."""
        for main in [m for m in self._mains if m.pid == pid]:
            main.poll()
            self._mains.remove(main)

    def _command(self, name: str, text: str) -> List[str]:
        """Write a script down; the command that runs it."""
        path = self._workspace.own("scripts", name)
        with open(path, "w", encoding="utf-8", errors="surrogateescape", opener=_private) as file:
            file.write(text if text.endswith("\n") else text + "\n")
        return [path] if text.startswith("#!") else ["/bin/sh", "-e", path]


class Services:
    """The services of one node that run and are needed."""

    def __init__(self) -> None:
        self._running: Dict[int, Tuple[PlannedStep, float]] = {}

    @property
    def sessions(self) -> List[int]:
        """The sessions of all that run."""
        return list(self._running)

    def add(self, pid: int, step: PlannedStep) -> None:
        """A service runs now, as leader of the session ``pid``."""
        self._running[pid] = (step, time.monotonic())

    def take(self, pid: int) -> Optional[Tuple[PlannedStep, float]]:
        """Count a service no more: its step, and the seconds that it ran; None where the process is none."""
        found = self._running.pop(pid, None)
        return None if found is None else (found[0], time.monotonic() - found[1])

    def stop(self, grace: float) -> List[str]:
        """Stop all that run, TERM, ``grace`` seconds, KILL; gives the names of those that had to be killed."""
        stopping, self._running = self._running, {}
        if not stopping:
            return []
        stopped = process.stop(lambda: process.find(stopping), grace)
        killed = {p["pid"] for p in stopped if p["signal"] == "SIGKILL"}
        return [step.step for pid, (step, _) in stopping.items() if pid in killed]


def log_name(step: PlannedStep) -> str:
    """What the logs and the script of a step are called."""
    return f"{step.configuration}.{step.target}.{step.step}"


def describe(code: int) -> str:
    """An exit code in words; empty for success."""
    if code == 0:
        return ""
    if code < 0:
        import signal

        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    hint = {126: " (a command that may not be executed)", 127: " (a command that was not found)"}.get(code, "")
    return f"exit code {code}{hint}"


def ending(code: int) -> str:
    """How a process ended that should not have."""
    return describe(code) or "by itself, with exit code 0"


def unstarted(error: Exception) -> Outcome:
    """What becomes of a step whose script could not be started."""
    script = getattr(error, "filename", None)
    if isinstance(error, FileNotFoundError) and script and os.path.exists(script):
        with open(script, encoding="utf-8", errors="replace") as file:
            interpreter = file.readline()[2:].strip()
        return Outcome(ERROR, None, f"it could not be started: there is no interpreter '{interpreter}'")
    return Outcome(ERROR, None, f"it could not be started: {reason_of(error)}")


def reason_of(error: Exception) -> str:
    """What the system or Python says against it."""
    return getattr(error, "strerror", None) or str(error)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o700)
