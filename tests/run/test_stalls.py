"""When nodes are asked whether they stand, and when their answers make a standstill; and how a stall is told."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from testbed.run.stall import Facts, Member, Wait
from testbed.run.stalls import LONGEST_PAUSE, Stalls
from testbed.run.waitgraph import MOST, graph, headline
from testbed.run.watching import Answered, Left, Waits

GET = {"what": "get", "names": ["x"], "mode": "all"}


class Lab:
    """Two nodes and a clock that the test turns."""

    def __init__(self, grace: float | None = 4.0) -> None:
        self.asked: list[str] = []
        self.now = 100.0
        self.stalls = Stalls(["a", "b"], grace, self._ask)

    def _ask(self, nodes: Sequence[str], question: str) -> None:
        assert sorted(nodes) == ["a", "b"]
        self.asked.append(question)

    def wait(self, node: str, number: int = 0) -> None:
        """A node begins to wait."""
        assert not self.stalls.hear(Waits(node, number, GET), self.now)

    def ring(self, busy: int = 0, living: int = 2) -> bool:
        """Turn the clock on to the alarm and let it ring; whether there is one."""
        alarm = self.stalls.consider(busy, living, self.now)
        if alarm is None:
            return False
        assert alarm >= self.now
        self.now = alarm
        self.stalls.ring(self.now)
        return True

    def answer(self, node: str, ran: str = "r", able: Sequence[str] = (), numbers: Sequence[int] = (0,)) -> bool:
        """A node answers the last question."""
        told: dict[str, Any] = {"asked": self.asked[-1], "able": list(able), "ran": ran, "open": list(numbers)}
        return self.stalls.hear(Answered(node, told), self.now)


@pytest.fixture
def lab() -> Lab:
    """Both nodes wait."""
    lab = Lab()
    lab.wait("a")
    lab.wait("b")
    return lab


@pytest.fixture
def once(lab: Lab) -> Lab:
    """Both nodes have stood when they were first asked, and are asked again."""
    assert lab.ring()
    assert lab.now == 102.0
    assert [lab.answer("a"), lab.answer("b")] == [False, False]
    assert lab.ring()
    return lab


def test_two_rounds_of_standing_nodes_are_a_standstill(once: Lab) -> None:
    """Nodes that wait are asked at half of the grace and at its end; if nothing has run between, they stand still."""
    assert once.now == 104.0
    assert len(set(once.asked)) == 2
    assert [once.answer("b"), once.answer("a")] == [False, True]


def test_whoever_runs_between_the_answers_stands_not(once: Lab) -> None:
    """If a process has run between the two answers, both must come anew."""
    assert [once.answer("a"), once.answer("b", ran="other")] == [False, False]
    once.ring()
    assert [once.answer("a"), once.answer("b", ran="other")] == [False, True]


def test_happenings_begin_the_grace_anew(lab: Lab) -> None:
    """Whatever happens in the run takes back what was answered before, and the grace begins from there."""
    lab.ring()
    lab.answer("a")
    lab.answer("b")
    lab.now += 1
    lab.stalls.hear(Left("somebody"), lab.now)
    assert lab.ring()
    assert (lab.now, len(lab.asked)) == (104.0, 1)  # too early: it has moved at 103
    assert lab.ring()
    assert (lab.now, len(lab.asked)) == (105.0, 2)
    assert [lab.answer("a"), lab.answer("b")] == [False, False]
    assert lab.ring()
    assert (lab.now, lab.answer("a"), lab.answer("b")) == (107.0, False, True)


def test_nobody_is_asked_while_somebody_is_at_work() -> None:
    """As long as a node has no wait open, starts, or has Ansible work for it, no question is asked."""
    lab = Lab()
    lab.wait("a")
    assert not lab.ring()
    lab.wait("b")
    assert not lab.ring(busy=1, living=1)
    lab.stalls.hear(Waits("a", 0, None), lab.now)
    assert not lab.ring()
    assert lab.asked == []


def test_a_node_that_could_go_on_is_asked_ever_more_rarely(lab: Lab) -> None:
    """A node that says it can go on is asked again after pauses that grow, but do not end."""
    times = []
    for _ in range(9):
        assert lab.ring()
        times.append(lab.now)
        assert [lab.answer("a"), lab.answer("b", able=["sleep 300"])] == [False, False]
    pauses = [after - before for before, after in pairwise(times)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE


def test_an_answer_that_knows_of_other_waits_counts_not(lab: Lab) -> None:
    """A node that answers with other waits than it was seen to have is on its way."""
    lab.ring()
    assert [lab.answer("a", numbers=[1]), lab.answer("b")] == [False, False]
    lab.ring()
    assert [lab.answer("a"), lab.answer("b")] == [False, False]  # the first round that counts


def test_an_answer_that_never_comes_is_asked_for_again(lab: Lab) -> None:
    """An agent that does not answer does not end the asking."""
    assert [lab.ring(), lab.answer("a"), lab.ring(), lab.answer("a")] == [True, False, True, False]
    assert len(lab.asked) == 2


def test_the_dead_are_not_waited_for() -> None:
    """Who is gone neither has to wait nor to answer."""
    lab = Lab()
    lab.wait("a")
    lab.stalls.gone("b", "is lost")
    lab.wait("b")
    assert [m.name for m in lab.stalls.members if m.waits] == ["a"]
    assert next(m for m in lab.stalls.members if m.name == "b").gone == "is lost"
    assert lab.stalls.consider(0, 1, lab.now) is not None


def test_stalls_that_are_not_looked_for() -> None:
    """`stall: off` asks nobody anything."""
    lab = Lab(None)
    lab.wait("a")
    lab.wait("b")
    assert not lab.ring()


def member(name: str, what: str = "", names: tuple[str, ...] = (), gone: str = "", **details: Any) -> Member:
    """A node with a wait that began at 10."""
    return Member(name, (Wait(what, names, 10.0, details),) if what else (), bool(what), gone)


def test_the_graph_names_what_each_waits_for() -> None:
    """Each kind of wait is told with its names, since when, and who is missing or holds it up."""
    members = [
        member("a", "get", ("x", "y"), mode="all"),
        member("b", "get", ("color",), mode="value", value="red"),
        member("c", "barrier", ("start",), participants=["a", "c"], generation=2),
        member("d", "barrier", ("start",), participants=["a", "c"], generation=2),
        member("e", "lock", ("disk",)),
        member("f", "finalise", ("finalise",)),
        member("g", "barrier", ("any",), count=3),
        member("h", gone="has ended passed"),
    ]
    facts = Facts(
        "h", values={"x": b"", "color": b"blue"}, arrived={("start", 2): frozenset("cd")}, queues={"disk": ["a", "e"]}
    )
    assert graph(members, facts, None, 17.4) == [
        "a waits since 7 s for the value 'y'",
        "b waits since 7 s for the value 'color' to be 'red' (it is 'blue')",
        "c and d wait since 7 s for the barrier 'start'; missing: a (waits itself)",
        "e waits since 7 s for the lock 'disk'; it is held by a (waits itself)",
        "g waits since 7 s for the barrier 'any'; 0 of 3 are there",
        "f waits since 7 s for the end of the run, which comes from h (has ended passed)",
    ]
    assert headline(members) == "the run is stalled: all 7 nodes wait, and none of them can go on without another"


def test_the_graph_of_a_thousand_nodes_can_be_read() -> None:
    """Nodes that wait for the same are told together; of very many different waits the first are told."""
    same = [member(f"n-{i}", "barrier", ("all",)) for i in range(1000)]
    (line,) = graph(same, Facts("all"), None, 10.0)
    assert line.startswith("n-0, n-1, n-2, n-3 and 996 more wait since 0 s for the barrier 'all'; missing: n-0 (")
    many = [member(f"n-{i}", "get", (f"k{i}",), mode="all") for i in range(1000)]
    lines = graph(many, Facts("all"), None, 10.0)
    assert (len(lines), lines[-1]) == (MOST + 1, f"... and {1000 - MOST} more")
