"""The report: the verdict, what every target of every node came to, JUnit cases, files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import Static, TabbedContent, TabPane

from testbed import events as ev
from testbed.report.harmless import harmless_line
from testbed.report.state import RUNNING
from testbed.report.text import span
from testbed_tui.papers import cases_of, files_of
from testbed_tui.screens.base import View
from testbed_tui.signs import look, style_of
from testbed_tui.views import NodeView, Picture
from testbed_tui.widgets.table import Cell, Row, Table


class ReportView(View):
    """Three tables under a headline; Enter on a result opens its log at the line where it stopped."""

    MODE = "report"
    BINDINGS = [
        ("enter", "log", "Log"),
        ("v", "tab('results')", "Results"),
        ("j", "tab('cases')", "JUnit"),
        ("l", "tab('files')", "Files"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._read: tuple[str, int] = ("", -1)
        self._begun = ""
        self._over = False
        self._results: dict[str, tuple[NodeView, dict[str, Result]]] = {}

    def body(self) -> ComposeResult:
        """Make the headline and the tables."""
        yield Static(id="headline")
        with TabbedContent(id="parts", initial="results"):
            with TabPane("Results", id="results"):
                yield Table(id="resulttable")
            with TabPane("JUnit", id="cases"):
                yield Table(id="casetable")
            with TabPane("Files", id="files"):
                yield Table(id="filetable")

    def show(self, picture: Picture, now: float) -> None:  # noqa: ARG002  a report knows no time
        """See `View`."""
        self.query_one("#headline", Static).update(_headline(picture))
        if self.query_one("#parts", TabbedContent).active == "results":
            self._show_results(picture)
        else:
            self._show_papers(picture)

    def _show_results(self, picture: Picture) -> None:
        """A row for each result: looked through anew for nodes that have changed, made where they are seen."""
        if picture.over != self._over:
            self._over, self._results = picture.over, {}
        nodes = {}
        for node in picture.nodes:
            known = self._results.get(node.name)
            if known is None or known[0] is not node:
                known = (node, _results(node, picture))
            nodes[node.name] = known
        self._results = nodes
        keys = [key for _, found in nodes.values() for key in found]
        heads = ("node", "target", "configuration", "verdict", "exit", "took", "reason")
        self.query_one("#resulttable", Table).show_lazily(
            heads, keys, lambda key: _cells(key, nodes[key.partition("/")[0]][1][key])
        )
        self._begin_at_cause(picture, keys)

    def _begin_at_cause(self, picture: Picture, keys: Sequence[str]) -> None:
        """Put the cursor on the first cause, once for each run that is over."""
        cause = picture.first_cause
        if not picture.over or self._begun == picture.run or cause is None:
            return
        self._begun = picture.run
        place = f"{cause.node}/{cause.target}/{cause.configuration}/"
        found = next((key for key in keys if key.startswith(place)), None)
        if found is not None:
            self.query_one("#resulttable", Table).choose(found)

    def _show_papers(self, picture: Picture) -> None:
        """What lies in the run's directory; read when the run has moved on since it was read last."""
        attachment = self.owner.attachment
        if attachment is None:
            return
        if attachment.directory is None:
            lies = [Row("-", (Cell(f"in the directory of {attachment.run}, on its controller's machine"),))]
            self.query_one("#casetable", Table).show(("JUnit cases",), lies)
            self.query_one("#filetable", Table).show(("files",), lies)
            return
        mark = (attachment.run, picture.events)
        if mark == self._read:
            return
        self._read = mark
        cases = [
            Row(
                str(n),
                (
                    Cell(c.suite), Cell(c.name), Cell(f"{look(c.verdict).sign} {c.verdict}", style_of(c.verdict)),
                    Cell(span(c.seconds), "dim"), Cell(c.message),
                ),
            )
            for n, c in enumerate(cases_of(attachment.directory))
        ]  # fmt: skip
        self.query_one("#casetable", Table).show(("suite", "case", "result", "took", "message"), cases)
        files = [Row(f.name, (Cell(f.name), Cell(f"{f.size:,}", "dim"))) for f in files_of(attachment.directory)]
        self.query_one("#filetable", Table).show((f"file in {attachment.directory.path}", "bytes"), files)

    def on_table_selected(self) -> None:
        """Open what the row tells of."""
        self.action_log()

    def on_tabbed_content_tab_activated(self) -> None:
        """Bring what is seen now up to date."""
        self.refresh_view()

    def action_tab(self, name: str) -> None:
        """Show another tab."""
        self.query_one("#parts", TabbedContent).active = name
        self.query_one({"results": "#resulttable", "cases": "#casetable", "files": "#filetable"}[name]).focus()

    def action_log(self) -> None:
        """Open the log of the result under the cursor, where it stopped."""
        if self.query_one("#parts", TabbedContent).active != "results":
            return
        chosen = self.query_one("#resulttable", Table).chosen
        if chosen is None:
            return
        name, target, configuration, step = chosen.split("/")
        self.owner.open_log(name, f"{configuration}.{target}.{step or 'main'}" if target else "", at_failure=True)


