"""The conductor hears a node's events and its wishes over separate watches: they have no order among each other."""

from __future__ import annotations

from testbed.run.conductor import RUNNING, WANTING, Conductor, Serve


def serving() -> Conductor:
    """One node whose first step is being done."""
    conductor = Conductor(["n"], "all")
    conductor.started("n")
    conductor.wanted("n", 1, "one")
    assert conductor.work_due() == [Serve({"n": (1, "one")})]
    return conductor


def test_a_wish_heard_before_the_end_of_the_step_before_it_is_kept() -> None:
    """A node that stands before its second step is served, though the end of its first is told after that."""
    conductor = serving()
    conductor.moved_on("n", "one")  # it was answered
    conductor.wanted("n", 2, "two")
    conductor.moved_on("n", "one")  # its own word of it comes late
    assert conductor.work_due() == [Serve({"n": (2, "two")})]


def test_a_wish_replaces_one_that_nobody_served() -> None:
    """A step that ran out of time before it was served gives way to the next one."""
    conductor = Conductor(["n"], "all")
    conductor.started("n")
    conductor.wanted("n", 1, "one")
    conductor.wanted("n", 2, "two")
    conductor.moved_on("n", "one")
    assert conductor.phase("n") == WANTING
    assert conductor.work_due() == [Serve({"n": (2, "two")})]


def test_a_wish_heard_after_the_end_of_its_step_is_over() -> None:
    """Nothing is served to a node that has left the step already, so that it can publish."""
    conductor = Conductor(["n"], "all")
    conductor.started("n")
    conductor.moved_on("n", "one")
    conductor.wanted("n", 1, "one")
    assert conductor.phase("n") == RUNNING
    assert conductor.work_due() == []
