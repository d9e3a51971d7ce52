"""Lines of logs: any number, drawn only where they are seen; follows, searches, points at a line."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from testbed_tui.logs import ERR, NOTE, OUT, LogLine
from testbed_tui.signs import NODE_COLOURS, RED

MOST = 50_000
"""How many lines are kept; the oldest go first."""

SIGNS = {
    ERR: ("!", Style(color=RED, bold=True)), OUT: ("│", Style(dim=True)), NOTE: ("·", Style(dim=True)),
}  # fmt: skip
STYLES = {ERR: Style(color=RED), OUT: Style(), NOTE: Style(dim=True, italic=True)}
TIME = 10
"""Cells that a time takes."""


class LogView(ScrollView, can_focus=True):
    """A log in order of time; ``follow`` keeps its end in view, ``needle`` is searched for, ``point`` pointed at.

    ``only`` leaves the lines of that stream, ``times`` shows when lines were written, in seconds since the start.
    """

    follow: reactive[bool] = reactive(True)
    needle: reactive[str] = reactive("")
    point: reactive[int] = reactive(-1)
    times: reactive[bool] = reactive(True)
    only: reactive[str] = reactive("")

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.lines: list[LogLine] = []
        self.with_names = True
        self.grown = asyncio.Event()  # set whenever lines have come
        self._kept: list[LogLine] = []
        self._order: Mapping[str, int] = {}
        self._start = 0.0
        self._names = 0
        self._widest = 0

    def begin(self, order: Mapping[str, int], with_names: bool, start: float) -> None:
        """Forget all lines; ``order`` gives each node its colour, ``start`` is the run's, Unix seconds."""
        self._kept, self.lines, self._order, self.with_names, self._start = [], [], order, with_names, start
        self._widest, self.point = 0, -1
        self._names = max((cell_len(name) for name in order), default=0) if with_names else 0
        self._resize()

    def add(self, lines: Sequence[LogLine]) -> None:
        """Show more lines, each at its time: those that come late go where they belong."""
        if not lines:
            return
        late = bool(self._kept) and min(line.at for line in lines) < self._kept[-1].at
        self._kept.extend(lines)
        if late:
            self._kept.sort(key=lambda line: line.at)
        gone = max(0, len(self._kept) - MOST)
        del self._kept[:gone]
        self._widest = max(self._widest, *(len(line.text) for line in lines))
        if late or gone:
            self._choose()
        else:
            self.lines += [line for line in lines if self._is_wanted(line)]
        self.grown.set()
        self._resize()

    def watch_only(self) -> None:
        """Leave what is wanted."""
        self._choose()
        self._resize()

    def _is_wanted(self, line: LogLine) -> bool:
        return not self.only or line.stream == self.only

    def _choose(self) -> None:
        """Make the lines that are shown anew; the line that is pointed at, and the one on top, stay where they are."""
        top = round(self.scroll_y)
        pointed = self.lines[self.point] if 0 <= self.point < len(self.lines) else None
        upper = self.lines[top] if top < len(self.lines) else None
        self.lines = [line for line in self._kept if self._is_wanted(line)]
        self.point = next((n for n, line in enumerate(self.lines) if line is pointed), -1)
        at = next((n for n, line in enumerate(self.lines) if line is upper), top)
        if not self.follow and at != top:
            self.scroll_to(y=at, animate=False)

    def find(self, forward: bool) -> bool:
        """Point at the next line with the needle, around the end too; whether there is one."""
        needle, count = self.needle.lower(), len(self.lines)
        if not needle or not count:
            return False
        step = 1 if forward else -1
        start = self.point if self.point >= 0 else (-1 if forward else count)
        for n in range(1, count + 1):
            at = (start + step * n) % count
            if needle in self.lines[at].text.lower():
                self.go_to(at)
                return True
        return False

    def go_to(self, line: int) -> None:
        """Point at that line and bring it into view."""
        self.follow = False
        self.point = line
        self.scroll_to(y=max(0, line - self.size.height // 2), animate=False)

    def watch_follow(self) -> None:
        """Jump to the end when following begins."""
        if self.follow:
            self.scroll_end(animate=False)

    def watch_point(self) -> None:
        """Draw the mark anew."""
        self.refresh()

    def watch_needle(self) -> None:
        """Draw the hits anew."""
        self.refresh()

    def watch_times(self) -> None:
        """Make room for times, or take it away."""
        self._resize()

    def on_mouse_scroll_up(self) -> None:
        """Whoever scrolls back wants to read."""
        self.follow = False

    def _resize(self) -> None:
        left = self._names + 1 + (TIME if self.times else 0)
        self.virtual_size = Size(left + 3 + min(self._widest, 4000), len(self.lines))
        self.refresh()
        if self.follow:
            self.scroll_end(animate=False)

    def render_line(self, y: int) -> Strip:
        """Draw one line of the screen."""
        left, top = self.scroll_offset
        width, number = self.size.width, y + top
        if number >= len(self.lines):
            return Strip.blank(width, self.rich_style)
        line = self.lines[number]
        segments = []
        if self.times:
            segments.append(Segment(self._time(line), Style(dim=True)))
        if self.with_names:
            colour = NODE_COLOURS[self._order.get(line.node, 0) % len(NODE_COLOURS)]
            segments.append(Segment(line.node.ljust(self._names) + " ", Style(color=colour)))
        sign, style = SIGNS[line.stream]
        segments.append(Segment(sign + " ", style))
        segments += self._text(line)
        strip = Strip(segments).crop(left, left + width).extend_cell_length(width)
        base = self.rich_style + Style(reverse=True) if number == self.point else self.rich_style
        return strip.apply_style(base)

    def _time(self, line: LogLine) -> str:
        """Seconds since the run's start, a guess with ``~`` and one digit less."""
        since = max(0.0, line.at - self._start) if self._start else 0.0
        return f"~{since:7.1f}  " if line.about else f"{since:9.2f} "

    def _text(self, line: LogLine) -> list[Segment]:
        """The line's text with what was searched for made visible."""
        style, text, needle = STYLES[line.stream], line.text, self.needle.lower()
        if not needle or needle not in text.lower():
            return [Segment(text, style)]
        found, at, low = [], 0, text.lower()
        while (hit := low.find(needle, at)) >= 0 and len(low) == len(text):
            found += [Segment(text[at:hit], style), Segment(text[hit : hit + len(needle)], style + _HIT)]
            at = hit + len(needle)
        return [*found, Segment(text[at:], style)]


_HIT = Style(reverse=True, bold=True)