def _headline(picture: Picture) -> Text:
    """The verdict, the first cause, and what it induced."""
    if not picture.events:
        return Text("no events yet")
    word = picture.verdict or "not over yet"
    text = Text()
    text.append(f"{look(picture.verdict).sign} {word.upper()}", f"bold {style_of(picture.verdict)}")
    if picture.duration is not None:
        text.append(f"  in {span(picture.duration)}, exit code {picture.exit_code}")
    judgement = picture.judgement
    cause = picture.first_cause
    if cause is None or judgement is None:
        return text
    text.append(f"\nFirst cause: {harmless_line(cause.where, 120) or 'the run'}: ", "bold")
    text.append(cause.verdict, style_of(cause.verdict))
    if picture.cause_reason:
        text.append(f"\n  {harmless_line(picture.cause_reason)}")
    if cause.advice:
        text.append(f"\n  help: {harmless_line(cause.advice)}", "italic")
    for title, causes in (("also wrong", judgement.further), ("induced by it", judgement.induced)):
        if causes:
            told = ", ".join(harmless_line(c.where, 60) or "the run" for c in causes[:4])
            text.append(f"\n{title}: {told}{' ...' if len(causes) > 4 else ''}", "dim")
    return text


class Result(NamedTuple):
    """What a target, a step of it, or a node came to."""

    verdict: str
    code: int | None
    took: float | None
    reason: str


def _results(node: NodeView, picture: Picture) -> dict[str, Result]:
    """By ``node/target/configuration/step``: from the judgement once the run is over, before that from its steps."""
    judged = picture.judgement.nodes.get(node.name) if picture.judgement is not None and picture.over else None
    if judged is None:
        return {
            f"{node.name}/{s.key.target}/{s.key.configuration}/{s.key.step}": Result(
                s.verdict or RUNNING, s.exit_code, s.duration if s.verdict else None, s.reason
            )
            for s in node.steps
        }
    found = {
        f"{node.name}/{t.target}/{t.configuration}/{t.step}": Result(t.verdict, t.exit_code, t.duration, t.reason)
        for t in judged.targets
    }
    if judged.verdict not in (ev.PASSED, ev.SKIPPED, *(t.verdict for t in judged.targets)):
        found[f"{node.name}///"] = Result(judged.verdict, None, None, judged.reason)
    return found


def _cells(key: str, result: Result) -> tuple[Cell, ...]:
    node, target, configuration, _ = key.split("/")
    sign, style = look(result.verdict).sign, style_of(result.verdict)
    return (
        Cell(node), Cell(target), Cell(configuration), Cell(f"{sign} {result.verdict}", style),
        Cell("" if result.code is None else str(result.code), "dim"),
        Cell(span(result.took) if result.took is not None else "", "dim"), Cell(harmless_line(result.reason)),
    )  # fmt: skip
