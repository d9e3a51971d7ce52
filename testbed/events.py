"""The closed set of events: the contract between everything that runs and everything that shows.

An event is a frozen value with a one-line JSON form. Agents and the controller append events; status, progress,
screen and report are pure folds over the same stream, live from etcd or from ``events.jsonl`` of a run directory.

Every event carries ``at`` (Unix seconds by the writer's clock) and ``node`` (the node it speaks of; empty for the
run as a whole). Order is never taken from ``at``: the store's revision gives the one total order.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Dict, List, Mapping, Optional, Tuple, Type

TARGETS: Tuple[str, ...] = ("clean", "init", "deploy", "test", "publish", "finalise")
"""The lifecycle targets in the order a node meets them."""

SERVICE = "service"
"""In place of a target where a step is the start of a service; the step has the service's name."""

STAGES: Tuple[str, ...] = ("clean", "init", "deploy", SERVICE, "test", "publish", "finalise")
"""All that a node may go through, in order: the targets, and its services once everything is deployed."""

STEPS: Tuple[str, ...] = ("pre", "main", "post")
"""The steps of a target in order."""

PASSED, FAILED, ERROR, TIMEOUT = "passed", "failed", "error", "timeout"
ABORTED, CANCELLED, MISSING, SKIPPED = "aborted", "cancelled", "missing", "skipped"
VERDICTS: Tuple[str, ...] = (PASSED, FAILED, ERROR, TIMEOUT, ABORTED, CANCELLED, MISSING, SKIPPED)
"""Every verdict of a step, a target, a node or a run."""

ABORT, FINALISE = "abort", "finalise"
"""The two flags of a run."""

START, SERVE, COLLECT = "start", "serve", "collect"
"""The phases in which Ansible works."""


class EventError(ValueError):
    """A line that is no event of the closed set."""


@dataclass(frozen=True)
class Event:
    """What all events have: when (Unix seconds, writer's clock) and of which node (empty: the run)."""

    kind: ClassVar[str] = ""
    at: float
    node: str


@dataclass(frozen=True)
class RunStarted(Event):
    """The controller begins; ``timeout`` is the whole run's in seconds."""

    kind: ClassVar[str] = "run_started"
    run: str
    deployment: str
    description: str
    timeout: float
    finalise: str
    version: str


@dataclass(frozen=True)
class NodePlanned(Event):
    """A node's place in the run; ``targets`` lists ``[target, configuration, [step, ...]]`` in running order."""

    kind: ClassVar[str] = "node_planned"
    index: int
    machine: str
    address: str
    configurations: List[str]
    targets: List[List[Any]]


@dataclass(frozen=True)
class BurstStarted(Event):
    """One Ansible process begins to work on ``nodes``; ``phase`` is start, serve or collect."""

    kind: ClassVar[str] = "burst_started"
    burst: int
    phase: str
    nodes: List[str]


@dataclass(frozen=True)
class BurstEnded(Event):
    """That Ansible process is over, after ``duration`` seconds."""

    kind: ClassVar[str] = "burst_ended"
    burst: int
    phase: str
    duration: float


@dataclass(frozen=True)
class MachineFailed(Event):
    """A machine could not do its part; a lab's fault.

    ``cause`` is one of unreachable, login, host_key, no_python, disk_full, read_only, permission, become, etcd,
    ansible, lost. ``excused``: by its policy the others go on without the node.
    """

    kind: ClassVar[str] = "machine_failed"
    machine: str
    cause: str
    reason: str
    tried: str
    advice: str
    excused: bool = False


@dataclass(frozen=True)
class NodeStarted(Event):
    """The node's agent is up and has reached etcd."""

    kind: ClassVar[str] = "node_started"
    host: str
    pid: int
    workspace: str
    python: str


@dataclass(frozen=True)
class StepStarted(Event):
    """A step begins; ``timeout`` in seconds, None where only the run's deadline bounds it."""

    kind: ClassVar[str] = "step_started"
    configuration: str
    target: str
    step: str
    timeout: Optional[float]


@dataclass(frozen=True)
class StepEnded(Event):
    """A step is over; ``exit_code`` is negative for a signal, None where no process ran; ``duration`` in seconds."""

    kind: ClassVar[str] = "step_ended"
    configuration: str
    target: str
    step: str
    verdict: str
    exit_code: Optional[int]
    duration: float
    reason: str


@dataclass(frozen=True)
class AnsibleWanted(Event):
    """The node stands before a step of Ansible tasks and waits for the controller."""

    kind: ClassVar[str] = "ansible_wanted"
    configuration: str
    target: str
    step: str


@dataclass(frozen=True)
class AnsibleTask(Event):
    """One Ansible task of a step has a result: ok, changed, skipped, failed or unreachable."""

    kind: ClassVar[str] = "ansible_task"
    configuration: str
    target: str
    step: str
    task: str
    outcome: str
    message: str


@dataclass(frozen=True)
class WaitStarted(Event):
    """A command of the node blocks: ``what`` names the primitive, ``names`` what it waits for.

    ``out`` and ``err``: how many bytes the running step had written into its logs by then; -1 where nobody knows.
    """

    kind: ClassVar[str] = "wait_started"
    wait: int
    what: str
    names: List[str]
    timeout: Optional[float]
    out: int = -1
    err: int = -1


