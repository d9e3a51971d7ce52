"""A table that is told what to show and changes only what is different."""

from __future__ import annotations

from collections.abc import Sequence
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


class Table(DataTable[Text]):
    """Rows by key, one chosen by the cursor; the cursor stays on its row whatever happens around it."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id, cursor_type="row", zebra_stripes=True)
        self._headings: tuple[str, ...] = ()
        self._shown: dict[str, tuple[Cell, ...]] = {}

    @property
    def chosen(self) -> str | None:
        """The key of the row under the cursor."""
        if not self._shown or not self.is_valid_row_index(self.cursor_row):
            return None
        return self.coordinate_to_cell_key(self.cursor_coordinate).row_key.value

    def show(self, headings: Sequence[str], rows: Sequence[Row]) -> None:
        """Show these rows in this order under these headings."""
        if tuple(headings) != self._headings:
            self._rebuild(tuple(headings), rows)
        elif list(self._shown) != [row.key for row in rows]:
            kept = len(self._shown)
            if list(self._shown) == [row.key for row in rows[:kept]]:
                self._update(rows[:kept])
                self._append(rows[kept:])
            else:
                self._rebuild(self._headings, rows)
        else:
            self._update(rows)

    def choose(self, key: str) -> None:
        """Move the cursor to the row of that key, if there is one."""
        try:
            self.move_cursor(row=self.get_row_index(key))
        except RowDoesNotExist:
            return

    def _rebuild(self, headings: tuple[str, ...], rows: Sequence[Row]) -> None:
        chosen, offset = self.chosen, self.scroll_offset
        self.clear(columns=headings != self._headings)
        self._shown = {}
        if headings != self._headings:
            self._headings = headings
            for number, heading in enumerate(headings):
                self.add_column(heading, key=str(number))
        self._append(rows)
        if chosen in self._shown:
            self.move_cursor(row=self.get_row_index(chosen), scroll=False)
            self.scroll_to(offset.x, offset.y, animate=False)

    def _append(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self.add_row(*(Text(cell.text, cell.style, no_wrap=True) for cell in row.cells), key=row.key)
            self._shown[row.key] = row.cells

    def _update(self, rows: Sequence[Row]) -> None:
        for row in rows:
            before = self._shown[row.key]
            if before is row.cells or before == row.cells:
                continue
            for number, (old, new) in enumerate(zip(before, row.cells, strict=True)):
                if old != new:
                    wider = cell_len(new.text) > self.ordered_columns[number].content_width
                    self.update_cell(row.key, str(number), Text(new.text, new.style, no_wrap=True), update_width=wider)
            self._shown[row.key] = row.cells
