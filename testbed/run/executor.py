"""What the controller needs of Ansible: one method that does a phase for a batch of nodes."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

OK, CHANGED, SKIPPED, FAILED, UNREACHABLE = "ok", "changed", "skipped", "failed", "unreachable"
"""How a task ended on a node."""

STOPPED = "not done in the time that the run has for it"
"""What is to be said of a node that Ansible was not through with when it was stopped."""

_OF_A_TASK = re.compile(
    r"(?:PLAY|TASK|RUNNING HANDLER) (?:\[|RECAP)"
    r"|(?:ok|changed|skipping|included|fatal|failed): |\.\.\.ignoring|\S+ +: ok=\d"
)
"""How the lines begin by which Ansible shows how far it is, and what became of which node."""

_ERROR = re.compile(r"(?:\[ERROR\]:|ERROR!) (?P<why>.+)")
"""How it begins to say what it cannot go on over; where that stands follows."""


@dataclass(frozen=True, slots=True)
class Burst:
    """One Ansible process to come: its number in the run, its phase, its nodes.

    ``steps`` maps each node of a serve burst to the name of its step's task file.
    """

    number: int
    phase: str
    nodes: tuple[str, ...]
    steps: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskResult:
    """One task on one node; ``output`` is Ansible's own text of it, ``final`` says that it ends the node's part."""

    node: str
    task: str
    action: str
    outcome: str
    ignored: bool
    result: Mapping[str, Any]
    output: str

    @property
    def message(self) -> str:
        """What went wrong in one line, as far as Ansible says."""
        hidden = "no_log hides why" if self.outcome == FAILED and "censored" in self.result else ""
        return _words(self.result) or hidden


def _words(result: Mapping[str, Any]) -> str:
    """What a module's result says of a failure; of a loop's, the first item that failed."""
    items = result.get("results")
    for item in items if isinstance(items, list) else ():
        if isinstance(item, dict) and item.get("failed"):
            return f"item {str(item.get('item'))[:80]}: {_words({**item, 'results': None})}"
    words = [
        " ".join(str(result.get(key) or "").split()) for key in ("msg", "stderr", "module_stderr", "stdout", "reason")
    ]
    first = next((text for text in words if text), "")
    if first != "non-zero return code":
        return first
    last = str(result.get("stderr") or result.get("stdout") or "").strip().rpartition("\n")[2].strip()
    return f"exit code {result.get('rc')}" + (f": {last}" if last else "")


@dataclass(frozen=True, slots=True)
class BurstOutcome:
    """How the process ended: its exit code, whether it was cancelled, the end of its output, where its log lies."""

    exit_code: int
    cancelled: bool
    output: str
    log: str

    @property
    def message(self) -> str:
        """Why the process has told nothing of a node, in one line: what became of others is no reason."""
        if self.cancelled:
            return STOPPED
        said: list[str] = []
        for line in filter(None, map(str.strip, self.output.splitlines())):
            said = [] if _OF_A_TASK.match(line) else [*said, line]
        errors = [found["why"] for line in said if (found := _ERROR.match(line))]
        told = " ".join(errors[-1:] or said[-3:])[:500]
        return told or f"Ansible ended with exit code {self.exit_code} and told nothing of it"


class Executor(Protocol):
    """Does bursts. Called from several threads at once, one burst each.

    ``serves`` is how many serve bursts may be under way at once; 0 where somebody else does the nodes' Ansible steps.
    """

    serves: int

    def run(self, burst: Burst, on_result: Callable[[TaskResult], None], cancelled: threading.Event) -> BurstOutcome:
        """Do the burst, tell every task's result as it comes; raises `LabError` when Ansible itself can't start."""

    def close(self) -> None:
        """Give back what is kept between bursts (connections)."""
