"""The fold below the screens: recorded streams in, pictures out, without Textual."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from testbed import events as ev
from testbed.run.directory import RunDirectory
from testbed_tui.flow import critical_path, wait_graph
from testbed_tui.state import Board
from testbed_tui.views import BARRIER, VALUE, WAITING, KeyChange

CASES = sorted((Path(__file__).parent.parent / "cases" / "events").glob("*.jsonl"))


def board_of(*events: ev.Event) -> Board:
    """A board after these events."""
    board = Board()
    for event in events:
        board.add(event)
    return board


def node(name: str, index: int) -> ev.NodePlanned:
    """A node with one target."""
    return ev.NodePlanned(1.0, name, index, f"m{index}", "10.0.0.1", ["c"], [["test", "c", ["main"]]])


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_a_picture_agrees_with_the_report(path: Path) -> None:
    """A screen never says another verdict, or another first cause, than the report."""
    expected = json.loads(path.with_suffix(".expect.json").read_text())
    board = board_of(*(ev.decode(line) for line in path.read_text().splitlines()))
    picture = board.picture()
    cause = picture.first_cause
    assert picture.judgement is not None or not picture.over
    if picture.judgement is not None:
        assert picture.judgement.verdict == expected["verdict"]
        first = expected.get("first_cause") or {}
        assert (cause.node if cause else "") == (first.get("node") or "")


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_pictures_on_the_way_are_the_picture_at_the_end(path: Path) -> None:
    """A screen that attaches late sees what one sees that was there from the start."""
    events = [ev.decode(line) for line in path.read_text().splitlines()]
    watched, late = Board(), board_of(*events)
    for event in events:
        watched.add(event)
        watched.picture()
    assert watched.picture() == late.picture()


def test_what_did_not_change_is_shared() -> None:
    """A picture costs what changed: the views of other nodes are the very same."""
    board = board_of(node("a", 0), node("b", 1))
    before = board.picture()
    board.add(ev.StepStarted(2.0, "a", "c", "test", "main", None))
    after = board.picture()
    assert after.nodes[0] is not before.nodes[0]
    assert after.nodes[1] is before.nodes[1]


def test_who_set_a_value_released_who_waited_for_it() -> None:
    """The setter is found, also when it speaks after the one that it let go."""
    wait = (ev.WaitStarted(2.0, "b", 0, "get", ["k"], None), ev.WaitEnded(3.0, "b", 0, "met", 1.0))
    known = ev.ValueSet(2.9, "a", "k", 3)
    for events in ((*wait, known), (wait[0], known, wait[1])):
        releases = board_of(node("a", 0), node("b", 1), *events).picture().releases
        assert [(r.waiter, r.by, r.label) for r in releases] == [("b", "a", "get k")]


def test_nobody_is_named_who_is_not_known() -> None:
    """Where no event tells who let a wait go, nobody is blamed."""
    events = (ev.WaitStarted(2.0, "b", 0, "get", ["k"], None), ev.WaitEnded(3.0, "b", 0, "met", 1.0))
    assert board_of(node("b", 0), *events).picture().releases[0].by == ""


def test_a_barrier_tells_who_is_missing() -> None:
    """Of each use of a barrier it is known who has come and who has not, from events and from keys."""
    board = board_of(*(node(n, i) for i, n in enumerate("abc")))
    board.add(ev.WaitStarted(2.0, "a", 0, "barrier", ["gate"], None))
    board.change(KeyChange(BARRIER, "gate/00000000/b", b"", 7, 0.0))
    (barrier,) = board.picture().barriers
    assert (barrier.arrived, barrier.missing, barrier.open) == (("a", "b"), ("c",), False)
    board.add(ev.WaitEnded(3.0, "a", 0, "met", 1.0))
    board.add(ev.WaitStarted(4.0, "a", 1, "barrier", ["gate"], None))
    first, second = board.picture().barriers
    assert first.open
    assert (second.generation, second.arrived) == (1, ("a",))


def test_who_came_last_to_a_barrier_let_the_others_go() -> None:
    """The last to come waits for nobody and releases the others, also where their ends are heard before it."""
    board = board_of(*(node(n, i) for i, n in enumerate("abc")))
    board.add(ev.WaitStarted(2.0, "a", 0, "barrier", ["gate"], None))
    board.add(ev.WaitStarted(2.5, "b", 0, "barrier", ["gate"], None))
    board.add(ev.WaitEnded(3.0, "b", 0, "met", 0.5))
    board.add(ev.WaitStarted(2.9, "c", 0, "barrier", ["gate"], None))
    board.add(ev.WaitEnded(2.9, "c", 0, "met", 0.0))
    board.add(ev.WaitEnded(3.0, "a", 0, "met", 1.0))
    assert [(r.waiter, r.by) for r in board.picture().releases] == [("b", "c"), ("a", "c")]


def test_a_barrier_of_few_misses_those_few_only() -> None:
    """Who is to meet is read from what a blocked node wrote; who gives up has not arrived."""
    board = board_of(*(node(n, i) for i, n in enumerate("abc")))
    board.add(ev.WaitStarted(2.0, "a", 0, "barrier", ["g/1"], None))
    told = {"what": "barrier", "names": ["g/1"], "participants": ["a", "c"], "count": None}
    board.change(KeyChange(WAITING, "a/0", json.dumps(told).encode(), 6, 0.0))
    board.change(KeyChange(WAITING, "b/0", b"[1]", 6, 0.0))
    assert board.picture().barriers[0].missing == ("c",)
    board.change(KeyChange(BARRIER, "g%2F1/-/c", b"{}", 7, 0.0))
    board.change(KeyChange(BARRIER, "g%2F1/00000000/c", b"{}", 7, 0.0))
    board.change(KeyChange(BARRIER, "g%2F1/00000000/-/open", b"", 8, 0.0))
    assert [(b.name, b.arrived, b.open) for b in board.picture().barriers] == [("g/1", ("a", "c"), True)]
    board.add(ev.WaitStarted(3.0, "b", 0, "barrier", ["other"], 1.0))
    board.add(ev.WaitEnded(4.0, "b", 0, "timeout", 1.0))
    assert "other" not in {b.name for b in board.picture().barriers}


def test_a_circle_of_waits_is_named() -> None:
    """Nodes that wait for one another in a circle are shown as that circle."""
    events = [node("a", 0), node("b", 1)]
    events += [
        ev.WaitStarted(2.0, "a", 0, "get", ["host_1"], 5.0),
        ev.WaitStarted(3.0, "b", 0, "get", ["host_0"], None),
    ]
    edges = wait_graph(board_of(*events).picture())
    assert {e.waiter: e.cycle for e in edges} == {"a": ("a", "b", "a"), "b": ("b", "a", "b")}


def test_the_critical_path_goes_over_to_who_was_waited_for() -> None:
    """From the last node's end back: its own work after the wait, before that the work of who let it go."""
    events = [
        node("a", 0), node("b", 1),
        ev.StepStarted(1.0, "a", "c", "test", "main", None), ev.StepStarted(1.0, "b", "c", "test", "main", None),
        ev.WaitStarted(2.0, "b", 0, "get", ["k"], None), ev.ValueSet(5.0, "a", "k", 1),
        ev.WaitEnded(5.0, "b", 0, "met", 3.0), ev.StepEnded(6.0, "a", "c", "test", "main", "passed", 0, 5.0, ""),
        ev.StepEnded(9.0, "b", "c", "test", "main", "passed", 0, 8.0, ""),
    ]  # fmt: skip
    picture = board_of(*events).picture()
    path = critical_path(picture.nodes, picture.releases)
    assert [(s.node, s.start, s.end) for s in path] == [("a", 1.0, 5.0), ("b", 5.0, 9.0)]


