"""Sequences: each number once, and who draws is in nobody's way."""

from __future__ import annotations

from collections.abc import Sequence

from testbed.coord.scope import Scope
from testbed.coord.store import Committed, Operation, Span, Store, Unchanged
from tests.coord.background import Background
from tests.coord.conftest import Backend
from tests.coord.member import PEERS, Member


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
