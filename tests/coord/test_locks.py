"""Locks: one holder at a time, in the order of asking, and never one that is dead."""

from __future__ import annotations

import pytest

from testbed.coord.scope import Cancel, Cancelled, Scope, WaitTimeout
from testbed.coord.store import StoreError
from tests.coord.background import Background
from tests.coord.member import Member


def test_one_holder_at_a_time(members: list[Member]) -> None:
    """Under a lock nobody else is, however many ask; tokens grow from holder to holder."""
    inside = 0
    tokens: list[int] = []

    def go(member: Member) -> None:
        nonlocal inside
        for _ in range(3):
            with member.scope.lock("l", 30) as held:
                inside += 1
                assert inside == 1
                tokens.append(held.token)
                inside -= 1

    for call in [Background(go, member) for member in members * 2]:
        call.outcome()
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 18


def test_the_queue_is_fair(members: list[Member]) -> None:
    """A lock goes round in the order of asking; who gives up or is cancelled leaves the queue."""
    a, b, c = members
    order: list[str] = []

    def go(member: Member, cancelled: Cancel | None = None) -> None:
        with member.scope.lock("l", 30, cancelled):
            order.append(member.scope.member)

    cancel = Cancel()
    with a.scope.lock("l"):
        calls = [Background(go, c)]
        c.board.await_waits(1)
        given_up = Background(go, b, cancel)
        b.board.await_waits(1)
        calls.append(Background(go, a))
        a.board.await_waits(1)
        calls.append(Background(go, b))
        b.board.await_waits(2)
        cancel.fire()
        with pytest.raises(Cancelled):
            given_up.outcome()
        with (
            pytest.raises(WaitTimeout, match=r"the lock 'l' did not get free within 0 s; held by: n0"),
            c.scope.lock("l", 0),
        ):
            pass
    for call in calls:
        call.outcome()
    assert order == ["n2", "n0", "n1"]


def test_a_dead_holder_frees_it(members: list[Member]) -> None:
    """When the holder's lease ends, the next has the lock, and the one of before learns at its end that it lost it."""
    a, b, _ = members
    lost = a.scope.lock("l")
    lost.__enter__()
    waiting = Background(b.scope.lock("l", 30).__enter__)
    b.board.await_waits(1)
    a.lease.revoke()
    assert waiting.outcome().token
    with pytest.raises(StoreError, match="the lock 'l' was lost before it was released"):
        lost.__exit__(None, None, None)


def test_a_waiter_whose_lease_ends_queues_up_again(members: list[Member]) -> None:
    """Who waits for a lock while its lease is replaced gets it all the same."""
    a, b, _ = members
    with a.scope.lock("l"):
        waiting = Background(b.scope.lock("l", 30).__enter__)
        b.board.await_waits(1)
        before, b.lease = b.lease, b.store.lease(60)
        before.revoke()
    assert waiting.outcome().token


def test_no_lock_without_a_lease(controller: Scope) -> None:
    """A scope that has no lease refuses to lock, rather than to hold what nobody would ever free."""
    with pytest.raises(StoreError, match="no lease"), controller.lock("l"):
        pass
