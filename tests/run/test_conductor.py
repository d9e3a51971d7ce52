"""The run's state machine: whatever nodes do in whatever order, each is collected once and the run comes to its end."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from testbed.events import ABORT, FINALISE
from testbed.run.conductor import (
    COLLECTING,
    ENDED,
    HOME,
    LEAVING,
    PUBLISHED,
    RUNNING,
    SERVING,
    STARTING,
    WANTING,
    Collect,
    Conductor,
    Raise,
    Serve,
)

TABLE: list[tuple[str, list[tuple[Any, ...]], str]] = [
    ("a new node is being started", [], STARTING),
    ("it runs when its agent says so", [("started",)], RUNNING),
    ("what is told twice counts once", [("started",), ("published",), ("started",)], PUBLISHED),
    ("one that never started is home", [("never_started",)], HOME),
    ("a wish may come before the word that it started", [("wanted", 1, "s")], WANTING),
    ("a wish that is taken is served", [("started",), ("wanted", 1, "s"), ("work_due",)], SERVING),
    ("after its step it runs on", [("wanted", 1, "s"), ("work_due",), ("moved_on", "s")], RUNNING),
    ("another step's end means nothing to its wish", [("wanted", 2, "t"), ("moved_on", "s")], WANTING),
    ("a step that is over is not wished for", [("started",), ("moved_on", "s"), ("wanted", 1, "s")], RUNNING),
    ("an end while served counts", [("wanted", 1, "s"), ("work_due",), ("ended",)], ENDED),
    ("an ended node wants nothing", [("ended",), ("wanted", 1, "s")], ENDED),
    ("an ended node publishes nothing", [("ended",), ("published",)], ENDED),
    ("an ended node is collected", [("ended",), ("work_due",)], COLLECTING),
    ("its end told again does not collect it again", [("ended",), ("work_due",), ("ended",)], COLLECTING),
    ("results at home let the agent go", [("ended",), ("leaving",)], LEAVING),
    ("an agent that is gone is home", [("ended",), ("leaving",), ("left",)], HOME),
    ("an agent that does not go is looked after", [("ended",), ("leaving",), ("stranded",)], ENDED),
    ("one that is being collected does not leave", [("ended",), ("work_due",), ("leaving",), ("left",)], COLLECTING),
    ("a late word changes nothing at home", [("never_started",), ("ended",), ("started",), ("wanted", 1, "s")], HOME),
]


@pytest.mark.parametrize(("told", "phase"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_one_node(told: list[tuple[Any, ...]], phase: str) -> None:
    """One node's phase after what was told of it."""
    conductor = Conductor(["n"], "n")
    for word, *arguments in told:
        if word == "work_due":
            conductor.work_due()
        else:
            getattr(conductor, word)("n", *arguments)
    assert conductor.phase("n") == phase


def test_wishes_are_batched_and_bounded() -> None:
    """All that wait are served by one burst; no more bursts than the limit at once; none after abort."""
    conductor = Conductor(["a", "b", "c", "d"], "a", serve_limit=2)
    conductor.wanted("a", 1, "s")
    conductor.wanted("b", 1, "s")
    assert conductor.work_due() == [Serve({"a": (1, "s"), "b": (1, "s")})]
    conductor.wanted("c", 1, "s")
    assert conductor.work_due() == [Serve({"c": (1, "s")})]
    conductor.wanted("d", 1, "s")
    assert not conductor.has_work
    assert conductor.work_due() == []
    conductor.served()
    assert conductor.has_work
    conductor.flagged(ABORT)
    assert conductor.work_due() == []


def test_collecting_goes_one_burst_at_a_time() -> None:
    """Nodes that end while others are collected wait for the next burst."""
    conductor = Conductor(["a", "b", "c"], "a")
    conductor.ended("a")
    assert conductor.work_due() == [Collect(("a",))]
    conductor.ended("b")
    conductor.ended("c")
    assert conductor.work_due() == []
    conductor.collected(["a"])
    assert conductor.work_due() == [Collect(("b", "c"))]
    assert not conductor.finished
    conductor.collected(["b", "c"])
    assert conductor.finished


@pytest.mark.parametrize("finalise", ["a", "explicit"])
def test_flag_is_others_to_raise(finalise: str) -> None:
    """Only with `all` does the controller raise the finalise flag."""
    conductor = Conductor(["a"], finalise)
    conductor.started("a")
    conductor.published("a")
    assert conductor.flags_due() == []


def test_all_waits_for_the_last() -> None:
    """With `all` the flag is due when every node has published or is through, and then once."""
    conductor = Conductor(["a", "b", "c"], "all")
    conductor.started("a")
    conductor.published("a")
    assert conductor.flags_due() == []  # b and c are still being started
    conductor.never_started("b")
    conductor.wanted("c", 1, "s")
    assert conductor.flags_due() == []
    conductor.moved_on("c", "s")
    conductor.published("c")
    assert [f.flag for f in conductor.flags_due()] == [FINALISE]
    assert conductor.flags_due() == []


