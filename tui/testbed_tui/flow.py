"""Who waits for whom, and which stretches of the lanes made the run as long as it was. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter

from testbed_tui.views import NodeView, Picture, Release


@dataclass(frozen=True, slots=True)
class Edge:
    """``waiter`` is blocked until one of ``who`` brings what it waits for; empty ``who``: nobody can tell."""

    waiter: str
    label: str
    since: float
    timeout: float | None
    who: tuple[str, ...]
    cycle: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the critical path: the node that everything hung on, from ``start`` to ``end`` (Unix seconds)."""

    node: str
    start: float
    end: float


def wait_graph(picture: Picture) -> tuple[Edge, ...]:
    """Who waits for whom now, the longest wait first; ``cycle`` names the nodes that wait in a circle."""
    waits = [(node, wait) for node in picture.nodes for wait in node.waits]
    arrows: dict[str, set[str]] = {}
    for node, wait in waits:
        arrows.setdefault(node.name, set()).update(wait.who)
    edges = [
        Edge(node.name, wait.label, wait.since, wait.timeout, wait.who, _circle(node.name, arrows))
        for node, wait in waits
    ]
    return tuple(sorted(edges, key=lambda e: (not e.cycle, e.since, e.waiter)))


def _circle(start: str, arrows: Mapping[str, set[str]]) -> tuple[str, ...]:
    """The shortest way from ``start`` along the arrows back to itself; empty where there is none."""
    came: dict[str, str] = {}
    front = [start]
    while front:
        further = []
        for at in front:
            for to in sorted(arrows.get(at, ())):
                if to == start:
                    way = [at]
                    while way[-1] != start:
                        way.append(came[way[-1]])
                    return (*reversed(way), start)
                if to not in came:
                    came[to] = at
                    further.append(to)
        front = further
    return ()


def critical_path(nodes: Sequence[NodeView], releases: Sequence[Release], now: float = 0.0) -> tuple[Stretch, ...]:
    """The stretches that the length of the run hung on, first to last; what has not ended lasts until ``now``.

    From the end of the node that was last, back in time: where a node had waited and another one let it go, the way
    goes over to that one at that moment; a wait that nobody is known to have ended belongs to the way itself.
    """
    begins = {n.name: n.began for n in nodes if n.began is not None}
    if not begins:
        return ()
    at, node = max((max(n.began, now) if n.ended is None else n.ended, n.name) for n in nodes if n.began is not None)
    way: list[Stretch] = []
    for release in sorted(releases, key=attrgetter("at"), reverse=True):
        if release.waiter == node and release.at <= at and release.by in begins and release.by != node:
            way.append(Stretch(node, release.at, at))
            at, node = release.at, release.by
    way.append(Stretch(node, min(begins[node], at), at))
    return tuple(reversed(way))