@dataclass(frozen=True)
class WaitEnded(Event):
    """That wait is over: ``outcome`` is met, timeout, aborted or gone (its command died); see `WaitStarted`."""

    kind: ClassVar[str] = "wait_ended"
    wait: int
    outcome: str
    duration: float
    out: int = -1
    err: int = -1


@dataclass(frozen=True)
class ValueSet(Event):
    """The node has set the users' value ``key``, of ``size`` bytes; what it holds is in the store alone.

    ``out`` and ``err`` as in `WaitStarted`.
    """

    kind: ClassVar[str] = "value_set"
    key: str
    size: int
    out: int = -1
    err: int = -1


@dataclass(frozen=True)
class FlagRaised(Event):
    """The run's abort or finalise flag stands; ``by`` is a node or ``controller``, ``why`` a sentence."""

    kind: ClassVar[str] = "flag_raised"
    flag: str
    by: str
    why: str
    cause: Dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ProcessesStopped(Event):
    """What steps had left in the background and was stopped at the end: ``{pid, command, signal}`` each."""

    kind: ClassVar[str] = "processes_stopped"
    processes: List[Dict[str, Any]]


@dataclass(frozen=True)
class NodeEnded(Event):
    """The agent has done all it will do; its results are packed and wait to be collected."""

    kind: ClassVar[str] = "node_ended"
    verdict: str
    reason: str


@dataclass(frozen=True)
class NodeLost(Event):
    """The agent is gone without a word: its lease ran out; ``excused``: by its policy the others go on without it."""

    kind: ClassVar[str] = "node_lost"
    reason: str
    excused: bool = False


@dataclass(frozen=True)
class ResultsCollected(Event):
    """The node's logs and reports are in the run directory; ``size`` is the archive's in bytes."""

    kind: ClassVar[str] = "results_collected"
    size: int
    files: int


@dataclass(frozen=True)
class ResultsMissing(Event):
    """The node's logs and reports could not be fetched."""

    kind: ClassVar[str] = "results_missing"
    reason: str


@dataclass(frozen=True)
class Notice(Event):
    """Something a reader should know that changes no verdict; ``level`` is info or warning."""

    kind: ClassVar[str] = "notice"
    level: str
    message: str


@dataclass(frozen=True)
class RunEnded(Event):
    """The run is over and judged; ``duration`` in seconds."""

    kind: ClassVar[str] = "run_ended"
    verdict: str
    exit_code: int
    reason: str
    duration: float


_KINDS: Mapping[str, Type[Event]] = {
    c.kind: c
    for c in (
        RunStarted, NodePlanned, BurstStarted, BurstEnded, MachineFailed, NodeStarted, StepStarted, StepEnded,
        AnsibleWanted, AnsibleTask, WaitStarted, WaitEnded, ValueSet, FlagRaised, ProcessesStopped, NodeEnded, NodeLost,
        ResultsCollected, ResultsMissing, Notice, RunEnded,
    )
}  # fmt: skip
_FIELDS: Mapping[str, Dict[str, str]] = {k: {f.name: str(f.type) for f in fields(c)} for k, c in _KINDS.items()}
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError)
"""What it raises to take text for JSON of a known shape, whatever it holds: numbers beyond all bounds, any depth."""

_BOUND = 2.0**53
_LEVELS = 16


def encode(event: Event) -> str:
    """The event's one-line JSON form, without a line end; always valid Unicode."""
    line = json.dumps({"event": event.kind, **asdict(event)}, ensure_ascii=False, separators=(",", ":"))
    return line.encode("utf-8", "replace").decode()  # names of files and processes may hold lone surrogates


def decode(line: str) -> Event:
    """The event that ``line`` holds.

    Unknown members are passed over, so that an older reader can follow a newer writer; raises `EventError` for
    anything that is not an event of the closed set, with members of the declared types.
    """
    try:
        raw = json.loads(line)
        kind = raw["event"]
        types = _FIELDS[kind]
        members = {k: v for k, v in raw.items() if k in types}
        event = _KINDS[kind](**members)
    except UNREADABLE as error:
        raise EventError(f"not an event: {line[:200]!r}") from error
    for name, value in members.items():
        if not _fits(types[name], value):
            raise EventError(f"not an event, {name} is no {types[name]}: {line[:200]!r}")
    return event


def _fits(declared: str, value: Any) -> bool:
    """Whether ``value`` is of the declared type; numbers must also be finite and exact as a float."""
    if declared.startswith("Optional["):
        return value is None or _fits(declared[9:-1], value)
    if declared in ("str", "bool"):
        return isinstance(value, str if declared == "str" else bool)
    if declared in ("int", "float"):
        return isinstance(value, int if declared == "int" else (int, float)) and -_BOUND <= value <= _BOUND
    if declared == "List[str]":
        return isinstance(value, list) and all(isinstance(v, str) for v in value)
    return isinstance(value, list if declared.startswith("List[") else dict) and shallow(value)


def shallow(value: Any, levels: int = _LEVELS) -> bool:
    """Whether lists and objects nest no deeper than that: what is read at any depth can't be written at any depth."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(shallow(v, levels - 1) for v in inner)
