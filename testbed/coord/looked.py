"""What can be asked of a look at a run, what is seen in it, and how far it is with each node."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Mapping, Optional, Set, Tuple, Union

from testbed.coord.chunks import (
    FROM_START,
    OUT,
    RUNNING,
    STREAMS,
    WINDOW,
    Begun,
    Ended,
    Garbled,
    Note,
    Output,
    Position,
)
from testbed.events import AnsibleTask


@dataclass(frozen=True)
class Wanted:
    """What to look at: steps and streams as in `Ask`, from ``lines`` or, by node, from ``positions`` on.

    ``patience``: seconds that a node may be unreachable; None: for ever. ``window`` in bytes, for each node.
    """

    nodes: Tuple[str, ...]
    step: str = RUNNING
    streams: Tuple[str, ...] = STREAMS
    lines: int = FROM_START
    positions: Mapping[str, Position] = field(default_factory=dict)
    window: int = WINDOW
    patience: Optional[float] = None


@dataclass(frozen=True)
class Gone:
    """Nothing more comes from a node.

    ``well``: because it, or what was asked for, has ended; ``whole``: all that was asked for was shown; ``late``: it
    was out of reach for longer than whoever looks had patience.
    """

    reason: str
    well: bool
    whole: bool = False
    late: bool = False


Seen = Tuple[str, Union[Begun, Output, Ended, Note, AnsibleTask, Gone]]
"""What is seen of a node, by its name."""


@dataclass
class Looked:
    """How far the look at one node is."""

    name: str
    position: Optional[Position]
    ended: Set[str] = field(default_factory=set)  # steps whose end was shown
    noted: Set[str] = field(default_factory=set)  # what it said when it was asked, which it says each time
    shown: str = ""  # the step whose beginning was shown last
    alive: Optional[bool] = None
    since: float = 0.0  # when it was asked, or missed for the first time
    answered: bool = False
    said: bool = False  # that it is silent
    next: int = 0  # number of the chunk that comes next
    confirmed: int = 0
    unconfirmed: int = 0
    verdict: str = ""  # its own word, or why nobody expects one
    done: bool = False

    def place(self, frame: Union[Begun, Output]) -> bool:
        """See that it follows on what was shown before; whether it is new. Raises Garbled."""
        at = self.position
        if isinstance(frame, Begun):
            place = Position(frame.step, frame.out, frame.err)
            if at is not None and at.step == frame.step and at != place:
                raise Garbled(f"{place} instead of {at}")
            self.position, before = place, self.shown
            self.shown = frame.step
            return before != frame.step
        expected = None if at is None or at.step != frame.step else (at.out if frame.stream == OUT else at.err)
        if at is None or frame.offset != expected:
            raise Garbled(f"{frame.step}.{frame.stream} from {frame.offset} instead of {expected}")
        end = frame.offset + len(frame.data)
        self.position = replace(at, out=end) if frame.stream == OUT else replace(at, err=end)
        return bool(frame.data)
