"""The judgement of a run from its state: one verdict, one exit code, one first cause, and what that induced.

Only what is known to be right passes: a node without its last word or without its results is `missing`, whatever
else is known of it. A node that the others went on without, by its policy, does not decide on the run. Nothing is
caught here; a caller turns an exception into the verdict error with exit code 70.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from testbed import events as ev
from testbed.report.state import BAD, COLLECTED, Cause, Flag, NodeState, RunState, StepKey

EXIT_CODES: Mapping[str, int] = {
    ev.PASSED: 0,
    ev.FAILED: 1,
    ev.ABORTED: 1,
    ev.ERROR: 3,
    ev.MISSING: 3,
    ev.TIMEOUT: 4,
    ev.CANCELLED: 130,
}
"""The exit code of each verdict of a run; a bug in testbed is an error with `BUG`."""

BUG = 70


@dataclass(frozen=True, slots=True)
class TargetJudgement:
    """A target of a configuration on a node; ``duration`` is that of all its steps in seconds."""

    target: str
    configuration: str
    verdict: str
    duration: float
    started_at: float | None
    exit_code: int | None
    step: str
    reason: str


@dataclass(frozen=True, slots=True)
class NodeJudgement:
    """A node's verdict, why, and that of each planned target in running order."""

    verdict: str
    reason: str
    targets: tuple[TargetJudgement, ...]


@dataclass(frozen=True, slots=True)
class Judgement:
    """A run's verdict; ``induced`` came of the first cause, ``further`` stands on its own beside it."""

    verdict: str
    exit_code: int
    first_cause: Cause | None
    induced: tuple[Cause, ...]
    further: tuple[Cause, ...]
    nodes: Mapping[str, NodeJudgement]


def judge(state: RunState) -> Judgement:
    """What to say of a run that is over; of one that is not, what it would be if nothing more came."""
    nodes = {node.name: _judge_node(node, state) for node in state.in_order}
    causes = [c for c in _standing(state) if not _excused(c, state)]
    abort = state.flags.get(ev.ABORT)
    if state.exit_code == BUG:
        first: Cause | None = Cause("bug", ev.ERROR, state.events, state.ended_at or 0.0, reason=state.reason)
    elif abort is not None:
        first = _flagged(abort, state, causes)
    else:
        first = causes[0] if causes else _silence(state, nodes)
    rest = [c for c in causes if first is None or not _same(c, first)]
    if first is None:
        return Judgement(ev.PASSED, 0, None, (), tuple(rest), nodes)
    bound = state.events
    if abort is not None:
        bound = abort.order
    elif first.kind == "machine":  # etcd is gone: nobody could be told to abort, yet all are ended
        bound = first.order
    induced: list[Cause] = []
    further: list[Cause] = []
    for cause in rest:
        (induced if cause.order > bound and not _of_its_own(cause, first) else further).append(cause)
    exit_code = BUG if first.kind == "bug" else EXIT_CODES[first.verdict]
    return Judgement(first.verdict, exit_code, first, tuple(induced), tuple(further), nodes)


def _of_its_own(cause: Cause, first: Cause) -> bool:
    """Whether it is a machine's trouble, which comes of no abort: not that of the first cause's own node."""
    if cause.kind == "results" and first.verdict == ev.CANCELLED:
        return False  # who interrupts a run twice does not wait for results
    return cause.kind in ("machine", "lost", "results") and not (first.node and cause.node == first.node)


def _standing(state: RunState) -> list[Cause]:
    """The causes that still hold, none told twice: in stream order, but trouble with collecting hides nothing."""
    told: set[str] = {c.node for c in state.causes if c.kind in ("step", "machine")}
    never = {n.name for n in state.nodes.values() if n.failure is not None and n.started_at is None}
    standing = [
        _sound(c)
        for c in state.causes
        if not (
            (c.kind == "lost" and not state.nodes[c.node].lost)
            or (c.kind == "results" and (c.node in never or state.nodes[c.node].results == COLLECTED))
            or (c.kind == "node" and c.node in told)
        )
    ]
    return sorted(standing, key=lambda c: (c.kind == "results", c.order))


def _excused(cause: Cause, state: RunState) -> bool:
    """Whether the run goes on all the same: what comes of the death of a node that its policy lets die."""
    node = state.nodes.get(cause.node)
    return node is not None and 0 < node.excused <= cause.order


def _sound(cause: Cause) -> Cause:
    """The cause with a verdict that a run can have; what came over the wire may hold anything."""
    return cause if cause.verdict in BAD else replace(cause, verdict=ev.ERROR)


def _flagged(abort: Flag, state: RunState, causes: Sequence[Cause]) -> Cause:
    """The first cause that the abort flag names, completed by what the stream knows of that step."""
    told = abort.cause
    lines = told.get("lines")
    verdict = told.get("verdict")
    cause = Cause(
        kind="step" if told.get("step") else ("stall" if told.get("kind") == "stall" else "abort"),
        verdict=verdict if verdict in BAD else ev.ABORTED,
        order=abort.order,
        at=abort.at,
        node=_text(told, "node"),
        machine=_text(told, "machine"),
        configuration=_text(told, "configuration"),
        target=_text(told, "target"),
        step=_text(told, "step"),
        exit_code=told["exit_code"] if isinstance(told.get("exit_code"), int) else None,
        reason=_text(told, "reason") or abort.why,
        advice=_text(told, "advice"),
        lines=tuple(line for line in lines if isinstance(line, str)) if isinstance(lines, list) else (),
    )
    known = next((c for c in causes if _same(c, cause)), None)
    if known is None:
        node = state.nodes.get(cause.node)
        by = f"{abort.by or 'somebody'}: {cause.reason}" if cause.kind == "abort" and not told else cause.reason
        return replace(cause, machine=cause.machine or (node.machine if node else ""), reason=by)
    if known.kind == "step":
        return replace(known, reason=known.reason or cause.reason)
    return replace(known, verdict=cause.verdict) if verdict in BAD else known


