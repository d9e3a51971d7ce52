"""Stalls are found, and only stalls: the detection against a model that plays random runs, step by step."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.run.stall import Facts, Member, Wait, stalled
from tests.run.stall_world import Node, Operation, World

NAMES = ("a", "b", "c", "d")
KEYS = st.sampled_from(["x", "y", "z"])
VALUES = st.sampled_from(["1", "2"])

get = st.one_of(
    st.tuples(st.just("get"), st.just("all"), st.lists(KEYS, min_size=1, max_size=3), st.none()),
    st.tuples(st.just("get"), st.just("any"), st.lists(KEYS, min_size=1, max_size=3), st.none()),
    st.tuples(st.just("get"), st.just("value"), st.lists(KEYS, min_size=1, max_size=1), VALUES),
)
operation = st.one_of(
    get,
    st.tuples(st.just("either"), get, get),
    st.tuples(st.just("set"), KEYS, VALUES),
    st.tuples(st.just("set"), KEYS, VALUES),
    st.tuples(st.just("unset"), KEYS),
    st.tuples(st.just("barrier"), st.just("all of us"), st.none()),
    st.tuples(st.just("barrier"), st.just("two of us"), st.just(2)),
    st.tuples(st.just("barrier"), st.just("a and b"), st.just(["a", "b"])),
    st.tuples(st.just("lock"), st.sampled_from(["l", "m"])),
    st.tuples(st.just("unlock"), st.sampled_from(["l", "m"])),
    st.tuples(st.just("offer"), st.just("web")),
    st.tuples(st.just("discover"), st.just("web")),
    st.tuples(st.just("publish"), st.just("news")),
    st.tuples(st.just("subscribe"), st.just("news"), st.integers(1, 2)),
    st.tuples(st.just("wait finalise")),
)


def waits_of(node: Node) -> tuple[Wait, ...]:
    """The waits that the node would tell of."""
    if not node.began:
        return ()
    return tuple(_wait(node, op) for op in (node.operation[1:] if node.operation[0] == "either" else [node.operation]))


def _wait(node: Node, op: Operation) -> Wait:
    match op:
        case ("get", mode, keys, value):
            return Wait("get", tuple(keys), details={"mode": mode, "value": value})
        case ("barrier", barrier, who):
            details: dict[str, Any] = {"generation": node.arrivals[barrier] - 1, "participants": None, "count": None}
            details["count" if isinstance(who, int) else "participants"] = who
            return Wait("barrier", (barrier,), details=details)
        case ("lock", lock):
            return Wait("lock", (lock,))
        case ("discover", service):
            return Wait("service", (service,))
        case ("subscribe", topic, count):
            return Wait("subscribe", (topic,), details={"count": count})
        case ("wait finalise",):
            return Wait("wait", ("finalise",))
        case ("finalise",):
            return Wait("finalise", ("finalise",))
    raise AssertionError(op)


def seen(world: World) -> tuple[list[Member], Facts]:
    """What the controller sees of a world."""
    members = []
    for name, node in world.nodes.items():
        waits = waits_of(node)
        # A subscriber that has messages to read is on its way: its process runs.
        kind = node.operation[0]
        reading = node.began and kind == "subscribe" and node.operation[2] <= world.topics[node.operation[1]]
        members.append(Member(name, () if node.over else waits, bool(waits) and not reading, node.over))
    facts = Facts(
        world.ending,
        {key: value.encode() for key, value in world.values.items()},
        {use: frozenset(who) for use, who in world.arrived.items()},
        {lock: [name for name, _ in queue] for lock, queue in world.queues.items()},
        frozenset(world.services),
        frozenset({"finalise"} if world.finalising else ()),
        frozenset(name for name, node in world.nodes.items() if node.over == "excused"),
    )
    return members, facts


def anybody_moves(world: World) -> bool:
    """Whether any actor can do anything: it is let try, in a world of its own."""
    return any(copy.deepcopy(world).play(actor) for actor in world.actors)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """A run of a few nodes with short scripts."""
    count = draw(st.integers(1, len(NAMES)))
    names = NAMES[:count] if count > 1 else NAMES[:2]
    scripts = {name: draw(st.lists(operation, max_size=5)) for name in names}
    return World(scripts, draw(st.sampled_from(["all", "explicit", names[0]])))


STALLS: list[bool] = []


@given(worlds(), st.data())
@settings(deadline=None, max_examples=600)
def test_a_run_has_stalled_exactly_when_nobody_can_move(world: World, data: st.DataObject) -> None:
    """In every state of a random run, nodes dying on the way, a stall is told if and only if no node can move."""
    deaths = data.draw(st.lists(st.tuples(st.integers(0, 20), st.sampled_from(list(world.nodes)), st.booleans())))
    for moment in range(80):
        for when, name, excused in deaths:
            if when == moment and not world.nodes[name].over:
                world.kill(name, excused)
        if world.aborted:
            return
        members, facts = seen(world)
        moves = anybody_moves(world)
        assert stalled(members, facts) == (bool(world.living) and not moves), (world.__dict__, members, facts)
        STALLS.append(not moves and bool(world.living))
        if not moves:
            return
        movers = [actor for actor in world.actors if copy.deepcopy(world).play(actor)]
        world.play(data.draw(st.sampled_from(movers)))


def test_the_random_runs_stall_often_enough() -> None:
    """The runs above reached both sides of the question, many times."""
    if STALLS:  # the test above may have been left out
        assert sum(STALLS) > 50
        assert len(STALLS) - sum(STALLS) > 500
