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

from testbed_tui.logs import ERR, LogLine
from testbed_tui.signs import NODE_COLOURS

MOST = 50_000
"""How many lines are kept; the oldest go first."""

SIGNS = {ERR: ("!", Style(color="red", bold=True)), "out": ("│", Style(dim=True))}


class LogView(ScrollView, can_focus=True):
    """A log; ``follow`` keeps its end in view, ``needle`` is what is searched for, ``point`` the line pointed at."""

    follow: reactive[bool] = reactive(True)
    needle: reactive[str] = reactive("")
    point: reactive[int] = reactive(-1)

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.lines: list[LogLine] = []
        self.with_names = True
        self.grown = asyncio.Event()  # set whenever lines have come
        self._order: Mapping[str, int] = {}
        self._names = 0
        self._widest = 0

    def begin(self, order: Mapping[str, int], with_names: bool) -> None:
        """Forget all lines; ``order`` gives each node its colour."""
        self.lines, self._order, self.with_names = [], order, with_names
        self._widest, self.point = 0, -1
        self._names = max((cell_len(name) for name in order), default=0) if with_names else 0
        self._resize()

    def add(self, lines: Sequence[LogLine]) -> None:
        """Show more lines at the end."""
        self.lines.extend(lines)
        if len(self.lines) > MOST:
            gone = len(self.lines) - MOST
            del self.lines[:gone]
            self.point = max(-1, self.point - gone)
        self.grown.set()
        self._widest = max(self._widest, *(len(line.text) for line in lines), 0)
        self._resize()

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

    def on_mouse_scroll_up(self) -> None:
        """Whoever scrolls back wants to read."""
        self.follow = False

    def _resize(self) -> None:
        self.virtual_size = Size(self._names + 4 + min(self._widest, 4000), len(self.lines))
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
        if self.with_names:
            colour = NODE_COLOURS[self._order.get(line.node, 0) % len(NODE_COLOURS)]
            segments.append(Segment(line.node.ljust(self._names) + " ", Style(color=colour)))
        sign, style = SIGNS.get(line.stream, ("·", Style(color="cyan")))
        segments.append(Segment(sign + " ", style))
        segments += self._text(line)
        strip = Strip(segments).crop(left, left + width).extend_cell_length(width)
        base = self.rich_style + Style(reverse=True) if number == self.point else self.rich_style
        return strip.apply_style(base)

    def _text(self, line: LogLine) -> list[Segment]:
        """The line's text with what was searched for made visible."""
        style = Style(color="red") if line.stream == ERR else Style(color="cyan") if line.stream == "event" else Style()
        text, needle = line.text, self.needle.lower()
        if not needle or needle not in text.lower():
            return [Segment(text, style)]
        found, at, low = [], 0, text.lower()
        while (hit := low.find(needle, at)) >= 0 and len(low) == len(text):
            found += [Segment(text[at:hit], style), Segment(text[hit : hit + len(needle)], style + _HIT)]
            at = hit + len(needle)
        return [*found, Segment(text[at:], style)]


_HIT = Style(reverse=True, bold=True)
