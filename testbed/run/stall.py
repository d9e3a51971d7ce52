"""Whether a run has stalled: every live node waits for what only a waiting, dead or finished node could bring (pure).

What lives is told by `Member`, what stands in etcd by `Facts`. A wait that is over as soon as its node looks again
holds nobody: its key is set, its barrier open or full, its lock free, its flag raised. If all members stand and none
of their waits is such, nobody goes on any more unless somebody outside of the run does something.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from testbed.coord.scope import CONTROLLER
from testbed.events import FINALISE
from testbed.spec.model import ALL, EXPLICIT

SHORTENED = 200
"""Characters from which on a wanted value may be told without its end."""


@dataclass(frozen=True, slots=True)
class Wait:
    """An open wait as its node tells it; ``heard`` is the controller's monotonic time of that.

    ``what``, ``names`` and ``details`` are those of docs/coordination.md.
    """

    what: str
    names: tuple[str, ...]
    heard: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Member:
    """A node: its open waits and whether it ``stands`` but for them; ``gone`` says why it brings nothing any more."""

    name: str
    waits: tuple[Wait, ...] = ()
    stands: bool = False
    gone: str = ""


Barrier = tuple[str, int]
"""One use of a barrier: name and generation."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What etcd holds of what is waited for.

    ``values`` are the users' that are set, ``arrived`` the members at each barrier, ``queues`` who holds each lock and
    who waits for it, in order, ``offered`` the services, ``flags`` those raised; ``excused`` are the dead without whom
    the others go on, ``ending`` is the deployment's ``finalise``.
    """

    ending: str
    values: Mapping[str, bytes] = field(default_factory=dict)
    arrived: Mapping[Barrier, frozenset[str]] = field(default_factory=dict)
    queues: Mapping[str, Sequence[str]] = field(default_factory=dict)
    offered: frozenset[str] = frozenset()
    flags: frozenset[str] = frozenset()
    excused: frozenset[str] = frozenset()


def stalled(members: Sequence[Member], facts: Facts) -> bool:
    """Whether nobody can go on, and somebody would."""
    living = [m for m in members if not m.gone]
    return (
        bool(living)
        and all(m.stands and m.waits for m in living)
        and not any(is_over(wait, members, facts) for m in living for wait in m.waits)
    )


def is_over(wait: Wait, members: Sequence[Member], facts: Facts) -> bool:
    """Whether the wait holds its node no longer, or somebody outside of the run is expected to end it."""
    match wait.what:
        case "get":
            return _is_set(wait, facts.values)
        case "barrier":
            return _opens(wait, members, facts)
        case "lock":
            return not holder(wait.names[0], members, facts)
        case "service":
            return wait.names[0] in facts.offered
        case "wait" | "finalise":
            return _is_raised(wait.names[0], members, facts)
        case "subscribe":
            return False
    return True  # a wait of a kind that is not known: nothing can be said of it


def _is_set(wait: Wait, values: Mapping[str, bytes]) -> bool:
    there = [name in values for name in wait.names]
    match wait.details.get("mode"):
        case "any":
            return any(there)
        case "value":
            wanted = str(wait.details.get("value", ""))
            found = values.get(wait.names[0], b"").decode("utf-8", "replace")
            return all(there) and (found == wanted or (len(wanted) >= SHORTENED and found.startswith(wanted)))
    return all(there)


def missing(wait: Wait, members: Sequence[Member], facts: Facts) -> list[str]:
    """Who is missing at a barrier of named participants."""
    here = facts.arrived.get(barrier_of(wait), frozenset())
    wanted = wait.details.get("participants")
    names = [str(name) for name in wanted] if isinstance(wanted, list) else [m.name for m in members]
    return [name for name in names if name not in here and name not in facts.excused]


def barrier_of(wait: Wait) -> Barrier:
    """The use of the barrier that is waited for."""
    generation = wait.details.get("generation")
    return wait.names[0], generation if isinstance(generation, int) else 0


def _opens(wait: Wait, members: Sequence[Member], facts: Facts) -> bool:
    count = wait.details.get("count")
    if isinstance(count, int) and count:
        return len(facts.arrived.get(barrier_of(wait), ())) >= count
    absent = missing(wait, members, facts)
    gone = {m.name for m in members if m.gone}
    # Who waits for somebody that is gone is told so by the barrier itself; the controller's part is a person's.
    return not absent or any(name in gone or name == CONTROLLER for name in absent)


def holder(lock: str, members: Sequence[Member], facts: Facts) -> str:
    """The living node that alone can free the lock; empty where nobody has it, or who is next is about to."""
    queue = facts.queues.get(lock, ())
    first = next((m for m in members if queue and m.name == queue[0] and not m.gone), None)
    if first is None:
        return ""
    waiting = sum(wait.what == "lock" and wait.names[0] == lock for wait in first.waits)
    return first.name if queue.count(first.name) > waiting else ""


def _is_raised(flag: str, members: Sequence[Member], facts: Facts) -> bool:
    if flag in facts.flags:
        return True
    if flag != FINALISE:
        return False
    if facts.ending == EXPLICIT:
        return True  # a person may, whatever the nodes do
    bringing = [m for m in members if not m.gone and facts.ending in (ALL, m.name)]
    return bool(bringing) and all(is_through(m) for m in bringing)


def is_through(member: Member) -> bool:
    """Whether the node has done all but finalise."""
    return any(wait.what == FINALISE for wait in member.waits)


def names_of(waits: Iterable[Wait], what: str) -> set[str]:
    """All names that waits of that kind are for."""
    return {name for wait in waits if wait.what == what for name in wait.names}
