"""The state of a run as a fold over its events: what status, progress, screen and report all show.

`Fold.add` takes one event in constant time. Any piece may be missing (a late attach, a crash): what is not known
stays empty. The states are to be read only; a fold goes on changing them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from testbed import events as ev

PLANNED, STARTING, RUNNING, WAITING, FINALISING = "planned", "starting", "running", "waiting", "finalising"
ENDED, LOST = "ended", "lost"
COLLECTED, MISSING = "collected", "missing"

BAD = frozenset({ev.FAILED, ev.ERROR, ev.TIMEOUT, ev.ABORTED, ev.CANCELLED, ev.MISSING})
"""The verdicts that are not right: all but passed and skipped."""


class StepKey(NamedTuple):
    """Names one step of a node."""

    target: str
    configuration: str
    step: str

    def __str__(self) -> str:
        return f"{self.configuration}.{self.target}.{self.step}"


@dataclass(slots=True)
class StepState:
    """One step; ``verdict`` is empty while it runs, times are Unix seconds of the node's clock, durations seconds."""

    key: StepKey
    started_at: float | None = None
    timeout: float | None = None
    verdict: str = ""
    exit_code: int | None = None
    duration: float = 0.0
    reason: str = ""
    tasks: int = 0
    task: str = ""


@dataclass(frozen=True, slots=True)
class Wait:
    """What a blocked command of a node waits for, since when (Unix seconds) and for how long at most (seconds)."""

    what: str
    names: tuple[str, ...]
    since: float
    timeout: float | None


@dataclass(frozen=True, slots=True)
class Cause:
    """Something that went wrong; ``order`` is its place in the stream.

    ``kind`` is step, machine, lost, results, node, abort, stall, run or bug; what does not apply is empty. ``lines``
    say more than fits into ``reason``.
    """

    kind: str
    verdict: str
    order: int
    at: float = 0.0
    node: str = ""
    machine: str = ""
    configuration: str = ""
    target: str = ""
    step: str = ""
    exit_code: int | None = None
    reason: str = ""
    advice: str = ""
    lines: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """The node and step, or the machine, as one word; empty for the run as a whole."""
        step = ".".join(part for part in (self.configuration, self.target, self.step) if part)
        return " ".join(part for part in (self.node or self.machine, step) if part)


@dataclass(slots=True)
class NodeState:
    """One node; ``verdict`` and ``reason`` are its own word (`NodeEnded`), empty before that.

    ``excused`` is the place in the stream from which on the others go on without it; 0 where they do not.
    """

    name: str
    index: int = -1
    machine: str = ""
    address: str = ""
    configurations: tuple[str, ...] = ()
    targets: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    host: str = ""
    steps: dict[StepKey, StepState] = field(default_factory=dict)
    current: StepState | None = None
    waits: dict[int, Wait] = field(default_factory=dict)
    wants: StepKey | None = None
    starting: bool = False
    finalising: bool = False
    started_at: float | None = None
    ended_at: float | None = None
    verdict: str = ""
    reason: str = ""
    lost: str = ""
    excused: int = 0
    failure: Cause | None = None
    results: str = ""
    results_reason: str = ""
    interrupted: str = ""
    stopped: list[dict[str, Any]] = field(default_factory=list)

    @property
    def state(self) -> str:
        """Where the node is: planned, starting, running, waiting, finalising, ended or lost."""
        if self.verdict:
            return ENDED
        if self.lost:
            return LOST
        if self.finalising:
            return FINALISING
        if self.waits or self.wants is not None:
            return WAITING
        if self.started_at is not None or self.steps:
            return RUNNING
        return STARTING if self.starting else PLANNED

    @property
    def since(self) -> float | None:
        """When the current state began, as far as known (Unix seconds of the node's clock)."""
        if self.verdict:
            return self.ended_at
        if self.waits:
            return min(w.since for w in self.waits.values())
        return self.current.started_at if self.current is not None else self.started_at


@dataclass(frozen=True, slots=True)
class Flag:
    """The abort or finalise flag: who raised it, why, and for an abort the step that was the cause."""

    by: str
    why: str
    at: float
    order: int
    cause: dict[str, Any]


@dataclass(slots=True)
class Burst:
    """One Ansible process; ``duration`` in seconds, None while it works."""

    phase: str
    nodes: tuple[str, ...]
    started_at: float
    duration: float | None = None


