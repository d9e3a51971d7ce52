"""All runs of this machine, and the way to start one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import Input, Static

from testbed.report.text import span
from testbed_tui.fleet import LIVE, RunRow
from testbed_tui.screens.base import View
from testbed_tui.signs import look, style_of
from testbed_tui.views import Picture
from testbed_tui.widgets.table import Cell, Row, Table

ORDERS = ("newest", "verdict", "deployment", "longest")


class RunsView(View):
    """Runs, live and past: filtered, sorted, opened."""

    MODE = "runs"
    BINDINGS = [
        ("enter", "open", "Open"),
        ("n", "app.start", "New run"),
        ("c", "clean", "Clean"),
        ("s", "sort", "Sort"),
        ("slash", "filter", "Filter"),
        ("r", "app.reread", "Reread"),
        ("escape", "unfilter", ""),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._order = 0

    def body(self) -> ComposeResult:
        """Make the table."""
        yield Input(placeholder="runs whose name, verdict or owner holds ...", classes="filter", id="filter")
        yield Table(id="runs")
        yield Static(id="detail")

    def show(self, picture: Picture, now: float) -> None:  # noqa: ARG002  all runs, not the one
        """See `View`."""
        needle = self.query_one("#filter", Input).value.strip().lower()
        runs = [r for r in self.owner.runs if not needle or any(needle in t for t in (r.run, r.word, r.who))]
        heads = ["run", "verdict", "nodes", "took", "age"]
        if self.wide:
            heads = ["run", "verdict", "nodes", "progress", "took", "age", "who", "deployment"]
        rows = [Row(r.run, self._cells(r)) for r in sorted(runs, key=self._rank())]
        self.query_one(Table).show(heads, rows)
        detail = f"{len(runs)} of {len(self.owner.runs)} runs, {ORDERS[self._order]} first"
        if not self.owner.runs:
            detail = "no runs of this machine yet: press n to start one"
        attachment = self.owner.attachment
        if attachment is not None and attachment.directory is None:
            detail += f"\nlooked at is {attachment.run}, a run of another machine (2)"
        self.query_one("#detail", Static).update(Text(detail))

    def _cells(self, run: RunRow) -> tuple[Cell, ...]:
        now = self.owner.clock()
        age = span(max(0.0, now - run.started_at)) if run.started_at else "-"
        took = run.duration if run.duration is not None or run.word != LIVE else now - (run.started_at or now)
        verdict = Cell(f"{look(run.word).sign} {run.word}", style_of(run.word))
        if not self.wide:
            return Cell(run.run), verdict, Cell(str(run.nodes)), Cell(span(took)), Cell(age, "dim")
        trouble = f", {run.trouble} in trouble" if run.trouble else ""
        return (
            Cell(run.run), verdict, Cell(str(run.nodes)), Cell(f"{run.ended}/{run.nodes} ended{trouble}"),
            Cell(span(took)), Cell(age, "dim"), Cell(run.who, "dim"), Cell(run.deployment, "dim"),
        )  # fmt: skip

    def _rank(self) -> Callable[[RunRow], Any]:
        ranks: dict[str, Callable[[RunRow], Any]] = {
            "newest": lambda r: -(r.started_at or 0.0),
            "verdict": lambda r: (r.word == "passed", r.word, -(r.started_at or 0.0)),
            "deployment": lambda r: (r.deployment, -(r.started_at or 0.0)),
            "longest": lambda r: -(r.duration or 0.0),
        }
        return ranks[ORDERS[self._order]]

    def on_table_selected(self) -> None:
        """Open the run."""
        self.action_open()

    def on_input_changed(self) -> None:
        """Filter while it is typed."""
        self.refresh_view()

    def on_input_submitted(self) -> None:
        """Back to the table, filtered."""
        self.query_one(Table).focus()

    def action_open(self) -> None:
        """Look at the run under the cursor."""
        chosen = self.query_one(Table).chosen
        if chosen is not None:
            self.owner.open_run(chosen)

    def action_clean(self) -> None:
        """Clean up after the run under the cursor."""
        chosen = self.query_one(Table).chosen
        if chosen is not None:
            self.owner.ask_clean(chosen)

    def copy_command(self) -> None:
        """See `View`."""
        chosen = self.query_one(Table).chosen
        if chosen is not None:
            self.owner.copy_command(None, chosen)

    def action_sort(self) -> None:
        """Sort by something else."""
        self._order = (self._order + 1) % len(ORDERS)
        self.refresh_view()

    def action_filter(self) -> None:
        """Ask what to filter for."""
        box = self.query_one("#filter", Input)
        box.add_class("on")
        box.focus()

    def action_unfilter(self) -> None:
        """Show all runs again."""
        box = self.query_one("#filter", Input)
        box.value = ""
        box.remove_class("on")
        self.query_one(Table).focus()
        self.refresh_view()