class Nodes(RuleBasedStateMachine):
    """Nodes that start, want, move on, publish, end and die in any order, with an operator who may abort."""

    @initialize(count=st.integers(1, 5), finalise=st.sampled_from(["all", "explicit", "n0"]))
    def begin(self, count: int, finalise: str) -> None:
        """The run begins."""
        self.names = [f"n{i}" for i in range(count)]
        self.conductor = Conductor(self.names, finalise, serve_limit=2)
        self.finalise = finalise
        self.serial = dict.fromkeys(self.names, 0)
        self.collected: list[str] = []
        self.serving: list[tuple[str, ...]] = []
        self.collecting: list[tuple[str, ...]] = []
        self.raised: list[Raise] = []
        self.ended: set[str] = set()
        self.gone_home: set[str] = set()

    def pick(self, index: int) -> str:
        """A node by any number."""
        return self.names[index % len(self.names)]

    @rule(index=st.integers(0, 4), word=st.sampled_from(["started", "published"]))
    def tells(self, index: int, word: str) -> None:
        """A node tells something of itself, maybe late."""
        getattr(self.conductor, word)(self.pick(index))

    @rule(index=st.integers(0, 4))
    def fails_to_start(self, index: int) -> None:
        """A node's machine fails before its agent is up."""
        node = self.pick(index)
        if self.conductor.phase(node) == STARTING:
            self.conductor.never_started(node)
            self.gone_home.add(node)

    @rule(index=st.integers(0, 4))
    def wants(self, index: int) -> None:
        """A node comes to its next Ansible step."""
        node = self.pick(index)
        self.serial[node] += 1
        self.conductor.wanted(node, self.serial[node], f"step-{self.serial[node]}")

    @rule(index=st.integers(0, 4), back=st.integers(0, 2))
    def moves_on(self, index: int, back: int) -> None:
        """A step is over, or its end is told late."""
        node = self.pick(index)
        self.conductor.moved_on(node, f"step-{self.serial[node] - back}")

    @rule(index=st.integers(0, 4))
    def ends(self, index: int) -> None:
        """A node ends, or is lost, or both are told."""
        node = self.pick(index)
        self.conductor.ended(node)
        self.ended.add(node)

    @rule(index=st.integers(0, 4), word=st.sampled_from(["leaving", "left", "stranded"]))
    def leaves(self, index: int, word: str) -> None:
        """Results came by themselves; the agent goes, or does not."""
        node = self.pick(index)
        getattr(self.conductor, word)(node)

    @rule(flag=st.sampled_from([ABORT, FINALISE]))
    def flagged(self, flag: str) -> None:
        """A flag stands."""
        self.conductor.flagged(flag)
        if flag == FINALISE:
            self.raised.append(Raise(FINALISE, "somebody"))

    @rule()
    def decide(self) -> None:
        """The loop asks what to do."""
        due = self.conductor.flags_due()
        if due:
            assert self.finalise == "all"
            assert not self.raised, "raised twice"
            assert not self.conductor.aborted
            busy = self.conductor.in_phase(STARTING, RUNNING, WANTING, SERVING)
            assert not busy
            assert self.conductor.in_phase(PUBLISHED)
            self.raised += due
        promised = self.conductor.has_work
        work = self.conductor.work_due()
        assert bool(work) == promised
        for piece in work:
            if isinstance(piece, Serve):
                assert not self.conductor.aborted, "served after abort"
                assert all(serial == self.serial[node] for node, (serial, _) in piece.wishes.items())
                self.serving.append(tuple(piece.wishes))
            else:
                assert not self.collecting, "two collect bursts at once"
                assert not set(piece.nodes) & set(self.collected), "collected twice"
                assert set(piece.nodes) <= self.ended
                self.collected += piece.nodes
                self.collecting.append(piece.nodes)
        assert len(self.serving) <= 2

    @precondition(lambda self: getattr(self, "serving", None))
    @rule()
    def serve_burst_ends(self) -> None:
        """A serve burst is over."""
        self.serving.pop(0)
        self.conductor.served()

    @precondition(lambda self: getattr(self, "collecting", None))
    @rule()
    def collect_burst_ends(self) -> None:
        """A collect burst is over."""
        nodes = self.collecting.pop()
        self.conductor.collected(nodes)
        assert all(self.conductor.phase(node) == HOME for node in nodes)

    @invariant()
    def home_is_home(self) -> None:
        """A node that is home stays there, and the run is finished exactly when all are."""
        if not hasattr(self, "names"):
            return
        home = set(self.conductor.in_phase(HOME))
        assert self.gone_home <= home
        self.gone_home = home
        assert self.conductor.finished == (home == set(self.names))

    def teardown(self) -> None:
        """Once every node has ended, the run finishes in bounded steps."""
        if not hasattr(self, "names"):
            return
        for node in self.names:
            self.conductor.ended(node)
            self.ended.add(node)
            self.conductor.stranded(node)
        for _ in range(3):
            if self.collecting:
                self.collect_burst_ends()
            self.decide()
        assert self.conductor.finished


Nodes.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


class TestNodes(Nodes.TestCase):
    """No order of happenings collects a node twice, serves after abort, or keeps a run from its end."""
