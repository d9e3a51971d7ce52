"""Random histories of waits, gifts, give-ups and deaths, each step compared with a model that has no threads."""
# ruff: noqa: D102  the rules are named after what they do

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from testbed.coord.memory import MemoryStore
from testbed.coord.peers import Peer
from testbed.coord.scope import Aborted, Broken, Cancel, Cancelled, Scope, Wanted
from testbed.coord.store import Committed, Lease, Operation, Put, Snapshot, Span, StoreError, Unchanged, Watch

LEAST_STEPS = 10_000
NAMES = ("n0", "n1", "n2", "n3")
PEERS = [Peer(name, n, "n", "here", "", []) for n, name in enumerate(NAMES)]
KEYS = st.sampled_from(("x", "y", "z"))
VALUES = st.sampled_from((b"0", b"1"))
BARRIERS = st.sampled_from(("b", "c"))
LOCKS = st.sampled_from(("l", "m"))
MEMBERS = st.integers(0, len(NAMES) - 1)
PICK = st.integers(0, 1_000_000)

GAVE_UP, BROKEN, ABORTED, DIED = "gave up", "broken", "aborted", "died"


class Mortal:
    """A store as a process has it: when that is dead, it does nothing more."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self.dead = False

    def _alive(self) -> MemoryStore:
        if self.dead:
            raise StoreError("this process is dead")
        return self._store

    def range(self, start: str, end: str = "") -> Snapshot:
        return self._alive().range(start, end)

    def commit(
        self, operations: list[Operation], conditions: tuple[Unchanged, ...] = (), counted: Span | None = None
    ) -> Committed:
        return self._alive().commit(operations, conditions, counted)

    def watch(self, spans: list[Span]) -> Watch:
        return self._alive().watch(spans)

    def lease(self, seconds: float) -> Lease:
        return self._alive().lease(seconds)

    def close(self) -> None:
        """The others go on with it."""


class Call:
    """A call on a thread of its own; ``moved`` is set when it has blocked, and when it has ended."""

    by_thread: dict[int, Call] = {}

    def __init__(self, do: Callable[[Cancel], Any]) -> None:
        self.cancel = Cancel()
        self.moved = threading.Event()
        self.outcome: Any = None
        self._thread = threading.Thread(target=self._run, args=(do,), daemon=True)
        self._thread.start()
        assert self.moved.wait(30)

    def _run(self, do: Callable[[Cancel], Any]) -> None:
        self.by_thread[threading.get_ident()] = self
        try:
            self.outcome = do(self.cancel)
        except Cancelled:
            self.outcome = GAVE_UP
        except Broken:
            self.outcome = BROKEN
        except Aborted:
            self.outcome = ABORTED
        except StoreError:
            self.outcome = DIED
        except BaseException as error:  # noqa: BLE001  compared with what should have come
            self.outcome = error
        finally:
            del self.by_thread[threading.get_ident()]
            self.moved.set()

    @property
    def done(self) -> bool:
        return not self._thread.is_alive()

    def join(self) -> Any:
        self._thread.join(30)
        assert self.done, "it still blocks"
        return self.outcome


class Board:
    """Tells a call that it has blocked."""

    def begin(self, *_: Any) -> int:
        Call.by_thread[threading.get_ident()].moved.set()
        return 0

    def end(self, *_: Any) -> None:
        pass


@dataclass
class Pending:
    """A call that the model thinks blocked; ``told`` gives the outcome that the model's state calls for, if any."""

    member: int
    call: Call
    told: Callable[[], Any]
    gave_up: Callable[[], None] = lambda: None


@dataclass
class Meeting:
    """The model of a barrier: who has arrived in each generation, and which are open."""

    arrived: dict[int, set[int]] = field(default_factory=dict)
    opened: set[int] = field(default_factory=set)

    def arrive(self, member: int) -> int:
        generation = next(g for g in range(1000) if member not in self.arrived.get(g, ()))
        self.arrived.setdefault(generation, set()).add(member)
        return generation


@dataclass(eq=False)
class Place:
    """Somebody's place in the queue of a lock."""

    member: int


steps = 0


