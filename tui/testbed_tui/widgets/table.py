"""A table of rows under keys that makes and draws only what is seen, and only where it is different."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.events import Click
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

SAMPLE = 300
"""How many rows are looked at for the widths of columns."""


class Cell(NamedTuple):
    """A cell's text and its style, as Rich names it."""

    text: str
    style: str = ""


class Row(NamedTuple):
    """A row under its own key."""

    key: str
    cells: tuple[Cell, ...]


Make = Callable[[str], tuple[Cell, ...]]
"""Gives the cells of the row of that key."""


class Table(ScrollView, can_focus=True):
    """Rows by key, one chosen by the cursor; the cursor stays on its row whatever happens around it."""

    COMPONENT_CLASSES = {"table--head", "table--cursor", "table--even"}
    DEFAULT_CSS = """
    Table { background: $surface; }
    Table > .table--head { background: $panel; text-style: bold; }
    Table > .table--even { background: $panel 35%; }
    Table > .table--cursor { background: $primary 45%; text-style: bold; }
    Table:focus > .table--cursor { background: $block-cursor-background; color: $block-cursor-foreground; }
    """
    BINDINGS = [
        ("up", "go(-1)", ""), ("down", "go(1)", ""), ("pageup", "page(-1)", ""), ("pagedown", "page(1)", ""),
        ("home", "go(-1000000000)", ""), ("end", "go(1000000000)", ""), ("enter", "select", ""),
    ]  # fmt: skip

    cursor: reactive[int] = reactive(0)

    class Moved(Message):
        """The cursor came to another row."""

    class Selected(Message):
        """Enter was pressed, or the row under the cursor clicked."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._headings: tuple[str, ...] = ()
        self._keys: Sequence[str] = ()
        self._make: Make = _nothing
        self._widths: list[int] = []
        self._told: Sequence[int] | None = None
        self._drawn: dict[str, tuple[Cell, ...]] = {}

    @property
    def row_count(self) -> int:
        """How many rows there are."""
        return len(self._keys)

    @property
    def chosen(self) -> str | None:
        """The key of the row under the cursor."""
        return self._keys[self.cursor] if self.cursor < len(self._keys) else None

    def cells_at(self, row: int) -> tuple[Cell, ...]:
        """The cells of a row, counted from 0."""
        return self._make(self._keys[row])

    def show(self, headings: Sequence[str], rows: Sequence[Row]) -> None:
        """Show these rows in this order under these headings."""
        cells = {row.key: row.cells for row in rows}
        self.show_lazily(headings, list(cells), cells.__getitem__)

    def show_lazily(
        self, headings: Sequence[str], keys: Sequence[str], make: Make, widths: Sequence[int] | None = None
    ) -> None:
        """The same for many rows: ``make`` gives a row's cells, and is asked for those that are seen only.

        ``widths`` in cells; without them a column is as wide as the widest of the first rows.
        """
        chosen = self.chosen
        same = tuple(headings) == self._headings and keys == self._keys
        self._headings, self._keys, self._make, self._told = tuple(headings), keys, make, widths
        if not same:
            self._follow(chosen)
        before = list(self._widths)
        self._measure()
        if not same or before != self._widths:
            self.virtual_size = Size(sum(self._widths) + 2 * len(self._widths), len(keys) + 1)
            self.refresh()
        else:
            self._refresh_changed()

    def choose(self, key: str) -> None:
        """Move the cursor to the row of that key, if there is one."""
        if key in self._keys:
            self.cursor = self._keys.index(key)

    def _follow(self, chosen: str | None) -> None:
        """Keep the cursor on its row."""
        if chosen is not None and chosen in self._keys:
            self.cursor = self._keys.index(chosen)
        else:
            self.cursor = min(self.cursor, max(0, len(self._keys) - 1))
            self.post_message(self.Moved())

    def _measure(self) -> None:
        if self._told is not None:
            self._widths = list(self._told)
            return
        widths = [cell_len(heading) for heading in self._headings]
        for key in [*self._keys[:SAMPLE], *(self._keys[n] for n in self._seen())]:
            for n, cell in enumerate(self._make(key)):
                widths[n] = max(widths[n], cell_len(cell.text))
        self._widths = widths

    def _seen(self) -> range:
        """The rows that are on the screen."""
        top = round(self.scroll_y)
        return range(top, min(len(self._keys), top + max(0, self.size.height - 1)))

    def _refresh_changed(self) -> None:
        top = round(self.scroll_y)
        for number in self._seen():
            key = self._keys[number]
            if self._drawn.get(key) != self._make(key):
                self.refresh(Region(0, number - top + 1, self.size.width, 1))

    def render_line(self, y: int) -> Strip:
        """Draw the headings, or a row."""
        left, top = self.scroll_offset
        width = self.size.width
        if y == 0:
            cells, base = tuple(Cell(h) for h in self._headings), self.get_component_rich_style("table--head")
        elif y - 1 + top < len(self._keys):
            number = y - 1 + top
            key = self._keys[number]
            self._drawn[key] = cells = self._make(key)
            if number == self.cursor:
                base = self.get_component_rich_style("table--cursor")
                cells = tuple(Cell(cell.text) for cell in cells)
            else:
                base = self.get_component_rich_style("table--even") if number % 2 else self.rich_style
        else:
            return Strip.blank(width, self.rich_style)
        segments = [
            Segment(f" {set_cell_size(cell.text, w)} ", Style.parse(cell.style) if cell.style else None)
            for cell, w in zip(cells, self._widths, strict=False)
        ]
        return Strip(segments).crop(left, left + width).extend_cell_length(width).apply_style(base)

    def watch_cursor(self) -> None:
        """Bring the row into view, and tell."""
        top, height = round(self.scroll_y), self.size.height - 1
        if height > 0 and not top <= self.cursor < top + height:
            self.scroll_to(y=self.cursor if self.cursor < top else self.cursor - height + 1, animate=False)
        self.refresh()
        self.post_message(self.Moved())

    def on_click(self, event: Click) -> None:
        """Go to the row that was clicked; one that is chosen already is selected."""
        row = event.y - 1 + round(self.scroll_y)
        if event.y == 0 or row >= len(self._keys):
            return
        if row == self.cursor:
            self.post_message(self.Selected())
        self.cursor = row

    def action_go(self, by: int) -> None:
        """Move the cursor."""
        self.cursor = min(max(0, self.cursor + by), max(0, len(self._keys) - 1))

    def action_page(self, by: int) -> None:
        """Move the cursor by a screen."""
        self.action_go(by * max(1, self.size.height - 2))

    def action_select(self) -> None:
        """Choose the row."""
        self.post_message(self.Selected())


def _nothing(_: str) -> tuple[Cell, ...]:
    return ()
