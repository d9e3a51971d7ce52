"""Waiting for values: for all, for any, or for a certain one; none is missed, and none that is gone counts."""

from __future__ import annotations

import pytest

from testbed.coord.scope import WaitTimeout, Wanted
from testbed.coord.store import Change
from testbed.coord.values import View
from tests.coord.background import Background
from tests.coord.member import Member


def test_wait_for_all(members: list[Member]) -> None:
    """Waiting for all of several keys ends when the last is set; one that was unset again is missing."""
    a, b, _ = members
    wait = Background(a.scope.wait_for, Wanted(("x", "y", "z")), 30)
    a.board.await_waits(1)
    for key in ("x", "y"):
        b.scope.set(key, key.encode())
    b.scope.unset("x")
    b.scope.set("z", b"z")
    b.scope.set("x", b"again")
    assert wait.outcome() == {"x": b"again", "y": b"y", "z": b"z"}
    assert a.board.told == [{"what": "get", "names": ["x", "y", "z"], "timeout": 30, "mode": "all", "outcome": "met"}]


def test_all_in_vain(members: list[Member]) -> None:
    """At a time-out of a wait for several keys, those are named that are not set; no node is called missing."""
    a, b, _ = members
    b.scope.set("x", b"")
    with pytest.raises(WaitTimeout, match=r"'z' did not come within 0 s; not set: 'y', 'z'\n  n1: "):
        a.scope.wait_for(Wanted(("x", "y", "z")), 0)


def test_wait_for_all_asks_the_store(members: list[Member]) -> None:
    """Keys whose changes come in another order than they were made in count only if they are all set at once."""
    a, b, _ = members
    view = View(a.store, a.scope.keys_of, Wanted(("x", "y")))
    x, y = (a.scope.keys_of.value(key) for key in ("x", "y"))
    b.scope.set("x", b"1")
    (set_x,) = a.store.range(x).entries
    b.scope.unset("x")
    b.scope.set("y", b"2")
    (set_y,) = a.store.range(y).entries
    assert view.look([Change(x, b"1", set_x.revision), Change(y, b"2", set_y.revision)]) is None
    b.scope.set("x", b"3")
    assert view.look([Change(x, None, set_x.revision + 1)]) is None
    assert view.look([Change(x, b"3", set_y.revision + 1)]) == {"x": b"3", "y": b"2"}


def test_wait_for_all_of_many(members: list[Member]) -> None:
    """More keys than one transaction takes can be waited for."""
    a, b, _ = members
    names = tuple(f"k{n}" for n in range(250))
    wait = Background(a.scope.wait_for, Wanted(names), 30)
    a.board.await_waits(1)
    for name in names:
        b.scope.set(name, name.encode())
    assert wait.outcome() == {name: name.encode() for name in names}


def test_wait_for_any(members: list[Member]) -> None:
    """Waiting for any of several keys gives the one that was set first, also of those that were there."""
    a, b, _ = members
    wait = Background(a.scope.wait_for, Wanted(("x", "y"), "any"), 30)
    a.board.await_waits(1)
    b.scope.set("y", b"1")
    assert wait.outcome() == {"y": b"1"}
    b.scope.set("x", b"2")
    assert a.scope.wait_for(Wanted(("x", "y"), "any"), 30) == {"y": b"1"}


def test_wait_for_a_value(members: list[Member]) -> None:
    """Waiting for a value passes over others, and does not miss one that is replaced at once."""
    a, b, _ = members
    b.scope.set("x", b"0")
    wait = Background(a.scope.wait_for, Wanted(("x",), "value", b"2"), 30)
    a.board.await_waits(1)
    for n in range(5):
        b.scope.set("x", b"%d" % n)
    assert wait.outcome() == {"x": b"2"}


def test_unset_is_not_set(members: list[Member]) -> None:
    """A value that is unset is gone for get and keys; to unset what is not set is no error."""
    scope = members[0].scope
    scope.set("x", b"")
    scope.unset("x")
    scope.unset("x")
    assert (scope.get("x"), scope.keys()) == (None, [])


def test_a_look_comes_before_the_time_out(members: list[Member]) -> None:
    """However short its time-out, a wait gives what is there."""
    members[0].scope.set("x", b"1")
    assert members[1].scope.wait("x", 0) == b"1"
    assert members[1].board.told == []