@dataclass(slots=True)
class RunState:
    """A whole run; ``verdict`` is empty until `RunEnded`, ``causes`` are in stream order."""

    run: str = ""
    deployment: str = ""
    description: str = ""
    version: str = ""
    timeout: float | None = None
    started_at: float | None = None
    last_at: float | None = None
    ended_at: float | None = None
    duration: float | None = None
    verdict: str = ""
    exit_code: int | None = None
    reason: str = ""
    nodes: dict[str, NodeState] = field(default_factory=dict)
    flags: dict[str, Flag] = field(default_factory=dict)
    bursts: dict[int, Burst] = field(default_factory=dict)
    causes: list[Cause] = field(default_factory=list)
    notices: list[ev.Notice] = field(default_factory=list)
    events: int = 0

    @property
    def in_order(self) -> list[NodeState]:
        """The nodes in index order; those without a plan last."""
        return sorted(self.nodes.values(), key=lambda n: (n.index < 0, n.index, n.name))


def fold(events: Iterable[ev.Event]) -> RunState:
    """The state after all ``events``."""
    builder = Fold()
    for event in events:
        builder.add(event)
    return builder.state


class Fold:
    """Builds a `RunState`, one event at a time."""

    def __init__(self) -> None:
        self.state = RunState()
        handlers: dict[type[ev.Event], Callable[[Any], None]] = {
            ev.RunStarted: self._run_started,
            ev.NodePlanned: self._node_planned,
            ev.BurstStarted: self._burst_started,
            ev.BurstEnded: self._burst_ended,
            ev.MachineFailed: self._machine_failed,
            ev.NodeStarted: self._node_started,
            ev.StepStarted: self._step_started,
            ev.StepEnded: self._step_ended,
            ev.AnsibleWanted: self._ansible_wanted,
            ev.AnsibleTask: self._ansible_task,
            ev.WaitStarted: self._wait_started,
            ev.WaitEnded: self._wait_ended,
            ev.ValueSet: self._value_set,
            ev.FlagRaised: self._flag_raised,
            ev.ProcessesStopped: self._processes_stopped,
            ev.NodeEnded: self._node_ended,
            ev.NodeLost: self._node_lost,
            ev.ResultsCollected: self._results_collected,
            ev.ResultsMissing: self._results_missing,
            ev.Notice: self.state.notices.append,
            ev.RunEnded: self._run_ended,
        }
        self._handlers = handlers

    def add(self, event: ev.Event) -> None:
        """Take the next event of the stream."""
        self.state.events += 1
        if event.at:
            self.state.last_at = event.at
        self._handlers[type(event)](event)

    def _node(self, name: str) -> NodeState:
        node = self.state.nodes.get(name)
        if node is None:
            node = self.state.nodes[name] = NodeState(name)
        return node

    def _speaking(self, event: ev.Event) -> NodeState:
        """The node that says ``event`` itself; whoever speaks is not lost."""
        node = self._node(event.node)
        node.lost = ""
        return node

    def _step(self, event: ev.StepStarted | ev.StepEnded | ev.AnsibleTask) -> StepState:
        node = self._node(event.node)
        key = StepKey(event.target, event.configuration, event.step)
        step = node.steps.get(key)
        if step is None:
            step = node.steps[key] = StepState(key)
        return step

    def _cause(self, kind: str, verdict: str, event: ev.Event, **more: Any) -> Cause:
        cause = Cause(kind, verdict, self.state.events, event.at, event.node, **more)
        self.state.causes.append(cause)
        return cause

    def _run_started(self, event: ev.RunStarted) -> None:
        state = self.state
        state.run, state.deployment, state.description = event.run, event.deployment, event.description
        state.timeout, state.started_at, state.version = event.timeout, event.at, event.version

    def _node_planned(self, event: ev.NodePlanned) -> None:
        node = self._node(event.node)
        node.index, node.machine, node.address = event.index, event.machine, event.address
        node.configurations = tuple(event.configurations)
        node.targets = tuple(_planned(event.targets))

    def _burst_started(self, event: ev.BurstStarted) -> None:
        self.state.bursts[event.burst] = Burst(event.phase, tuple(event.nodes), event.at)
        if event.phase == ev.START:
            for name in event.nodes:
                self._node(name).starting = True

    def _burst_ended(self, event: ev.BurstEnded) -> None:
        burst = self.state.bursts.setdefault(event.burst, Burst(event.phase, (), event.at - event.duration))
        burst.duration = event.duration

    def _machine_failed(self, event: ev.MachineFailed) -> None:
        tried = f" (tried: {event.tried})" if event.tried else ""
        machine = "" if event.machine == event.cause else f"machine {event.machine}, "
        reason = f"{machine}{event.cause}: {event.reason}{tried}"
        cause = self._cause("machine", ev.ERROR, event, machine=event.machine, reason=reason, advice=event.advice)
        if event.node:
            node = self._node(event.node)
            node.failure = node.failure or cause
            self._excuse(node, event.excused)

    def _node_started(self, event: ev.NodeStarted) -> None:
        node = self._speaking(event)
        node.started_at, node.host = event.at, event.host

    def _step_started(self, event: ev.StepStarted) -> None:
        node, step = self._speaking(event), self._step(event)
        step.started_at, step.timeout = event.at, event.timeout
        node.current = step
        node.finalising = node.finalising or event.target == "finalise"

    def _step_ended(self, event: ev.StepEnded) -> None:
        node, step = self._speaking(event), self._step(event)
        step.verdict, step.exit_code = event.verdict, event.exit_code
        step.duration, step.reason = event.duration, event.reason
        node.wants = None
        if node.current is step:
            node.current = None
        if event.verdict not in (ev.PASSED, ev.SKIPPED):
            self._cause(
                "step",
                event.verdict,
                event,
                machine=node.machine,
                configuration=event.configuration,
                target=event.target,
                step=event.step,
                exit_code=event.exit_code,
                reason=event.reason,
            )

    def _ansible_wanted(self, event: ev.AnsibleWanted) -> None:
        self._speaking(event).wants = StepKey(event.target, event.configuration, event.step)

    def _ansible_task(self, event: ev.AnsibleTask) -> None:
        step = self._step(event)
        step.tasks += 1
        step.task = event.task

    def _wait_started(self, event: ev.WaitStarted) -> None:
        wait = Wait(event.what, tuple(event.names), event.at, event.timeout)
        self._speaking(event).waits[event.wait] = wait

    def _wait_ended(self, event: ev.WaitEnded) -> None:
        node = self._speaking(event)
        wait = node.waits.pop(event.wait, None)
        if event.outcome == "aborted" and wait is not None and not node.interrupted:
            node.interrupted = " ".join((wait.what, *wait.names))

    def _value_set(self, event: ev.ValueSet) -> None:
        self._speaking(event)

    def _flag_raised(self, event: ev.FlagRaised) -> None:
        flag = Flag(event.by, event.why, event.at, self.state.events, event.cause)
        self.state.flags.setdefault(event.flag, flag)

    def _processes_stopped(self, event: ev.ProcessesStopped) -> None:
        self._speaking(event).stopped.extend(event.processes)

    def _node_ended(self, event: ev.NodeEnded) -> None:
        node = self._speaking(event)
        node.ended_at, node.verdict, node.reason = event.at, event.verdict or ev.ERROR, event.reason
        node.wants = None
        node.waits.clear()
        if event.verdict not in (ev.PASSED, ev.SKIPPED):
            self._cause("node", node.verdict, event, machine=node.machine, reason=event.reason)

    def _node_lost(self, event: ev.NodeLost) -> None:
        node = self._node(event.node)
        if not node.verdict:
            node.lost = event.reason or "its agent is gone without a word"
            self._cause("lost", ev.MISSING, event, machine=node.machine, reason=node.lost)
            self._excuse(node, event.excused)

    def _excuse(self, node: NodeState, excused: bool) -> None:
        if excused and not node.excused:
            node.excused = self.state.events

    def _results_collected(self, event: ev.ResultsCollected) -> None:
        node = self._node(event.node)
        node.results, node.results_reason = COLLECTED, ""

    def _results_missing(self, event: ev.ResultsMissing) -> None:
        node = self._node(event.node)
        if node.results != COLLECTED:
            node.results, node.results_reason = MISSING, event.reason
            self._cause("results", ev.MISSING, event, machine=node.machine, reason=event.reason)

    def _run_ended(self, event: ev.RunEnded) -> None:
        state = self.state
        state.verdict, state.exit_code, state.reason = event.verdict or ev.ERROR, event.exit_code, event.reason
        state.ended_at, state.duration = event.at, event.duration


def _planned(targets: Iterable[Any]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """The entries that have the right shape; the stream may hold anything."""
    for entry in targets:
        match entry:
            case [str(target), str(configuration), [*steps]] if all(isinstance(s, str) for s in steps):
                yield target, configuration, tuple(steps)
