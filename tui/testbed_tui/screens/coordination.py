"""How the nodes coordinate: values, barriers, who waits for whom, and the timeline."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Static, TabbedContent, TabPane

from testbed.report.text import span
from testbed_tui.flow import critical_path, wait_graph
from testbed_tui.screens.base import View
from testbed_tui.signs import STYLES
from testbed_tui.views import NodeView, Picture
from testbed_tui.widgets.gantt import Gantt
from testbed_tui.widgets.table import Cell, Row, Table

LEGEND = "a letter: a step's target  .: a wait  ~: Ansible  CAPITALS : =: critical path"


class CoordinationView(View):
    """Four tabs; only the one that is seen is kept up to date."""

    MODE = "coordination"
    BINDINGS = [
        ("t", "tab('time')", "Timeline"),
        ("w", "tab('waits')", "Waits"),
        ("k", "tab('keys')", "Keys"),
        ("b", "tab('barriers')", "Barriers"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._node = ""

    def body(self) -> ComposeResult:
        """Make the tabs."""
        with TabbedContent(id="parts", initial="time"):
            with TabPane("Timeline", id="time"):
                yield Static(LEGEND, id="legend")
                yield Gantt(id="timeline")
                yield Table(id="releases")
            with TabPane("Waits", id="waits"):
                yield Table(id="waittable")
            with TabPane("Keys", id="keys"):
                yield Table(id="keytable")
            with TabPane("Barriers", id="barriers"):
                yield Table(id="barriertable")

    def show(self, picture: Picture, now: float) -> None:
        """See `View`."""
        match self.query_one("#parts", TabbedContent).active:
            case "time":
                self._show_time(picture, now)
            case "waits":
                self._show_waits(picture, now)
            case "keys":
                self._show_keys(picture)
            case "barriers":
                self._show_barriers(picture)

    def _show_time(self, picture: Picture, now: float) -> None:
        if picture.started_at is None:
            return
        end = picture.ended_at or max(now, picture.last_at or 0.0)
        path = critical_path(picture.nodes, picture.releases, end)
        ansible = NodeView("(ansible)", bars=picture.bursts)
        self.query_one(Gantt).show((ansible, *picture.nodes), path, picture.started_at, end)
        on_path = {(round(s.end, 6), s.node) for s in path}
        chosen, began = self._node, picture.started_at
        keys = [
            str(number)
            for number, r in enumerate(picture.releases)
            if r.by != r.waiter and (not chosen or chosen in (r.waiter, r.by))
        ]

        def make(key: str) -> tuple[Cell, ...]:
            release = picture.releases[int(key)]
            critical = bool(release.by) and (round(release.at, 6), release.by) in on_path
            style = "bold" if critical else ""
            return (
                Cell(f"{release.at - began:.2f}s", "dim"), Cell("*" if critical else "", "bold"),
                Cell(release.by or "nobody known", style), Cell(release.waiter, style), Cell(release.label),
                Cell(span(max(0.0, release.at - release.since)), "dim"),
            )  # fmt: skip

        heads = ("at", "path", "who", "released", "that waited for", "waited")
        self.query_one("#releases", Table).show_lazily(heads, keys, make)

    def _show_waits(self, picture: Picture, now: float) -> None:
        rows = []
        for number, edge in enumerate(wait_graph(picture)):
            who = " or ".join(edge.who[:8]) or "anybody"
            if edge.cycle:
                who = "↻ " + " → ".join(edge.cycle)
            left = span(edge.since + edge.timeout - now) if edge.timeout is not None else "no limit"
            waited = Cell(span(max(0.0, now - edge.since)))
            style = STYLES["bad"] if edge.cycle else ""
            cells = (Cell(edge.waiter, style), Cell("→", "dim"), Cell(edge.label), Cell(who, style), waited, Cell(left))
            rows.append(Row(f"{edge.waiter}/{number}", cells))
        if not rows:
            rows = [Row("-", (Cell("nobody waits"), *([Cell("")] * 5)))]
        self.query_one("#waittable", Table).show(("node", "", "waits for", "who could bring it", "for", "left"), rows)

    def _show_keys(self, picture: Picture) -> None:
        rows = [
            Row(
                key,
                (
                    Cell(key[:60]), Cell(value.text if value.revision else "(only while the run lives)",
                                         "" if value.revision else "dim"),
                    Cell(str(value.size), "dim"), Cell(value.by or "-"), Cell(str(value.changes), "dim"),
                    Cell(f"{value.at - picture.started_at:.1f}s" if value.at and picture.started_at else "", "dim"),
                ),
            )
            for key, value in sorted(picture.values.items(), key=lambda kv: (-kv[1].revision, kv[0]))
        ]  # fmt: skip
        self.query_one("#keytable", Table).show(("key", "value", "bytes", "set by", "changes", "at"), rows)

    def _show_barriers(self, picture: Picture) -> None:
        rows = []
        for barrier in reversed(picture.barriers):
            state = Cell("✓ open", STYLES["good"]) if barrier.open else Cell("… waiting", STYLES["wait"])
            counts = f"{len(barrier.arrived)}/{len(barrier.arrived) + len(barrier.missing)}"
            rows.append(
                Row(
                    f"{barrier.name}/{barrier.generation}",
                    (
                        Cell(barrier.name), Cell(str(barrier.generation), "dim"), state, Cell(counts),
                        Cell(_names(barrier.arrived)), Cell(_names(barrier.missing), STYLES["wait"]),
                    ),
                )
            )  # fmt: skip
        if not rows:
            rows = [Row("-", (Cell("no barrier was used"), *([Cell("")] * 5)))]
        self.query_one("#barriertable", Table).show(("barrier", "use", "state", "here", "arrived", "missing"), rows)

    def on_gantt_moved(self, event: Gantt.Moved) -> None:
        """Show the releases of that node."""
        self._node = event.node if self.owner.picture.node(event.node) is not None else ""
        self.refresh_view()

    def on_tabbed_content_tab_activated(self) -> None:
        """Bring what is seen now up to date."""
        self.refresh_view()

    def action_tab(self, name: str) -> None:
        """Show another tab."""
        self.query_one("#parts", TabbedContent).active = name
        focus = {"time": "#timeline", "waits": "#waittable", "keys": "#keytable", "barriers": "#barriertable"}[name]
        self.query_one(focus).focus()


def _names(names: tuple[str, ...], most: int = 6) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