def test_clocks_that_disagree_do_not_trap_the_critical_path() -> None:
    """Releases that lie crosswise by wrong clocks still give a path that ends."""
    events = [node("a", 0), node("b", 1)]
    for n, other in (("a", "b"), ("b", "a")):
        events += [
            ev.StepStarted(1.0, n, "c", "test", "main", None), ev.WaitStarted(2.0, n, 0, "get", [f"of-{other}"], None),
            ev.ValueSet(9.0, n, f"of-{n}", 1), ev.WaitEnded(5.0, n, 0, "met", 1.0),
        ]  # fmt: skip
    picture = board_of(*events).picture()
    assert critical_path(picture.nodes, picture.releases, 10.0)


def test_values_follow_the_keys() -> None:
    """A value shows its text, its size, how often it changed and who set it; a deleted one is gone."""
    board = board_of(node("a", 0), ev.ValueSet(2.0, "a", "k", 3))
    board.change(KeyChange(VALUE, "k", b"one", 5, 0.0))
    board.change(KeyChange(VALUE, "k", b"\x1b[31mtwo\xff", 6, 3.0))
    value = board.picture().values["k"]
    assert (value.text, value.size, value.changes, value.by) == ("two�", 9, 2, "a")
    board.change(KeyChange(VALUE, "k", None, 7, 4.0))
    assert board.picture().values == {}


def test_hostile_words_are_harmless() -> None:
    """Nothing that a node says reaches the screen with control characters in it."""
    bad = "\x1b]0;owned\x07x\x1b[2J\u202e"
    events = [
        node("a", 0), ev.StepStarted(1.0, "a", bad, "test", "main", None),
        ev.WaitStarted(2.0, "a", 0, bad, [bad], None),
        ev.Notice(2.0, "a", "warning", bad), ev.NodeLost(3.0, "a", bad), ev.NodePlanned(3.0, bad, 1, bad, bad, [], []),
    ]  # fmt: skip
    picture = board_of(*events).picture()
    shown = [picture.nodes[0].doing, *picture.notices, *(w.label for n in picture.nodes for w in n.waits)]
    shown += [text for n in picture.nodes for text in (n.name, n.machine, n.address, n.reason)]
    assert "".join(shown).isprintable()


@pytest.mark.parametrize(
    "name", ["", "a", "a/1", "a/00000000", "a/x/b", "a/²/b", f"a/{'9' * 5000}/b", "a/b/c/d/e"], ids=range(8)
)
def test_keys_that_nobody_of_ours_writes(name: str) -> None:
    """Whatever stands below a run's barriers, and whatever a node says that it waits for, the picture goes on."""
    board = board_of(node("a", 0))
    board.change(KeyChange(BARRIER, name, b"", 7, 0.0))
    board.add(ev.WaitStarted(1.0, "a", 0, "get", [f"host_{name[2:]}"], None))
    board.add(ev.WaitEnded(2.0, "a", 0, "met", 1.0))
    assert [n.name for n in board.picture().nodes] == ["a"]


def test_the_recorded_run_is_told_whole(recorded: RunDirectory) -> None:
    """Of a real run: nodes, targets, progress, releases and the cause that ended the others' waits."""
    picture = board_of(*recorded.read_events()).picture()
    assert [n.name for n in picture.nodes] == ["store", "modality-0", "modality-1", "modality-2", "reader"]
    assert picture.targets == ("init", "deploy", "test", "publish", "finalise")
    assert ("store", "modality-2") in {(r.waiter, r.by) for r in picture.releases}
    assert [n.cells["test"] for n in picture.nodes] == ["aborted", "passed", "passed", "failed", "aborted"]
    assert "modality-2" in {s.node for s in critical_path(picture.nodes, picture.releases)}
