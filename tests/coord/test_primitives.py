"""Barriers, sequences, locks, streams and services over every store."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from testbed.coord.barriers import Mismatch
from testbed.coord.peers import Peer
from testbed.coord.scope import Aborted, BadKey, Broken, Cancel, Cancelled, Scope, WaitTimeout, Wanted
from testbed.coord.store import (
    MAX_VALUE,
    Change,
    Committed,
    Lease,
    Operation,
    Put,
    Span,
    Store,
    StoreError,
    TooLarge,
    Unchanged,
)
from testbed.coord.values import View
from tests.coord.background import Background, Blocked
from tests.coord.conftest import Backend

PEERS = [Peer(f"n{n}", n, "n", "here", f"192.0.2.{n}", ["even" if n % 2 == 0 else "odd"]) for n in range(3)]


class Member:
    """A node with a scope and a lease of its own; ``board`` tells when it blocks."""

    def __init__(self, backend: Backend, name: str) -> None:
        self.store = backend.store()
        self.board = Blocked()
        self.lease: Lease = self.store.lease(60)
        self.scope = Scope(self.store, "r1", name, nodes=PEERS, lease=lambda: self.lease.id, board=self.board)

    def gone(self, node: str, why: str, excused: bool) -> None:
        """Write that a node takes part no more."""
        told = json.dumps({"why": why, "excused": excused})
        self.store.commit([Put(self.scope.keys_of.gone + node, told.encode())])


@pytest.fixture
def members(monkeypatch: pytest.MonkeyPatch, backend: Backend) -> Iterator[list[Member]]:
    """Three nodes; the run's keys lie where the backend's user may write."""
    monkeypatch.setattr("testbed.coord.keys.ROOT", backend.prefix)
    made = [Member(backend, peer.name) for peer in PEERS]
    yield made
    for member in made:
        member.scope.close()


@pytest.fixture
def controller(members: list[Member], backend: Backend) -> Iterator[Scope]:  # noqa: ARG001  in their run
    """A member that is no node."""
    scope = Scope(backend.store(), "r1", "ann@desk", nodes=PEERS)
    yield scope
    scope.close()


# --- values -----------------------------------------------------------------------------------------------------------


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


# --- barriers ---------------------------------------------------------------------------------------------------------


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


# --- sequences --------------------------------------------------------------------------------------------------------


def test_each_number_once(members: list[Member]) -> None:
    """Many who take numbers at once get each number once, without a gap; another sequence has its own."""
    taken = [Background(lambda m=m: [m.scope.next("s") for _ in range(10)]) for m in members * 3]
    numbers = [number for call in taken for number in call.outcome()]
    assert sorted(numbers) == list(range(90))
    assert members[0].scope.next("s/2") == 0


class Counting:
    """A store of which it is known how often it was asked."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.commits: list[Committed] = []
        self.range, self.watch, self.lease, self.close = store.range, store.watch, store.lease, store.close

    def commit(
        self, operations: Sequence[Operation], conditions: Sequence[Unchanged] = (), counted: Span | None = None
    ) -> Committed:
        """Do it, and keep what came of it."""
        committed = self._store.commit(operations, conditions, counted)
        self.commits.append(committed)
        return committed


def test_who_draws_is_in_nobodys_way(members: list[Member], backend: Backend) -> None:
    """However many draw at once, each draw is one transaction: none fails and is tried again; later is higher."""
    store = Counting(backend.store())
    scopes = [Scope(store, "r1", m.scope.by, nodes=PEERS) for m in members]
    taken = [Background(lambda s=s: [s.next("crowd") for _ in range(10)]) for s in scopes * 10]
    drawn = [call.outcome() for call in taken]
    assert sorted(number for numbers in drawn for number in numbers) == list(range(300))
    assert all(numbers == sorted(numbers) for numbers in drawn)
    assert [c.succeeded for c in store.commits] == [True] * 300


# --- locks ------------------------------------------------------------------------------------------------------------


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
            pytest.raises(WaitTimeout, match=r"the lock 'l' did not get free within 0 s; arrived: nobody; missing: n0"),
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


# --- streams and services ---------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.barrier(""),
        lambda s: s.next("a\0b"),
        lambda s: s.lock("x" * 1025).__enter__(),
        lambda s: s.publish("\udcff"),
        lambda s: s.subscribe(""),
        lambda s: s.discover(""),
    ],
)
def test_names_that_cannot_be(members: list[Member], call: Callable[[Scope], object]) -> None:
    """A name that cannot be one is refused, as a key is."""
    with pytest.raises(BadKey):
        call(members[0].scope)


def test_threads_are_given_back(members: list[Member]) -> None:
    """Waits that have ended leave no thread behind, but for the one stream that the next wait uses again."""
    scope = members[0].scope
    with pytest.raises(WaitTimeout):
        scope.wait("never", 0)
    before = threading.active_count()  # the stream's own thread may or may not have begun by now
    for _ in range(10):
        with pytest.raises(WaitTimeout):
            scope.wait("never", 0)
    assert threading.active_count() <= before + 1
