"""A table that is told what to show and changes only what is different."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rich.cells import cell_len
from rich.text import Text
from textual.widgets import DataTable
from textual.widgets.data_table import RowDoesNotExist


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


CHUNK = 200
"""How many rows are added at once, so that keys are answered meanwhile."""


def _nothing(_: str) -> tuple[Cell, ...]:
    return ()


class Table(DataTable[Text]):
    """Rows by key, one chosen by the cursor; the cursor stays on its row whatever happens around it."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, cursor_type="row", zebra_stripes=True)
        self._headings: tuple[str, ...] = ()
        self._shown: dict[str, tuple[Cell, ...]] = {}
        self._widths: tuple[int, ...] | None = None
        self._wanted: Sequence[str] = ()
        self._make: Make = _nothing

    @property
    def chosen(self) -> str | None:
        """The key of the row under the cursor."""
        if not self._shown or not self.is_valid_row_index(self.cursor_row):
            return None
        return self.coordinate_to_cell_key(self.cursor_coordinate).row_key.value

    def show(self, headings: Sequence[str], rows: Sequence[Row]) -> None:
        """Show these rows in this order under these headings."""
        cells = {row.key: row.cells for row in rows}
        self.show_lazily(headings, list(cells), cells.__getitem__)

    def show_lazily(
        self, headings: Sequence[str], keys: Sequence[str], make: Make, widths: Sequence[int] | None = None
    ) -> None:
        """The same for many rows: ``make`` gives a row's cells, and is asked for those that are seen only.

        With ``widths``, in cells, a column is as wide as told; else as wide as what was seen in it, which takes a look
        at all rows whenever something wider comes.
        """
        self._make = make
        if widths is not None and tuple(widths) != self._widths:
            self._widths, self._headings = tuple(widths), ()
        before = list(self._shown)
        if tuple(headings) != self._headings or before != list(keys[: len(before)]):
            self._rebuild(tuple(headings), keys)
        self._wanted = keys
        self._grow(keys)

    def _grow(self, keys: Sequence[str]) -> None:
        """Add rows that are still missing: some now, the others when the screen had its turn."""
        if keys is not self._wanted:
            return
        have = len(self._shown)
        self._append(keys[have : have + CHUNK])
        self._draw()
        if have + CHUNK < len(keys):
            self.call_after_refresh(self._grow, keys)

    def choose(self, key: str) -> None:
        """Move the cursor to the row of that key, if there is one."""
        try:
            self.move_cursor(row=self.get_row_index(key))
        except RowDoesNotExist:
            return

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        """Bring what is seen now up to date."""
        super().watch_scroll_y(old_value, new_value)
        if round(old_value) != round(new_value):
            self._draw()

    def on_resize(self) -> None:
        """Bring what is seen now up to date."""
        self._draw()

    def _rebuild(self, headings: tuple[str, ...], keys: Sequence[str]) -> None:
        chosen, offset = self.chosen, self.scroll_offset
        self.clear(columns=headings != self._headings)
        self._shown = {}
        if headings != self._headings:
            self._headings = headings
            for number, heading in enumerate(headings):
                self.add_column(heading, key=str(number), width=self._widths[number] if self._widths else None)
        self._append(keys if chosen in keys or offset.y else keys[:CHUNK])
        if chosen in self._shown:
            self.move_cursor(row=self.get_row_index(chosen), scroll=False)
            self.scroll_to(offset.x, offset.y, animate=False)

    def _append(self, keys: Sequence[str]) -> None:
        empty = (Cell(""),) * len(self._headings)
        blank = [Text() for _ in empty]
        for key in keys:
            self.add_row(*blank, key=key)
            self._shown[key] = empty

    def _draw(self) -> None:
        """Change those cells that are seen and are not as they should be."""
        top, keys = max(0, round(self.scroll_y) - 1), list(self._shown)
        for index in range(top, min(self.row_count, top + max(self.size.height, 1) + 2)):
            self._update(keys[index])

    def _update(self, key: str) -> None:
        before, now = self._shown[key], self._make(key)
        if before == now:
            return
        for number, (old, new) in enumerate(zip(before, now, strict=True)):
            if old != new:
                wider = self._widths is None and cell_len(new.text) > self.ordered_columns[number].content_width
                self.update_cell(key, str(number), Text(new.text, new.style, no_wrap=True), update_width=wider)
        self._shown[key] = now
