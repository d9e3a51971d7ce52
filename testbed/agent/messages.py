"""What a node's lifecycle is told, and what it makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Union

from testbed.coord.store import Denied, StoreError


@dataclass(frozen=True)
class Exited:
    """A step's main process has ended."""

    pid: int
    code: int


@dataclass(frozen=True)
class Flagged:
    """A flag of the run stands."""

    name: str
    by: str
    why: str


@dataclass(frozen=True)
class Served:
    """The controller has done the Ansible step with that number."""

    serial: int
    verdict: str
    reason: str


@dataclass(frozen=True)
class Told:
    """Somebody on the machine wants the agent to end; ``signal`` is the signal's name."""

    signal: str


@dataclass(frozen=True)
class Lost:
    """etcd is gone for longer than the plan bears, or lets the node in no more."""

    error: StoreError

    @property
    def reason(self) -> str:
        """In a sentence, what that means to the node."""
        if isinstance(self.error, Denied):
            return f"the run has shut this node out: it took it for dead, or is over ({self.error})"
        return f"etcd was lost: {self.error}"


@dataclass(frozen=True)
class Home:
    """The controller has the node's results."""


@dataclass(frozen=True)
class Noted:
    """The value that a service's readiness waits for is set."""

    key: str


Message = Union[Exited, Flagged, Served, Told, Lost, Home, Noted]


@dataclass(frozen=True)
class Outcome:
    """How a step ended; ``own``: by itself or its own time limit, not because the node was to stop."""

    verdict: str
    exit_code: Optional[int]
    reason: str
    own: bool = True


@dataclass(frozen=True)
class Limit:
    """The monotonic time at which a step is stopped, and why then; an empty reason stands for the run's deadline."""

    at: float
    reason: str = ""
