"""Barriers: passed by all who meet there or by none, however they give up, disagree or die meanwhile."""

from __future__ import annotations

import pytest

from testbed.coord.barriers import Mismatch
from testbed.coord.scope import Aborted, Broken, Cancel, Cancelled, Scope, WaitTimeout
from tests.coord.background import Background
from tests.coord.member import Member


def test_a_barrier_is_used_again_and_again(members: list[Member]) -> None:
    """All nodes leave each use of a barrier only after all have come to it, ten times in a row."""
    reached = [0, 0, 0]

    def go(n: int) -> None:
        for turn in range(10):
            reached[n] = turn + 1
            assert members[n].scope.barrier("b", timeout=30) == turn
            assert min(reached) >= turn + 1

    for call in [Background(go, n) for n in range(3)]:
        call.outcome()


def test_a_doubled_arrival_opens_nothing(members: list[Member]) -> None:
    """Two commands of one node at a barrier are two uses of it, and do not stand for another node."""
    a, b, c = members
    first = Background(a.scope.barrier, "b")
    a.board.await_waits(1)
    second = Background(a.scope.barrier, "b")
    a.board.await_waits(2)
    third = Background(b.scope.barrier, "b")
    b.board.await_waits(1)
    assert c.scope.barrier("b", timeout=30) == 0
    assert (first.outcome(), third.outcome(), second.done) == (0, 0, False)
    late = [Background(m.scope.barrier, "b", timeout=30) for m in (b, c)]
    assert [call.outcome() for call in (second, *late)] == [1, 1, 1]
    assert [told["generation"] for told in a.board.told] == [0, 1]


def test_who_gives_up_has_not_arrived(members: list[Member]) -> None:
    """A time-out and a cancelled command withdraw: nobody counts them, and they come back to the same use."""
    a, b, c = members
    with pytest.raises(WaitTimeout, match=r"the barrier 'b' did not open within 0\.1 s; arrived: n0; missing: n1, n2"):
        a.scope.barrier("b", timeout=0.1)
    cancel = Cancel()
    given_up = Background(b.scope.barrier, "b", cancelled=cancel)
    b.board.await_waits(1)
    cancel.fire()
    with pytest.raises(Cancelled):
        given_up.outcome()
    waiting = Background(c.scope.barrier, "b")
    c.board.await_waits(1)
    others = [Background(m.scope.barrier, "b", timeout=30) for m in (a, b)]
    assert [call.outcome() for call in (waiting, *others)] == [0, 0, 0]


def test_time_outs_while_it_opens(members: list[Member]) -> None:
    """However time-outs and arrivals fall together, a use is passed by all or by none."""

    def go(member: Member, turn: int) -> list[int]:
        passed = []
        for attempt in range(200):
            try:
                passed.append(member.scope.barrier("b", timeout=0.002 * (attempt % 5)))
            except WaitTimeout:
                continue
            if passed[-1] >= turn:
                return passed
        while not passed or passed[-1] < turn:  # where the store is slow, no arrival fell together with another
            passed.append(member.scope.barrier("b", timeout=60))
        return passed

    seen = [Background(go, member, 2) for member in members]
    assert [call.outcome() for call in seen] == [[0, 1, 2]] * 3


def test_named_participants(members: list[Member], controller: Scope) -> None:
    """A barrier may be for some nodes, and for the controller, who is no node; others are refused."""
    a, b, c = members
    pair = [Background(m.scope.barrier, "b", ["n0", "n2"], timeout=30) for m in (a, c)]
    assert [call.outcome() for call in pair] == [0, 0]
    with pytest.raises(Mismatch, match="n1 is not one of those who meet at 'b': n0, n2"):
        b.scope.barrier("b", ["n0", "n2"])
    with pytest.raises(Mismatch, match="controller is not one of those"):
        controller.barrier("b")
    waiting = Background(b.scope.barrier, "c", ["n1", "controller"])
    assert controller.barrier("c", ["controller", "n1"], timeout=30) == 0
    assert waiting.outcome() == 0


def test_counted_participants(members: list[Member], controller: Scope) -> None:
    """A counted barrier opens for any so many; who comes later to that use finds it open."""
    a, b, _ = members
    waiting = Background(a.scope.barrier, "b", count=2)
    assert controller.barrier("b", count=2, timeout=30) == 0
    assert waiting.outcome() == 0
    assert b.scope.barrier("b", count=2, timeout=0) == 0
    with pytest.raises(WaitTimeout):
        b.scope.barrier("b", count=2, timeout=0)


def test_participants_who_disagree(members: list[Member]) -> None:
    """Whoever means other participants than the first is told so, and harms nobody."""
    a, b, c = members
    waiting = Background(a.scope.barrier, "b")
    a.board.await_waits(1)
    with pytest.raises(Mismatch, match=r"n0 waits at the barrier 'b' for others than n1 does"):
        b.scope.barrier("b", count=2)
    others = [Background(m.scope.barrier, "b", timeout=30) for m in (b, c)]
    assert [call.outcome() for call in (waiting, *others)] == [0, 0, 0]


def test_a_member_that_takes_part_no_more(members: list[Member]) -> None:
    """A barrier that misses a node that has ended fails at once with its name; excused, it counts without it."""
    a, b, _ = members
    waiting = Background(a.scope.barrier, "b")
    a.board.await_waits(1)
    b.gone("n2", "has ended (passed)", excused=False)
    with pytest.raises(Broken, match=r"the barrier 'b' can never open: n2 has ended \(passed\)"):
        waiting.outcome()
    with pytest.raises(Broken):
        b.scope.barrier("b")
    b.gone("n2", "is dead", excused=True)
    waiting = Background(a.scope.barrier, "b")
    assert b.scope.barrier("b", timeout=30) == 0
    assert waiting.outcome() == 0


def test_excusing_a_member_opens(members: list[Member]) -> None:
    """When a node is excused whom all others wait for, the barrier opens."""
    a, b, c = members
    waiting = [Background(m.scope.barrier, "b") for m in (a, b)]
    for member in (a, b):
        member.board.await_waits(1)
    c.gone("n2", "is dead", excused=True)
    assert [call.outcome() for call in waiting] == [0, 0]


def test_a_barrier_ends_on_abort(members: list[Member]) -> None:
    """The abort flag ends a wait at a barrier."""
    a, b, _ = members
    waiting = Background(a.scope.barrier, "b")
    a.board.await_waits(1)
    b.scope.raise_flag("abort", "enough")
    with pytest.raises(Aborted):
        waiting.outcome()
    assert a.board.told[0]["outcome"] == "aborted"