def _same(one: Cause, other: Cause) -> bool:
    """Whether both tell of the same thing: one event, the same step, or trouble with the same node without a step."""
    if (one.kind, one.order) == (other.kind, other.order):
        return True
    mine, theirs = (
        (one.node, one.configuration, one.target, one.step),
        (
            other.node,
            other.configuration,
            other.target,
            other.step,
        ),
    )
    return bool(one.node) and mine == theirs and (bool(one.step) or "abort" in (one.kind, other.kind))


def _silence(state: RunState, nodes: Mapping[str, NodeJudgement]) -> Cause | None:
    """The first cause where nobody named one: the run's own error, a node that did not pass, or that there is none."""
    if state.verdict == ev.ERROR and state.reason:
        return Cause("run", ev.ERROR, state.events, state.ended_at or 0.0, reason=state.reason)
    for name, judged in nodes.items():
        if judged.verdict in BAD and not state.nodes[name].excused:
            machine = state.nodes[name].machine
            return Cause("node", judged.verdict, state.events, node=name, machine=machine, reason=judged.reason)
    if not any(judged.verdict == ev.PASSED for judged in nodes.values()):
        return Cause("node", ev.MISSING, state.events, reason=state.reason or "no node has run")
    if state.verdict and state.verdict != ev.PASSED:
        verdict = state.verdict if state.verdict in BAD else ev.ERROR
        return Cause("node", verdict, state.events, state.ended_at or 0.0, reason=state.reason)
    return None


def _judge_node(node: NodeState, state: RunState) -> NodeJudgement:
    targets = tuple(
        _judge_target(node, StepKey(target, configuration, ""), steps, ev.ABORT in state.flags)
        for target, configuration, steps in _targets(node)
    )
    verdict, reason = _word(node, targets)
    return NodeJudgement(verdict, reason, targets)


def _word(node: NodeState, targets: Sequence[TargetJudgement]) -> tuple[str, str]:
    if not node.verdict and node.failure is not None:
        return ev.ERROR, node.failure.reason
    if not node.verdict:
        return ev.MISSING, node.lost or ("it never ended" if node.started_at is not None else "it never started")
    own = f"; it had ended {node.verdict}" + (f": {node.reason}" if node.reason else "")
    if node.results != COLLECTED:
        return ev.MISSING, f"its results are missing: {node.results_reason or 'nobody fetched them'}{own}"
    if node.verdict not in (ev.PASSED, ev.SKIPPED):
        reason = node.reason or (f"while waiting for {node.interrupted}" if node.interrupted else "")
        return (node.verdict if node.verdict in BAD else ev.ERROR), reason
    for target in targets:
        if target.verdict in BAD:
            return target.verdict, f"{target.configuration}.{target.target}: {target.reason or target.verdict}"
    if node.failure is not None:
        return ev.ERROR, node.failure.reason
    if node.index < 0:
        return ev.MISSING, "its plan is not known, and so neither whether all of it was done"
    return node.verdict, node.reason


def _targets(node: NodeState) -> list[tuple[str, str, tuple[str, ...]]]:
    """The planned targets, and after them what ran without being planned."""
    found: dict[tuple[str, str], tuple[str, ...]] = {(t, c): steps for t, c, steps in node.targets}
    for key in node.steps:
        planned = found.get((key.target, key.configuration), ())
        if key.step not in planned:
            found[key.target, key.configuration] = (*planned, key.step)
    return [(target, configuration, steps) for (target, configuration), steps in found.items()]


def _judge_target(node: NodeState, name: StepKey, steps: Sequence[str], aborted: bool) -> TargetJudgement:
    known = [s for step in steps if (s := node.steps.get(name._replace(step=step))) is not None]
    worst = next((s for s in known if s.verdict not in ("", ev.PASSED, ev.SKIPPED)), None)
    silent = next((s for s in known if not s.verdict), None)
    step, exit_code = "", None
    if worst is not None:
        verdict, reason = worst.verdict if worst.verdict in BAD else ev.ERROR, worst.reason
        step, exit_code = worst.key.step, worst.exit_code
    elif silent is not None:
        verdict, reason, step = ev.MISSING, "it never ended", silent.key.step
    elif not any(s.verdict == ev.PASSED for s in known):
        verdict, reason = ev.SKIPPED, next((s.reason for s in known if s.reason), "") or _absence(node, aborted)
    elif len(known) < len(steps):
        verdict, reason = (ev.ABORTED, "the run was aborted") if aborted else (ev.MISSING, "not all its steps ran")
    else:
        verdict, reason = ev.PASSED, ""
    started = next((s.started_at for s in known if s.started_at is not None), None)
    duration = sum(s.duration for s in known)
    return TargetJudgement(name.target, name.configuration, verdict, duration, started, exit_code, step, reason)


def _absence(node: NodeState, aborted: bool) -> str:
    if not node.verdict:
        return "the node did not come so far"
    return "the run was aborted" if aborted else "the run was finalised before it"


def _text(told: Mapping[str, Any], key: str) -> str:
    value = told.get(key)
    return value if isinstance(value, str) else ""
