"""Streams and services: the same for all who read them, early and late, and found when they are there."""

from __future__ import annotations

import pytest

from testbed.coord.scope import BadKey, Scope, WaitTimeout
from testbed.coord.store import MAX_VALUE, TooLarge
from tests.coord.background import Background
from tests.coord.member import Member


def test_a_stream_is_the_same_for_all(members: list[Member]) -> None:
    """All subscribers, early and late, see all messages in one order, each once."""
    early = [Background(lambda m=m: list(m.scope.subscribe("t", 60, 30))) for m in members]
    for member in members:
        member.board.await_waits(1)

    def go(member: Member) -> None:
        for n in range(20):
            member.scope.publish("t", f"{member.scope.member} {n}".encode())

    for call in [Background(go, member) for member in members]:
        call.outcome()
    late = list(members[0].scope.subscribe("t", 60, 30))
    assert [call.outcome() for call in early] == [late] * 3
    for member in members:
        mine = [m for m in late if m.startswith(member.scope.member.encode())]
        assert mine == [f"{member.scope.member} {n}".encode() for n in range(20)]


def test_a_stream_that_ends_early(members: list[Member]) -> None:
    """What has come is given before the time-out; it names how many were wanted."""
    scope = members[0].scope
    scope.publish("t", b"\0\n")
    scope.publish("t/other", b"no")
    seen = []
    with pytest.raises(WaitTimeout, match="2 messages of 't' did not come"):
        for message in scope.subscribe("t", 2, 0.1):
            seen.append(message)
    assert seen == [b"\0\n"]
    assert list(scope.subscribe("t", 0)) == []
    with pytest.raises(TooLarge):
        scope.publish("t", b"x" * (MAX_VALUE + 1))


def test_a_service_is_found_when_it_is_there(members: list[Member], controller: Scope) -> None:
    """Who looks for a service waits for it; the first who offered it comes first, at its own address unless said."""
    a, b, c = members
    looking = Background(c.scope.discover, "web", 30)
    c.board.await_waits(1)
    a.scope.publish_service("web", 80)
    (found,) = looking.outcome()
    assert (found.host, found.port, found.node) == ("192.0.2.0", 80, "n0")
    b.scope.publish_service("web", None, "web.example")
    controller.publish_service("web", 8080, "198.51.100.1")
    assert [(s.host, s.port, s.node) for s in c.scope.discover("web", 30)] == [
        ("192.0.2.0", 80, "n0"), ("web.example", None, "n1"), ("198.51.100.1", 8080, "controller"),
    ]  # fmt: skip
    a.gone("n0", "has ended", excused=False)
    assert [s.node for s in c.scope.discover("web", 30)] == ["n1", "controller"]
    with pytest.raises(BadKey, match="at which host"):
        controller.publish_service("web")
