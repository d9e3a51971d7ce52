"""Whether the nodes can come to the end of their commands, were all they could set be set at once (pure).

Every node goes through its commands in order. A set is done when it is come to; a wait that surely runs holds its node
until one that fits was done. Everything in doubt counts as done: sets of staged files, names that are not known, waits
in conditions or loops. So a node that still stands in the end stands in the run too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from testbed.compile.flow import FLAG, KEY, ORDER, SETS, WAITS, Flow, Meeting, names_of
from testbed.compile.names import Pattern, literal, overlap
from testbed.diagnostics import Diagnostic, Span
from testbed.spec.model import ALL, EXPLICIT

_FINALISE: Pattern = ("finalise",)


@dataclass(slots=True)
class _Walk:
    """How far a node has come among the meetings that are in order."""

    path: list[Meeting]
    at: int = 0

    @property
    def over(self) -> bool:
        return self.at >= len(self.path)


@dataclass(slots=True)
class _Board:
    """What was done so far."""

    exact: set[tuple[str, str]] = field(default_factory=set)
    loose: set[tuple[str, Pattern]] = field(default_factory=set)

    def put(self, kind: str, name: Pattern) -> None:
        known = literal(name)
        if known is None:
            self.loose.add((kind, name))
        else:
            self.exact.add((kind, known))

    def has(self, kind: str, name: Pattern) -> bool:
        known = literal(name)
        if known is None:  # it may be any of many: not our matter
            return True
        return (kind, known) in self.exact or any(k == kind and overlap(name, n) for k, n in self.loose)


def circles(flow: Flow) -> Iterator[Diagnostic]:
    """A warning for each wait at which nodes stand for ever because they stand for each other."""
    board = _Board()
    walks: dict[str, _Walk] = {node.name: _Walk([]) for node in flow.deployment.nodes}
    for meeting in flow.meetings:
        if meeting.use.target in ORDER and meeting.use.origin is not None:
            walks[meeting.node.name].path.append(meeting)
        elif meeting.use.does != WAITS:
            for name in meeting.names:
                board.put(meeting.use.kind, name)
    for node in flow.deployment.nodes:
        board.put(KEY, (f"host_{node.index}",))
    if flow.deployment.finalise == EXPLICIT:
        board.put(FLAG, _FINALISE)  # a person may do it
    _go(flow, walks, board)
    yield from _told(flow, {name: walk.path[walk.at] for name, walk in walks.items() if not walk.over}, board)


def _go(flow: Flow, walks: dict[str, _Walk], board: _Board) -> None:
    """Let every node go as far as it can."""
    moved = True
    while moved:
        moved = False
        for walk in walks.values():
            while not walk.over and _passes(flow, walk.path[walk.at], board):
                walk.at += 1
                moved = True
        ending = flow.deployment.finalise
        done = all(w.over for w in walks.values()) if ending == ALL else ending in walks and walks[ending].over
        if done and not board.has(FLAG, _FINALISE):
            board.put(FLAG, _FINALISE)
            moved = True


def _passes(flow: Flow, meeting: Meeting, board: _Board) -> bool:
    use = meeting.use
    if use.does == SETS:
        for name in meeting.names:
            board.put(use.kind, name)
    if use.does != WAITS or not use.surely:
        return True
    held = [n for n in meeting.names if not board.has(use.kind, n) and _settable(flow, use.kind, n)]
    return not held or (use.any_of and len(held) < len(meeting.names))


def _settable(flow: Flow, kind: str, name: Pattern) -> bool:
    """Whether anybody sets it at all; what nobody sets is told on its own."""
    return kind == FLAG or bool(flow.setters(kind, name))


def _told(flow: Flow, stuck: dict[str, Meeting], board: _Board) -> Iterator[Diagnostic]:
    """One warning for each place at which nodes stand."""
    places: dict[Span | None, list[Meeting]] = {}
    for meeting in stuck.values():
        places.setdefault(meeting.use.origin, []).append(meeting)
    for origin, meetings in places.items():
        first = meetings[0]
        held = [n for n in first.names if not board.has(first.use.kind, n)]
        notes = []
        for other in [n for n in _bringers(flow, first, held) if n in stuck][:3]:
            its = stuck[other]
            where = f"{its.use.origin.line}:{its.use.origin.column}" if its.use.origin else "its start"
            notes.append(
                f"{other} stands at {where} before that: it waits for"
                f" {names_of([n for n in its.names if not board.has(its.use.kind, n)])}"
            )
        others = f" and {len(meetings) - 1} more" if len(meetings) > 1 else ""
        yield Diagnostic(
            f"{first.node.name}{others} can never get past this wait for {names_of(held)}:"
            " whoever brings it waits too, in a circle",
            origin,
            "warning",
            tuple(notes),
            "set it before waiting, or in an earlier step",
        )


def _bringers(flow: Flow, meeting: Meeting, held: list[Pattern]) -> list[str]:
    """Who could end a wait."""
    if meeting.use.kind != FLAG:
        return list(dict.fromkeys(node for name in held for node in flow.setters(meeting.use.kind, name)))
    ending = flow.deployment.finalise
    return [n.name for n in flow.deployment.nodes] if ending == ALL else [ending]