class Coordination(RuleBasedStateMachine):
    """Four nodes, each a process with a scope and a lease, over one store."""

    @initialize()
    def begin(self) -> None:
        self.store = MemoryStore()
        self.mortals = [Mortal(self.store) for _ in NAMES]
        self.leases = [self.store.lease(1e6) for _ in NAMES]
        self.scopes = [
            Scope(m, "r", name, nodes=PEERS, lease=lambda lease=lease: lease.id, board=Board())  # type: ignore[misc]
            for m, name, lease in zip(self.mortals, NAMES, self.leases, strict=True)
        ]
        self.dead: dict[int, bool] = {}  # -> excused
        self.values: dict[str, bytes] = {}  # in the order of setting
        self.meetings = {"b": Meeting(), "c": Meeting()}
        self.queues: dict[str, list[Place]] = {"l": [], "m": []}
        self.held: list[tuple[int, str, Place, Any]] = []
        self.messages: list[bytes] = []
        self.numbers = 0
        self.finalised = False
        self.pending: list[Pending] = []

    # --- doing ---------------------------------------------------------------------------------------------------

    def _living(self, member: int) -> int:
        """That member, or the next who lives."""
        return next(n % len(NAMES) for n in range(member, member + len(NAMES)) if n % len(NAMES) not in self.dead)

    def _start(
        self,
        member: int,
        do: Callable[[Cancel], Any],
        told: Callable[[], Any],
        gave_up: Callable[[], None] = lambda: None,
    ) -> None:
        self.pending.append(Pending(member, Call(do), told, gave_up))
        self._settle()

    def _settle(self) -> None:
        """Compare every call with the model, until the model moves no more."""
        moved = True
        while moved:
            moved = False
            for pending in list(self.pending):
                told = pending.told()
                if told is None:
                    continue
                assert pending.call.join() == told
                self.pending.remove(pending)
                if told in (GAVE_UP, BROKEN):
                    pending.gave_up()
                moved = True
        for pending in self.pending:
            assert not pending.call.done, pending.call.outcome

    @invariant()
    def count(self) -> None:
        global steps  # noqa: PLW0603  it counts over all runs
        steps += 1

    @rule(member=MEMBERS, key=KEYS, value=VALUES)
    def set(self, member: int, key: str, value: bytes) -> None:
        self.scopes[self._living(member)].set(key, value)
        self.values.pop(key, None)
        self.values[key] = value
        self._settle()

    @rule(member=MEMBERS, key=KEYS)
    def unset(self, member: int, key: str) -> None:
        self.scopes[self._living(member)].unset(key)
        self.values.pop(key, None)
        self._settle()

    @rule(member=MEMBERS, keys=st.sets(KEYS, min_size=1), mode=st.sampled_from(("all", "any", "value")), value=VALUES)
    def wait_for(self, member: int, keys: set[str], mode: str, value: bytes) -> None:
        member = self._living(member)
        wanted = Wanted(tuple(sorted(keys))[: 1 if mode == "value" else None], mode, value)

        def told() -> Any:
            there = {key: v for key, v in self.values.items() if key in wanted.keys}
            if mode == "any":
                return dict(list(there.items())[:1]) or None
            if mode == "value":
                return there if there.get(wanted.keys[0]) == value else None
            return there if len(there) == len(wanted.keys) else None

        self._start(member, lambda cancel: self.scopes[member].wait_for(wanted, cancelled=cancel), told)

    @rule(member=MEMBERS, name=BARRIERS)
    def barrier(self, member: int, name: str) -> None:
        member = self._living(member)
        meeting = self.meetings[name]
        generation = meeting.arrive(member)

        def told() -> Any:
            if generation in meeting.opened:
                return generation
            missing = set(range(len(NAMES))) - meeting.arrived[generation]
            if any(not self.dead.get(m, True) for m in missing):
                return BROKEN
            if missing - set(self.dead):
                return None
            meeting.opened.add(generation)
            return generation

        def gave_up() -> None:
            meeting.arrived[generation].remove(member)

        self._start(member, lambda cancel: self.scopes[member].barrier(name, cancelled=cancel), told, gave_up)

    @rule(member=MEMBERS)
    def next(self, member: int) -> None:
        assert self.scopes[self._living(member)].next("s") == self.numbers
        self.numbers += 1

    @rule(member=MEMBERS, name=LOCKS)
    def lock(self, member: int, name: str) -> None:
        member = self._living(member)
        place, queue = Place(member), self.queues[name]
        queue.append(place)
        locks: list[Any] = []

        def do(cancel: Cancel) -> str:
            locks.append(self.scopes[member].lock(name, cancelled=cancel))
            locks[0].__enter__()
            return "held"

        def told() -> Any:
            if queue[0] is not place:
                return None
            if (member, name, place, locks[0]) not in self.held:
                self.held.append((member, name, place, locks[0]))
            return "held"

        self._start(member, do, told, lambda: queue.remove(place))

    @precondition(lambda self: self.held)
    @rule(pick=PICK)
    def release(self, pick: int) -> None:
        _, name, place, lock = self.held.pop(pick % len(self.held))
        lock.__exit__(None, None, None)
        self.queues[name].remove(place)
        self._settle()

    @rule(member=MEMBERS, value=VALUES)
    def publish(self, member: int, value: bytes) -> None:
        self.scopes[self._living(member)].publish("t", value)
        self.messages.append(value)
        self._settle()

    @rule(member=MEMBERS, more=st.integers(0, 2))
    def subscribe(self, member: int, more: int) -> None:
        member = self._living(member)
        count = len(self.messages) + more
        scope = self.scopes[member]
        self._start(
            member,
            lambda cancel: list(scope.subscribe("t", count, cancelled=cancel)),
            lambda: self.messages[:count] if len(self.messages) >= count else None,
        )

    @rule(member=MEMBERS)
    def wait_finalise(self, member: int) -> None:
        member = self._living(member)
        scope = self.scopes[member]
        self._start(
            member,
            lambda cancel: scope.wait_flag("finalise", cancelled=cancel).name,
            lambda: "finalise" if self.finalised else None,
        )

    @precondition(lambda self: len(self.pending) > 3)
    @rule(member=MEMBERS)
    def finalise(self, member: int) -> None:
        self.scopes[self._living(member)].raise_flag("finalise", "done")
        self.finalised = True
        self._settle()

    @precondition(lambda self: self.pending)
    @rule(pick=PICK)
    def give_up(self, pick: int) -> None:
        """A waiting command is killed; its node lives on."""
        pending = self.pending.pop(pick % len(self.pending))
        pending.call.cancel.fire()
        assert pending.call.join() == GAVE_UP
        pending.gave_up()
        self._settle()

    @precondition(lambda self: len(self.dead) < 2 and len(self.pending) > 2)
    @rule(member=MEMBERS, excused=st.sampled_from((True, True, True, False)))
    def die(self, member: int, excused: bool) -> None:
        """A node dies with all that it is at; its lease ends, and the run hears of it."""
        member = self._living(member)
        self.mortals[member].dead = True
        self.scopes[member].close()
        for pending in [p for p in self.pending if p.member == member]:
            assert pending.call.join() == DIED
            self.pending.remove(pending)
        for queue in self.queues.values():
            queue[:] = [place for place in queue if place.member != member]
        self.held = [held for held in self.held if held[0] != member]
        self.leases[member].revoke()
        self.dead[member] = excused
        told = json.dumps({"why": "is dead", "excused": excused}).encode()
        self.store.commit([Put(self.scopes[0].keys_of.gone + NAMES[member], told)])
        self._settle()

    def teardown(self) -> None:
        if not hasattr(self, "pending"):
            return
        self.scopes[self._living(0)].raise_flag("abort", "the end")
        outcomes = [pending.call.join() for pending in self.pending]
        assert outcomes == [ABORTED] * len(outcomes)
        for scope in self.scopes:
            scope.close()
        self.store.close()


def test_random_histories() -> None:
    """However waits, gifts, give-ups and deaths fall together, each call ends when it should, as it should."""
    global steps  # noqa: PLW0603  it counts over all runs
    steps = 0
    run_state_machine_as_test(
        Coordination,
        settings=settings(
            max_examples=220,
            stateful_step_count=70,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert steps >= LEAST_STEPS
