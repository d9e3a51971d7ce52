"""The run: nodes by targets, what each does and waits for, the first cause on top."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import Input, Static

from testbed import events as ev
from testbed.report.harmless import harmless_line
from testbed.report.text import span
from testbed_tui.screens.base import View
from testbed_tui.signs import RED, STYLES, look, style_of
from testbed_tui.views import NodeView, Picture
from testbed_tui.widgets.table import Cell, Table


class RunView(View):
    """Nodes and targets as a table; `narrow` terminals get a sign for each target, wide ones a word."""

    MODE = "run"
    BINDINGS = [
        ("a", "app.abort", "Abort"),
        ("f", "app.finalise", "Finalise"),
        ("c", "app.clean", "Clean"),
        ("s", "shell", "Shell"),
        ("enter", "log", "Log"),
        ("t", "trouble", "Trouble"),
        ("slash", "filter", "Filter"),
        ("escape", "unfilter", ""),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._trouble = False
        self._cells: dict[str, tuple[NodeView, tuple[Cell, ...]]] = {}
        self._layout: tuple[object, ...] = ()

    def body(self) -> ComposeResult:
        """Make the table and what stands around it."""
        yield Static(id="cause")
        yield Static(id="progress")
        yield Input(placeholder="nodes whose name, machine, state or work holds ...", classes="filter", id="filter")
        yield Table(id="nodes")
        yield Static(id="detail")

    def show(self, picture: Picture, now: float) -> None:
        """See `View`."""
        self._show_cause(picture)
        self.query_one("#progress", Static).update(progress_line(picture, self.size.width))
        layout = (self.wide, picture.targets)
        if layout != self._layout:
            self._layout, self._cells = layout, {}
        nodes = [n for n in picture.nodes if self._is_wanted(n)]
        wanted = {n.name: n for n in nodes}
        self.query_one(Table).show_lazily(
            self._headings(picture), list(wanted), lambda name: self._row(wanted[name], picture, now),
            self._widths(picture),
        )  # fmt: skip
        self._show_detail()

    def _headings(self, picture: Picture) -> list[str]:
        if self.wide:
            return ["node", "state", *picture.targets, "for", "machine", "doing"]
        return ["node", "state", "".join(t[0] for t in picture.targets), "for", "doing"]

    def _widths(self, picture: Picture) -> list[int]:
        """The columns' widths in cells; the last takes what is left."""
        name = max([4, *(len(n.name) for n in picture.nodes)])
        if self.wide:
            machine = max([7, *(len(n.machine) for n in picture.nodes)])
            widths = [min(name, 30), 12, *(max(len(t), 9) for t in picture.targets), 7, min(machine, 24)]
        else:
            widths = [min(name, 20), 11, max(3, len(picture.targets)), 7]
        room = self.size.width - sum(widths) - 2 * len(widths) - 4
        return [*widths, max(16, room)]

    def _row(self, node: NodeView, picture: Picture, now: float) -> tuple[Cell, ...]:
        """The node's cells; those of a node that did not change are made once, but for its time."""
        known = self._cells.get(node.name)
        if known is None or known[0] is not node:
            known = (node, self._make(node, picture))
            self._cells[node.name] = known
        cells = known[1]
        if node.since is None or node.results or picture.over:
            return cells
        at = 2 + (len(picture.targets) if self.wide else 1)
        return (*cells[:at], Cell(span(max(0.0, now - node.since)), "dim"), *cells[at + 1 :])

    def _make(self, node: NodeView, picture: Picture) -> tuple[Cell, ...]:
        sign = look(node.word).sign
        state = Cell(f"{sign} {node.word}", style_of(node.word))
        took = Cell(span(_took(node)) if node.bars else "", "dim")
        words = [node.cells.get(target, "") for target in picture.targets]
        if self.wide:
            targets = [Cell(f"{look(w).sign} {w}" if w else "", style_of(w)) for w in words]
            return (Cell(node.name), state, *targets, took, Cell(node.machine, "dim"), Cell(node.doing))
        signs = Cell("".join(look(w).sign for w in words), style_of(node.word))
        return Cell(node.name), state, signs, took, Cell(node.doing)

    def _is_wanted(self, node: NodeView) -> bool:
        needle = self.query_one("#filter", Input).value.strip().lower()
        if self._trouble and not node.trouble:
            return False
        return not needle or any(needle in t.lower() for t in (node.name, node.machine, node.word, node.doing))

    def _show_cause(self, picture: Picture) -> None:
        panel, cause = self.query_one("#cause", Static), picture.first_cause
        panel.set_class(cause is not None, "on")
        if cause is None:
            return
        text = Text(f"{look(cause.verdict).sign} First cause: ", "bold")
        text.append(harmless_line(cause.where, 120) or "the run", style_of(cause.verdict))
        text.append(f": {cause.verdict}\n{harmless_line(picture.cause_reason)}", "not bold")
        if cause.advice:
            text.append(f"\nhelp: {harmless_line(cause.advice)}", "not bold italic")
        panel.update(text)

    def _show_detail(self) -> None:
        chosen = self.query_one(Table).chosen
        node = self.owner.picture.node(chosen) if chosen else None
        if node is None:
            self.query_one("#detail", Static).update("")
            return
        text = Text(f"{node.name}", "bold")
        text.append(f" on {node.machine} {node.address}  {', '.join(node.configurations)}", "not bold dim")
        text.append(f"\n{look(node.word).sign} {node.word}", style_of(node.word))
        text.append(f"  {node.doing}")
        for wait in node.waits[:1]:
            who = f", from {', '.join(wait.who[:5])}" if wait.who else ""
            bound = f", {span(wait.timeout)} at most" if wait.timeout is not None else ""
            text.append(f"\nwaits for {wait.label}{who}{bound}", STYLES["wait"])
        self.query_one("#detail", Static).update(text)

    def on_table_moved(self) -> None:
        """Tell more of the node under the cursor."""
        self._show_detail()

    def on_table_selected(self) -> None:
        """Open the node's log."""
        self.action_log()

    def on_input_changed(self) -> None:
        """Filter while it is typed."""
        self.refresh_view()

    def on_input_submitted(self) -> None:
        """Back to the table, filtered."""
        self.query_one(Table).focus()

    def action_filter(self) -> None:
        """Ask what to filter for."""
        box = self.query_one("#filter", Input)
        box.add_class("on")
        box.focus()

    def action_unfilter(self) -> None:
        """Show all nodes again."""
        box = self.query_one("#filter", Input)
        box.value = ""
        box.remove_class("on")
        self._trouble = False
        self.query_one(Table).focus()
        self.refresh_view()

    def action_trouble(self) -> None:
        """Show those nodes only with which something is wrong, or all again."""
        self._trouble = not self._trouble
        self.refresh_view()

    def action_log(self) -> None:
        """Open the log of the node under the cursor."""
        self.owner.open_log(self.query_one(Table).chosen)

    def action_shell(self) -> None:
        """Open a shell on the machine of the node under the cursor."""
        self.owner.open_shell(self.query_one(Table).chosen)

    def chosen_node(self) -> str | None:
        """See `View`."""
        return self.query_one(Table).chosen


def _took(node: NodeView) -> float:
    return max((b.end or b.start) for b in node.bars) - min(b.start for b in node.bars)


def progress_line(picture: Picture, width: int) -> Text:
    """A bar of the steps done, and counts."""
    room = max(10, min(40, width - 50))
    share = min(1.0, picture.steps_done / picture.steps_planned) if picture.steps_planned else 0.0
    full = round(room * share)
    counts: dict[str, int] = {}
    for node in picture.nodes:
        counts[node.word] = counts.get(node.word, 0) + 1
    text = Text()
    text.append("█" * full, STYLES["good"] if picture.first_cause is None else RED)
    text.append("░" * (room - full), "dim")
    text.append(f" {picture.steps_done}/{picture.steps_planned} steps  ")
    for word, count in sorted(counts.items(), key=lambda c: -c[1]):
        text.append(f"{look(word).sign} {count} {word}  ", style_of(word))
    for name, flag in picture.flags.items():
        text.append(
            f" {name} by {harmless_line(flag.by, 40)}: {harmless_line(flag.why, 80)}",
            STYLES["warn"] if name == ev.ABORT else "dim",
        )
    return text
