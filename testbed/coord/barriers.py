"""Barriers: named members wait for each other, as often as they like.

Each member's n-th arrival belongs to generation n, so that a late or doubled arrival opens no other. An arrival stands
for as long as its member waits, and for good once the generation is open. That it is open is a fact of its own, written
in one transaction that fails if anybody has withdrawn meanwhile: so either all of a generation pass, or who gives up is
counted by nobody.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple

from testbed.coord.explain import listed, read_gone
from testbed.coord.keys import end_of
from testbed.coord.punctual import TooLate, in_time
from testbed.coord.store import Change, Delete, Entry, Operation, Put, Span, Store, StoreError, Unchanged
from testbed.coord.waiting import MET, Awaited, Bound, Broken, Cancel, Cancelled, Standing, Waiting, WaitTimeout
from testbed.events import UNREADABLE

WITHDRAW_PATIENCE = 2.0
"""Seconds that giving up may take; then it goes on in the background."""

NOT_OPEN = "did not open"


class Mismatch(ValueError):
    """Members disagree about who meets at a barrier, or one is not of those who meet."""


@dataclass(frozen=True)
class Meeting:
    """Who meets: these ``members``, or any ``count`` of different ones; ``all_nodes`` where nobody was named."""

    members: Tuple[str, ...] = ()
    count: int = 0
    all_nodes: bool = False

    def told(self) -> bytes:
        """The same for all who mean the same."""
        who: object = self.count if self.count else sorted(self.members)
        return json.dumps({"who": who}).encode()

    def missing(self, arrived: Sequence[str], excused: Sequence[str]) -> List[str]:
        """Which members are missing; of a count, as many empty names."""
        if self.count:
            return [""] * max(0, self.count - len(arrived))
        return [m for m in self.members if m not in arrived and m not in excused]


@dataclass(frozen=True)
class _Generation:
    """One use of a barrier as it stands."""

    arrivals: Dict[str, bytes]
    opened: bool
    withdrawn: int  # the revision of the last withdrawal, 0 where there was none
    first: str  # the member that arrived first


class Barrier:
    """One barrier for one member."""

    def __init__(self, waiting: Waiting, name: str, member: str, meeting: Meeting) -> None:
        if meeting.members and member not in meeting.members:
            raise Mismatch(f"{member} is not one of those who meet at {name!r}: {listed(meeting.members)}")
        self._waiting, self._name, self._member, self._meeting = waiting, name, member, meeting
        self._store: Store = waiting.store
        self._keys = waiting.keys
        self._counter = self._keys.arrivals(name, member)

    def pass_through(self, timeout: Optional[float], cancelled: Optional[Cancel]) -> int:
        """Arrive, wait for the others, and give the generation.

        Raises Aborted, WaitTimeout, Cancelled (then the arrival counts no more), Broken, Mismatch, StoreError.
        """
        bound = Bound(f"the barrier {self._name!r}", NOT_OPEN, timeout)
        generation = bound.ask(self._arrive, self._withdraw)
        try:
            if bound.ask(lambda: self._try_open(generation)):
                self._tell_passing(generation, timeout)
            else:
                self._await_open(generation, bound, cancelled)
        except (WaitTimeout, Cancelled, Broken, Mismatch) as error:
            if self._give_up(generation, error):
                return generation
            raise
        return generation

    # --- arriving and giving up ---------------------------------------------------------------------------------

    def _arrive(self) -> int:
        """Take the member's next generation; another command of the same member may do so at the same time."""
        found = self._store.range(self._counter).entries
        while True:
            first, free = _read_counter(found)
            generation = free[0] if free else first
            told = _counter(max(first, generation + 1), free[1:])
            arrival = Put(self._keys.generation(self._name, generation) + self._member, self._meeting.told())
            committed = self._store.commit([Put(self._counter, told), arrival], [_same(self._counter, found)])
            found = committed.found
            if committed.succeeded or (found and found[0].value == told):
                return generation

    def _withdraw(self, generation: int) -> bool:
        """Undo the arrival; False if it is too late for that: the generation is open."""
        prefix = self._keys.generation(self._name, generation)
        while True:
            if self._store.range(prefix + "-/open").entries:
                return False
            found = self._store.range(self._counter).entries
            first, free = _read_counter(found)
            told = _counter(first, sorted([*free, generation]))
            operations: List[Operation] = [
                Delete(prefix + self._member),
                Put(self._counter, told),
                Put(prefix + "-/withdrawn", b""),
            ]
            conditions = [Unchanged(prefix + "-/open"), _same(self._counter, found)]
            committed = self._store.commit(operations, conditions)
            if committed.succeeded or any(e.value == told for e in committed.found):
                return True

    def _give_up(self, generation: int, error: Exception) -> bool:
        """Withdraw; whether the barrier was passed after all."""
        if isinstance(error, Cancelled):
            return not self._withdraw(generation)  # nobody waits for the answer
        try:
            return not in_time(lambda: self._withdraw(generation), WITHDRAW_PATIENCE)
        except (TooLate, StoreError):
            return False

    # --- waiting and opening ------------------------------------------------------------------------------------

    def _await_open(self, generation: int, bound: Bound, cancelled: Optional[Cancel]) -> None:
        """Wait for the fact that it is open.

        Whoever arrives last opens it. The first one hears of every arrival, in case the last dies on the way to that;
        if all heard all, a barrier of n members would cost n squared messages.
        """
        prefix = self._keys.generation(self._name, generation)
        opened = Span(prefix + "-/open")
        if bound.ask(lambda: self._read(generation)).first == self._member:
            opened = Span(prefix, end_of(prefix))
        gone = Span(self._keys.gone, end_of(self._keys.gone))

        def look(changes: Sequence[Change]) -> Optional[bool]:
            if any(c.key == prefix + "-/open" and c.value is not None for c in changes):
                return True
            return (bound.ask(lambda: self._try_open(generation)) or None) if changes else None

        def standing() -> Standing:
            now = self._read(generation)
            arrived = [m for m in now.arrivals if m != self._member]
            missing = self._meeting.missing([*now.arrivals, self._member], self._excused())
            return Standing([*arrived, self._member], None if self._meeting.count else missing)

        details = self._details(generation)
        awaited = Awaited("barrier", [self._name], f"the barrier {self._name!r}", NOT_OPEN, details)
        self._waiting.wait(awaited, [opened, gone], look, bound.timeout, cancelled, standing, bound.began)

    def _tell_passing(self, generation: int, timeout: Optional[float]) -> None:
        """Tell a wait of no length: that this one came last, and let the others go, is else in no record of the run."""
        board = self._waiting.board
        board.end(board.begin("barrier", [self._name], timeout, self._details(generation)), MET)

    def _details(self, generation: int) -> Dict[str, object]:
        """What an observer must know of a wait for it."""
        some = not self._meeting.count and not self._meeting.all_nodes
        return {
            "generation": generation,
            "participants": list(self._meeting.members) if some else None,
            "count": self._meeting.count or None,
        }

    def _try_open(self, generation: int) -> bool:
        """Open the generation if all are there; whether it is open. Raises Broken and Mismatch."""
        prefix = self._keys.generation(self._name, generation)
        while True:
            gone = self._gone()  # before the arrivals: whoever arrived and then ended is seen to have arrived
            now = self._read(generation)
            if now.opened:
                return True
            self._check(now)
            missing = self._meeting.missing(list(now.arrivals), [m for m, (_, excused) in gone.items() if excused])
            never = [f"{m} {gone[m][0]}" for m in missing if m in gone]
            if never:
                raise Broken(f"the barrier {self._name!r} can never open: {'; '.join(never)}")
            if missing:
                return False
            conditions = [Unchanged(prefix + "-/open"), Unchanged(prefix + "-/withdrawn", now.withdrawn)]
            if self._store.commit([Put(prefix + "-/open", b"")], conditions).succeeded:
                return True

    def _check(self, now: _Generation) -> None:
        """Whoever comes later must mean the same as the first."""
        theirs = now.arrivals.get(now.first)
        if theirs is not None and theirs != self._meeting.told():
            raise Mismatch(
                f"{now.first} waits at the barrier {self._name!r} for others than {self._member} does:"
                f" {theirs[:200].decode('utf-8', 'replace')}; all must name the same participants"
            )

    def _read(self, generation: int) -> _Generation:
        prefix = self._keys.generation(self._name, generation)
        arrivals: Dict[str, Entry] = {}
        opened, withdrawn = False, 0
        for entry in self._store.range(prefix, end_of(prefix)).entries:
            name = entry.key[len(prefix) :]
            if name == "-/open":
                opened = True
            elif name == "-/withdrawn":
                withdrawn = entry.revision
            else:
                arrivals[name] = entry
        first = min(arrivals, key=lambda m: arrivals[m].revision, default="")
        return _Generation({m: e.value for m, e in arrivals.items()}, opened, withdrawn, first)

    def _gone(self) -> Dict[str, Tuple[str, bool]]:
        prefix = self._keys.gone
        entries = self._store.range(prefix, end_of(prefix)).entries
        return {e.key[len(prefix) :]: read_gone(e.value) for e in entries}

    def _excused(self) -> List[str]:
        return [m for m, (_, excused) in self._gone().items() if excused]


def _same(key: str, found: Sequence[Entry]) -> Unchanged:
    return Unchanged(key, found[0].revision if found else 0)


def _counter(first: int, free: Sequence[int]) -> bytes:
    """The next generation of a member, and those before it that it has withdrawn from; unlike every other writing."""
    left = list(free)
    while left and left[-1] == first - 1:
        first = left.pop()
    return json.dumps({"next": first, "free": left, "by": os.urandom(8).hex()}).encode()


def _read_counter(found: Sequence[Entry]) -> Tuple[int, List[int]]:
    if not found:
        return 0, []
    try:
        told = json.loads(found[0].value)
        return int(told["next"]), [int(g) for g in told["free"]]
    except UNREADABLE as error:
        raise StoreError(f"{found[0].key} holds no count of arrivals: {found[0].value[:80]!r}") from error
