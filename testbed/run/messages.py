"""What a run's loop is told beside what etcd says, and when it must look again without being told."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.run.executor import Burst, BurstOutcome, TaskResult


@dataclass(frozen=True, slots=True)
class Result:
    """A task of a burst has a result."""

    burst: Burst
    task: TaskResult


@dataclass(frozen=True, slots=True)
class BurstDone:
    """A burst is over; ``outcome`` is None where Ansible itself failed, for ``reason``."""

    burst: Burst
    outcome: BurstOutcome | None
    reason: str = ""

    @property
    def message(self) -> str:
        """Why it has told nothing of a node, in one line."""
        return self.outcome.message if self.outcome else self.reason

    @property
    def output(self) -> str:
        """The end of what Ansible printed."""
        return self.outcome.output if self.outcome else ""


@dataclass(frozen=True, slots=True)
class Failed:
    """A burst's thread has failed in a way that nobody foresaw."""

    error: Exception


@dataclass(frozen=True, slots=True)
class EtcdLost:
    """etcd is gone for good, or for longer than a run can wait."""

    reason: str


@dataclass(frozen=True, slots=True)
class Interruption:
    """The operator wants it to end; ``signal`` is the signal's name."""

    signal: str


@dataclass(slots=True)
class Alarms:
    """The moments (monotonic seconds) at which the loop must look again without being told; None: not set."""

    work: float | None = None
    deadline: float | None = None
    overdue: float | None = None
    stall: float | None = None
    doubt: float | None = None

    def next(self, now: float) -> float | None:
        """Seconds until the first of them; None when none is set."""
        moments = (self.work, self.deadline, self.overdue, self.stall, self.doubt)
        due = [moment for moment in moments if moment is not None]
        return max(0.0, min(due) - now) if due else None
