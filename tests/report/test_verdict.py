"""Every recorded stream gets the verdict written beside it, and no piece of one ever passes by accident."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed import events as ev
from testbed.report.state import Fold, fold
from testbed.report.verdict import BUG, EXIT_CODES, Judgement, judge

CASES = Path(__file__).parent.parent / "cases" / "events"
NAMES = sorted(p.stem for p in CASES.glob("*.jsonl"))


def stream(name: str) -> list[ev.Event]:
    """The events of a case."""
    return [ev.decode(line) for line in (CASES / f"{name}.jsonl").read_text("utf-8").splitlines()]


def described(judgement: Judgement) -> dict[str, object]:
    """A judgement in the words of the case files."""
    first = judgement.first_cause
    return {
        "verdict": judgement.verdict,
        "exit_code": judgement.exit_code,
        "first_cause": first
        and {
            "kind": first.kind,
            "verdict": first.verdict,
            "node": first.node,
            "step": ".".join(p for p in (first.configuration, first.target, first.step) if p),
            "exit_code": first.exit_code,
        },
        "nodes": {name: node.verdict for name, node in judgement.nodes.items()},
        "targets": {
            f"{name} {t.configuration}.{t.target}": t.verdict
            for name, node in judgement.nodes.items()
            for t in node.targets
        },
        "induced": [c.where for c in judgement.induced],
        "further": [c.where for c in judgement.further],
    }


def all_right(events: list[ev.Event]) -> bool:
    """Whether a stream, read as naively as possible, says that everything planned passed and came home."""
    excused = {e.node: i for i, e in enumerate(events) if isinstance(e, ev.NodeLost | ev.MachineFailed) and e.excused}
    events = [e for i, e in enumerate(events) if i < excused.get(e.node, len(events))]
    planned = {e.node for e in events if e.node} - excused.keys()  # who speaks was planned, even if that line is torn
    ended = {e.node for e in events if isinstance(e, ev.NodeEnded) and e.verdict == ev.PASSED}
    home = {e.node for e in events if isinstance(e, ev.ResultsCollected)}
    bad = any(isinstance(e, ev.StepEnded) and e.verdict not in (ev.PASSED, ev.SKIPPED) for e in events)
    aborted = any(isinstance(e, ev.FlagRaised) and e.flag == ev.ABORT for e in events)
    return bool(planned) and planned <= ended and planned <= home and not bad and not aborted


@pytest.mark.parametrize("name", NAMES)
def test_a_stream_gets_its_verdict(name: str) -> None:
    """The verdict, exit code, first cause, and nodes and targets are those that the case names."""
    expected = json.loads((CASES / f"{name}.expect.json").read_text("utf-8"))
    found = described(judge(fold(stream(name))))
    targets = found["targets"]
    assert isinstance(targets, dict)
    found["targets"] = {k: targets.get(k) for k in expected.get("targets", {})}
    assert found == {"targets": {}, "further": [], **expected}


@pytest.mark.parametrize("name", NAMES)
def test_every_planned_target_gets_a_verdict(name: str) -> None:
    """No planned target is left out of the report, and each verdict is one of the closed set."""
    state = fold(stream(name))
    for node, judged in judge(state).nodes.items():
        assert {(t.target, t.configuration) for t in judged.targets} >= {n[:2] for n in state.nodes[node].targets}
        assert {t.verdict for t in judged.targets} <= set(ev.VERDICTS)


@given(st.sampled_from(NAMES), st.data())
@settings(deadline=None)
def test_a_piece_of_a_stream_never_passes_by_accident(name: str, data: st.DataObject) -> None:
    """Any prefix, with any events torn out, folds and judges, and passes only if everything in it passed."""
    events = stream(name)
    kept = events[: data.draw(st.integers(0, len(events)))]
    torn = data.draw(st.sets(st.integers(0, len(events)), max_size=5))
    kept = [e for i, e in enumerate(kept) if i not in torn]
    judgement = judge(fold(kept))
    assert judgement.exit_code in {*EXIT_CODES.values(), BUG}
    assert (judgement.verdict == ev.PASSED) == (judgement.exit_code == 0) == (judgement.first_cause is None)
    if judgement.verdict == ev.PASSED:
        assert all_right(kept)
    if judgement.first_cause is not None:
        assert judgement.first_cause not in judgement.induced + judgement.further


def test_a_node_without_a_plan_does_not_pass() -> None:
    """Of a node whose plan is not known nobody can say that all of it was done."""
    events = [e for e in stream("pass") if not isinstance(e, ev.NodePlanned)]
    assert judge(fold(events)).verdict == ev.MISSING


@given(st.permutations(stream("fail")))
@settings(deadline=None, max_examples=50)
def test_disorder_is_survived(events: list[ev.Event]) -> None:
    """Events in any order fold without an exception, and a failure among them is never lost."""
    assert judge(fold(events)).exit_code != 0


@given(
    st.fixed_dictionaries(
        {},
        optional={
            key: st.one_of(st.none(), st.integers(), st.sampled_from(["", "passed", "n-0", "main"]))
            for key in ("node", "machine", "configuration", "target", "step", "verdict", "exit_code", "reason")
        },
    )
)
@settings(deadline=None)
def test_a_forged_cause_cannot_pass(cause: dict[str, object]) -> None:
    """Whatever a node writes into the abort flag's cause, an aborted run is not passed."""
    events = stream("pass")
    events.insert(-1, ev.FlagRaised(1.0, "n-0", ev.ABORT, "n-0", "why", cause))
    assert judge(fold(events)).exit_code != 0


def test_folding_bit_by_bit_is_folding_at_once() -> None:
    """A screen that follows the run and one that attaches late hold the same state."""
    builder = Fold()
    for event in stream("fail"):
        builder.add(event)
    assert builder.state == fold(stream("fail"))


@pytest.mark.parametrize(
    ("name", "node", "expected"),
    [
        ("pass", "n-1", ["planned", "starting", "running", "waiting", "running", "finalising", "ended"]),
        ("fail", "n-1", ["planned", "starting", "running", "waiting", "running", "finalising", "ended"]),
        ("ansible-task-failed", "server", ["planned", "starting", "running", "waiting", "running", "ended"]),
        ("lost-node", "n-1", ["planned", "starting", "running", "lost"]),
        ("lost-and-back", "n-1", ["planned", "starting", "running", "lost", "running", "finalising", "ended"]),
        ("unreachable-machine", "n-1", ["planned", "starting"]),
    ],
)
def test_a_node_goes_through_its_states(name: str, node: str, expected: list[str]) -> None:
    """A node's state follows its events, in the order in which they come."""
    builder, seen = Fold(), []
    for event in stream(name):
        builder.add(event)
        known = builder.state.nodes.get(node)
        if known is not None and seen[-1:] != [known.state]:
            seen.append(known.state)
    assert seen == expected
