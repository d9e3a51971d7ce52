"""When steps wrote what: log files hold no times, events do. Pure.

Events of waits and values carry the sizes of the running step's logs at their time. Between two such marks lines are
spread evenly by their bytes; a step that waits writes nothing, so that no line falls into a wait.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from testbed.events import EventError, StepEnded, StepStarted, ValueSet, WaitEnded, WaitStarted, decode

CLOSE = 0.2
"""Seconds between two marks, up to which a time between them counts as known."""

_TELLING = tuple(f'"{e.kind}"' for e in (StepStarted, StepEnded, WaitStarted, WaitEnded, ValueSet))


@dataclass(slots=True)
class Moments:
    """Times of one step: when it began and ended (Unix seconds), and how large its logs were when (bytes)."""

    start: float
    end: float | None = None
    marks: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: {"out": [], "err": []})

    def add(self, stream: str, size: int, at: float) -> None:
        """The log was that large at that time; what contradicts earlier marks is left out."""
        marks = self.marks[stream]
        if size >= 0 and (not marks or (size >= marks[-1][0] and at >= marks[-1][1])):
            marks.append((size, at))

    def times(self, stream: str, ends: Sequence[int], size: int, until: float) -> list[tuple[float, bool]]:
        """Of each line, by the offset of its end: its time, and whether that is a guess.

        ``size`` is the log's by ``until``, which stands in for the end of a step that goes on.
        """
        end = max(self.start, self.end if self.end is not None else until)
        marks = [(0, self.start), *(m for m in self.marks[stream] if m[0] <= size), (size, end)]
        found = []
        for offset in ends:
            # Of marks at the same size the first: the line was there when that was made.
            after = min(max(1, bisect_left(marks, (offset, 0.0))), len(marks) - 1)
            (low, early), (high, late) = marks[after - 1], marks[after]
            share = (offset - low) / (high - low) if high > low else 1.0
            found.append((early + (late - early) * min(1.0, max(0.0, share)), late - early > CLOSE))
        return found


def moments_of(lines: Iterable[str], nodes: Collection[str]) -> dict[tuple[str, str], Moments]:
    """The times of these nodes' steps, by node and ``configuration.target.step``, from a stream of events' lines."""
    found: dict[tuple[str, str], Moments] = {}
    at: dict[str, Moments] = {}
    for line in lines:
        if not any(kind in line for kind in _TELLING):
            continue
        try:
            event = decode(line)
        except EventError:
            continue  # the screen of the run tells of it
        if event.node not in nodes:
            continue
        match event:
            case StepStarted():
                at[event.node] = found[event.node, _name(event)] = Moments(event.at)
            case StepEnded():
                ended = found.get((event.node, _name(event)))
                if ended is not None:
                    ended.end = event.at
                    at.pop(event.node, None)
            case WaitStarted() | WaitEnded() | ValueSet():
                step = at.get(event.node)
                if step is not None:
                    step.add("out", event.out, event.at)
                    step.add("err", event.err, event.at)
    return found


def _name(event: StepStarted | StepEnded) -> str:
    return f"{event.configuration}.{event.target}.{event.step}"
