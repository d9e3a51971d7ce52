"""The timeline: a lane for each node, a letter for each stretch of it, capitals on the critical path."""

from __future__ import annotations

from collections.abc import Sequence

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from testbed_tui.flow import Stretch
from testbed_tui.views import Bar, NodeView

TARGET_STYLES = {
    "clean": Style(color="black", bgcolor="bright_black"), "init": Style(color="black", bgcolor="#6f92e0"),
    "deploy": Style(color="black", bgcolor="#3fa7c4"), "test": Style(color="black", bgcolor="#4fb060"),
    "publish": Style(color="black", bgcolor="#d49a2a"), "finalise": Style(color="black", bgcolor="#c07be0"),
}  # fmt: skip
WAIT = Style(color="#d49a2a")
ANSIBLE = Style(color="black", bgcolor="white")
CRITICAL = Style(bold=True, underline=True)
BAD = Style(color="white", bgcolor="#b03030")


class Gantt(ScrollView, can_focus=True):
    """Lanes over time; ``zoom`` 1 shows the whole run in the width there is, 2 twice as wide, and so on."""

    zoom: reactive[int] = reactive(1)
    cursor: reactive[int] = reactive(0)

    BINDINGS = [
        ("plus,equals_sign", "zoom(2)", "Wider"),
        ("minus", "zoom(-2)", "Narrower"),
        ("up", "move(-1)", ""),
        ("down", "move(1)", ""),
    ]

    class Moved(Message):
        """The cursor stands on another lane."""

        def __init__(self, node: str) -> None:
            super().__init__()
            self.node = node

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._lanes: Sequence[NodeView] = ()
        self._critical: dict[str, list[Stretch]] = {}
        self._start, self._end = 0.0, 1.0
        self._names = 4

    def show(self, nodes: Sequence[NodeView], path: Sequence[Stretch], start: float, end: float) -> None:
        """Show these lanes from ``start`` to ``end`` (Unix seconds)."""
        self._lanes, self._start, self._end = nodes, start, max(end, start + 0.001)
        self._critical = {}
        for stretch in path:
            self._critical.setdefault(stretch.node, []).append(stretch)
        self._names = min(24, max((cell_len(n.name) for n in nodes), default=4))
        self._resize()

    def action_zoom(self, factor: int) -> None:
        """Zoom in or out."""
        self.zoom = min(64, self.zoom * 2) if factor > 0 else max(1, self.zoom // 2)

    def action_move(self, by: int) -> None:
        """Go to another lane."""
        self.cursor = min(max(0, self.cursor + by), max(0, len(self._lanes) - 1))

    def watch_zoom(self) -> None:
        """Draw at the new scale."""
        self._resize()

    def watch_cursor(self) -> None:
        """Bring the lane into view, and tell."""
        if self._lanes:
            top, height = self.scroll_offset.y, self.size.height - 1
            if not top <= self.cursor < top + height:
                self.scroll_to(y=self.cursor - height // 2, animate=False)
            self.post_message(self.Moved(self._lanes[self.cursor].name))
        self.refresh()

    def on_resize(self) -> None:
        """Fill the new width."""
        self._resize()

    def _resize(self) -> None:
        self.virtual_size = Size(self._names + 2 + self._cells(), len(self._lanes) + 1)
        self.refresh()

    def _cells(self) -> int:
        return max(10, self.size.width - self._names - 3) * self.zoom

    def render_line(self, y: int) -> Strip:
        """Draw the scale, or a lane."""
        left, top = self.scroll_offset
        width = self.size.width
        if y == 0:
            body, head = self._scale(), Segment(" " * (self._names + 2), Style(dim=True))
        elif y - 1 + top < len(self._lanes):
            number = y - 1 + top
            node = self._lanes[number]
            head = Segment(
                f"{node.name[: self._names].ljust(self._names)}{'◂' if number == self.cursor else ' '} ",
                Style(bold=number == self.cursor),
            )
            body = self._lane(node)
        else:
            return Strip.blank(width, self.rich_style)
        room = width - self._names - 2
        lane = Strip(body).crop(left, left + room)
        return Strip([head, *lane]).extend_cell_length(width).crop(0, width).apply_style(self.rich_style)

    def _scale(self) -> list[Segment]:
        """Seconds since the start, every so many cells."""
        cells, text, every = self._cells(), "", 14
        while len(text) < cells:
            text += f"|{(self._end - self._start) * len(text) / cells:.1f}s".ljust(every)
        return [Segment(text[:cells], Style(dim=True))]

    def _lane(self, node: NodeView) -> list[Segment]:
        cells = self._cells()
        drawn: list[tuple[str, Style | None]] = [(" ", None)] * cells
        for bar in sorted(node.bars, key=lambda b: b.kind == "wait"):
            letter, style = _look(bar)
            for at in range(*self._reach(bar.start, self._end if bar.end is None else bar.end, cells)):
                drawn[at] = (letter, style)
        for stretch in self._critical.get(node.name, ()):
            for at in range(*self._reach(stretch.start, stretch.end, cells)):
                letter, found = drawn[at]
                drawn[at] = (_CAPITALS.get(letter, letter.upper()), (found or Style()) + CRITICAL)
        return [Segment(letter, style) for letter, style in drawn]

    def _reach(self, start: float, end: float, cells: int) -> tuple[int, int]:
        """The cells from ``start`` to ``end``: one at least."""
        scale = cells / (self._end - self._start)
        first = min(cells - 1, max(0, int((start - self._start) * scale)))
        return first, min(cells, max(first + 1, int((end - self._start) * scale + 0.5)))


_CAPITALS = {" ": "=", ".": ":"}


def _look(bar: Bar) -> tuple[str, Style]:
    """A step is the first letter of its target, a wait a dot, Ansible at work a wave."""
    if bar.kind == "wait":
        return ".", WAIT
    if bar.kind == "burst":
        return "~", ANSIBLE
    target = bar.label.rsplit(".", 2)[-2]
    if bar.verdict in ("failed", "error", "timeout"):
        return target[:1], BAD
    return target[:1] or "?", TARGET_STYLES.get(target, Style(reverse=True))
