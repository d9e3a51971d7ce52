"""What a screen is given to show: frozen pictures of a run, and what keys tell beside the events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from testbed.report import state as st
from testbed.report.harmless import harmless_line
from testbed.report.state import Cause, Flag, StepKey
from testbed.report.verdict import Judgement

VALUE, BARRIER, WAITING = "value", "barrier", "waiting"
"""The places of a run's scope that a screen reads beside the events."""


@dataclass(frozen=True, slots=True)
class KeyChange:
    """A key of the run's scope was set, or deleted (None); ``name`` is what follows the place's prefix.

    ``at`` is when this machine heard of it (Unix seconds), or 0.0 where it stood there before.
    """

    place: str
    name: str
    value: bytes | None
    revision: int
    at: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A stretch of a node's lane, Unix seconds; ``kind`` is step or wait, ``verdict`` empty while it lasts."""

    kind: str
    label: str
    start: float
    end: float | None = None
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class Release:
    """A wait of ``waiter`` ended well at ``at``; ``by`` is the node that let it go, empty where nobody can tell."""

    waiter: str
    by: str
    label: str
    at: float
    since: float


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a blocked call waits for, and ``who`` could bring it; times as in the events."""

    what: str
    names: tuple[str, ...]
    since: float
    timeout: float | None
    who: tuple[str, ...]

    @property
    def label(self) -> str:
        """The wait in a few words."""
        return wait_label(self.what, self.names)


@dataclass(frozen=True, slots=True)
class StepView:
    """A step as it is now; see `testbed.report.state.StepState`."""

    key: StepKey
    verdict: str
    started_at: float | None
    duration: float
    timeout: float | None
    exit_code: int | None
    reason: str
    task: str


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as a row: ``word`` is its state or verdict, ``cells`` a word for each target it has.

    ``began`` and ``ended`` are those of all its bars; None before there was one, and while one is open.
    """

    name: str
    index: int = -1
    machine: str = ""
    address: str = ""
    host: str = ""
    configurations: tuple[str, ...] = ()
    word: str = st.PLANNED
    trouble: bool = False
    doing: str = ""
    since: float | None = None
    cells: Mapping[str, str] = field(default_factory=dict)
    waits: tuple[Waiting, ...] = ()
    steps: tuple[StepView, ...] = ()
    bars: tuple[Bar, ...] = ()
    began: float | None = None
    ended: float | None = None
    results: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Value:
    """A users' value as it stands: the first characters made harmless, its size in bytes, who set it if known."""

    text: str
    size: int
    revision: int
    changes: int
    at: float
    by: str


@dataclass(frozen=True, slots=True)
class Barrier:
    """One use of a barrier: who has arrived and who is missing."""

    name: str
    generation: int
    arrived: tuple[str, ...]
    missing: tuple[str, ...]
    open: bool


@dataclass(frozen=True, slots=True)
class Picture:
    """A run at one moment; nothing in it ever changes."""

    run: str = ""
    deployment: str = ""
    description: str = ""
    verdict: str = ""
    exit_code: int | None = None
    reason: str = ""
    started_at: float | None = None
    last_at: float | None = None
    ended_at: float | None = None
    duration: float | None = None
    timeout: float | None = None
    nodes: tuple[NodeView, ...] = ()
    targets: tuple[str, ...] = ()
    steps_done: int = 0
    steps_planned: int = 0
    flags: Mapping[str, Flag] = field(default_factory=dict)
    judgement: Judgement | None = None
    values: Mapping[str, Value] = field(default_factory=dict)
    barriers: tuple[Barrier, ...] = ()
    releases: tuple[Release, ...] = ()
    bursts: tuple[Bar, ...] = ()
    notices: tuple[str, ...] = ()
    machine_errors: Mapping[str, str] = field(default_factory=dict)
    events: int = 0

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return bool(self.verdict)

    @property
    def first_cause(self) -> Cause | None:
        """What went wrong first, None where nothing did so far."""
        return self.judgement.first_cause if self.judgement is not None else None

    @property
    def cause_reason(self) -> str:
        """Why that went wrong; once the run is over, with the last words that its step left."""
        cause = self.first_cause
        if cause is None:
            return ""
        return self.reason if self.reason.startswith(cause.reason) else cause.reason

    def node(self, name: str) -> NodeView | None:
        """The node of that name."""
        return next((n for n in self.nodes if n.name == name), None)


def wait_label(what: str, names: Sequence[str]) -> str:
    """What a call waits for, in a few words."""
    return harmless_line(" ".join(dict.fromkeys((what, *names))), 80)
