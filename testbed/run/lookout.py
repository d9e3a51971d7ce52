"""The look-out for stalls of a run that lives: `Stalls` finds standstills, what etcd holds decides what they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from testbed.compile.flow import Flow, flow_of
from testbed.compile.plan import RunPlan
from testbed.coord.keys import RunKeys, end_of
from testbed.coord.sender import BATCH
from testbed.coord.store import Put, Store, StoreError
from testbed.errors import TestbedError
from testbed.events import FAILED
from testbed.run.conductor import Conductor
from testbed.run.stall import Barrier, Facts, Member, Wait, barrier_of, names_of, stalled
from testbed.run.stalls import Stalls
from testbed.run.waitgraph import graph, headline
from testbed.spec.model import Deployment
from testbed.spec.staged import staged_texts

ADVICE = "where a wait may come to nothing, or is ended by hand, write `stall: off` or a longer grace into the spec"


class LookOut:
    """Aborts a run that has stalled: calls ``abort(why, cause)``, or ``lost`` where etcd does not answer."""

    def __init__(
        self,
        plan: RunPlan,
        store: Store,
        conductor: Conductor,
        abort: Callable[[str, Mapping[str, Any]], None],
        lost: Callable[[StoreError], None],
    ) -> None:
        self._plan, self._store, self._conductor = plan, store, conductor
        self._abort, self._lost = abort, lost
        self._keys = RunKeys(plan.run)
        self._excused: set[str] = set()
        self._stalls = Stalls([p.node.name for p in plan.nodes], plan.deployment.stall, self._ask)

    def hear(self, message: object) -> None:
        """Take in whatever happens in the run."""
        now = time.monotonic()
        try:
            if self._stalls.hear(message, now):
                self._judge(now)
        except StoreError as error:
            self._lost(error)

    def gone(self, node: str, why: str, excused: bool = False) -> None:
        """A node brings nothing any more; ``excused``: nobody waits for it."""
        self._stalls.gone(node, why)
        if excused:
            self._excused.add(node)

    def alarm(self, over: bool) -> float | None:
        """When to `ring`, in monotonic seconds; ``over``: the run is, but for its end."""
        living = 0 if over else self._conductor.living
        return self._stalls.consider(self._conductor.busy, living, time.monotonic())

    def ring(self, now: float) -> None:
        """The alarm's moment has come."""
        self._stalls.ring(now)

    def _ask(self, nodes: Sequence[str], question: str) -> None:
        try:
            for first in range(0, len(nodes), BATCH):
                asked = [Put(self._keys.asked(n), question.encode()) for n in nodes[first : first + BATCH]]
                self._store.commit(asked)
        except StoreError as error:
            self._lost(error)

    def _judge(self, now: float) -> None:
        ending, flags = self._plan.deployment.finalise, self._conductor.raised
        known = Facts(ending, flags=flags, excused=frozenset(self._excused))
        cause = stall_of(self._plan, self._store, self._stalls.members, known, now)
        if cause is not None:
            self._abort(cause["reason"], cause)


def stall_of(plan: RunPlan, store: Store, members: Sequence[Member], known: Facts, now: float) -> dict[str, Any] | None:
    """The cause of an abort, where the ``members``, who all stand, have stalled; raises StoreError.

    ``known`` are the facts that need not be asked for, ``now`` the monotonic time to count from.
    """
    waits = [wait for member in members for wait in member.waits]
    facts = read_facts(store, RunKeys(plan.run), waits, known)
    if not stalled(members, facts):
        return None
    lines = graph(members, facts, _flow(plan.deployment), now)
    return {"kind": "stall", "verdict": FAILED, "reason": headline(members), "lines": lines, "advice": ADVICE}


def _flow(deployment: Deployment) -> Flow | None:
    """Who could set what, by the spec; None where its files cannot be read any more."""
    try:
        return flow_of(deployment, staged_texts(deployment))
    except (OSError, TestbedError):
        return None


def read_facts(store: Store, keys: RunKeys, waits: Sequence[Wait], known: Facts) -> Facts:
    """What etcd holds of that which is waited for, beside what is ``known``; raises StoreError."""
    values = {}
    for name in names_of(waits, "get"):
        for entry in store.range(keys.value(name)).entries:
            values[name] = entry.value
    arrived: dict[Barrier, frozenset[str]] = {}
    for wait in waits:
        if wait.what == "barrier" and barrier_of(wait) not in arrived:
            arrived[barrier_of(wait)] = frozenset(_below(store, keys.generation(*barrier_of(wait)))) - {"-"}
    queues = {name: _queue(store, keys.lock(name)) for name in names_of(waits, "lock")}
    offers = {name: set(_below(store, keys.service(name))) for name in names_of(waits, "service")}
    gone = set(_below(store, keys.gone))
    offered = frozenset(name for name, offering in offers.items() if offering - gone)
    return Facts(known.ending, values, arrived, queues, offered, known.flags, known.excused)


def _below(store: Store, prefix: str) -> list[str]:
    """The next part of each key below a prefix."""
    return [e.key[len(prefix) :].partition("/")[0] for e in store.range(prefix, end_of(prefix)).entries]


def _queue(store: Store, prefix: str) -> list[str]:
    entries = sorted(store.range(prefix, end_of(prefix)).entries, key=lambda e: e.created)
    return [entry.key[len(prefix) :].partition(".")[0] for entry in entries]
