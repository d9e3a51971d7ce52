"""The report for a person: verdict, first cause with the end of its log, what it induced, and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from testbed import events as ev
from testbed.report.files import step_tail
from testbed.report.harmless import harmless, harmless_line
from testbed.report.state import BAD, Cause, RunState
from testbed.report.verdict import Judgement, NodeJudgement

ROWS = 40
"""The largest table; of more nodes those that passed are counted only."""

_COLOURS = {ev.PASSED: "32", ev.SKIPPED: "2", ev.ABORTED: "33", ev.CANCELLED: "33"}


class Place(Protocol):
    """A run's directory: where everything lies, and within it what came home, a directory per node."""

    @property
    def path(self) -> Path:
        """Everything of the run."""

    @property
    def nodes(self) -> Path:
        """What came home."""


def report_text(state: RunState, judgement: Judgement, place: Place, colour: bool = False) -> str:
    """The final report of the run in ``place``, with the end of the log of the step that failed."""
    first, tail = judgement.first_cause, ""
    if first is not None and first.step:
        tail = step_tail(place.nodes, first.node, (first.configuration, first.target, first.step))
    return render(state, judgement, str(place.path), tail, colour)


def render(state: RunState, judgement: Judgement, directory: str, tail: str = "", colour: bool = False) -> str:
    """The final report, with a line end.

    ``directory`` is where the run's files lie, ``tail`` the last lines of the first cause's log as they came.
    """
    parts = [_headline(state, judgement, colour)]
    if judgement.first_cause is not None:
        parts.append(_first(judgement.first_cause, tail, colour))
    parts.extend(
        _others(title, causes)
        for title, causes in (("Also wrong", judgement.further), ("What it induced", judgement.induced))
        if causes
    )
    if judgement.nodes:
        parts.append(table(judgement.nodes, colour))
    left = _left_behind(state)
    if left:
        parts.append(left)
    warnings = [n for n in state.notices if n.level == "warning"]
    if warnings:
        parts.append("\n".join(f"warning: {harmless_line(n.message)}" for n in warnings[:10]))
    parts.append(f"Everything is in {directory}")
    return "\n\n".join(parts) + "\n"


def paint(verdict: str, text: str, colour: bool) -> str:
    """The text in the colour of the verdict, where colour is wanted."""
    return f"\x1b[{_COLOURS.get(verdict, '31')}m{text}\x1b[0m" if colour else text


def table(nodes: Mapping[str, NodeJudgement], colour: bool) -> str:
    """A row per node, a column per target; a cell is the worst verdict of its configurations."""
    shown = {n: j for n, j in nodes.items() if len(nodes) <= ROWS or j.verdict != ev.PASSED}
    hidden = len(nodes) - len(shown)
    more = max(0, len(shown) - ROWS)
    shown = dict(list(shown.items())[:ROWS])
    present = {t.target for j in shown.values() for t in j.targets}
    targets = [t for t in ev.STAGES if t in present]
    rows = [["node", "verdict", *targets]]
    rows.extend([harmless_line(n, 63), j.verdict, *(_worst(j, t) for t in targets)] for n, j in shown.items())
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(rows[0], widths, strict=True)).rstrip()]
    for row in rows[1:]:
        cells = [cell.ljust(w) for cell, w in zip(row, widths, strict=True)]
        painted = [cells[0], *(paint(word, cell, colour) for word, cell in zip(row[1:], cells[1:], strict=True))]
        lines.append("  ".join(painted).rstrip())
    if more:
        lines.append(f"... and {more} more that did not pass")
    if hidden:
        lines.append(f"... and {hidden} that passed")
    return "\n".join(lines)


def span(seconds: float | None) -> str:
    """A duration for a person: 0.3s, 12.0s, 3m05s, 2h10m; a dash where it is not known."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def _worst(judged: NodeJudgement, target: str) -> str:
    verdicts = [t.verdict for t in judged.targets if t.target == target]
    bad = [v for v in verdicts if v in BAD]
    if bad:
        return bad[0]
    return ev.PASSED if ev.PASSED in verdicts else (ev.SKIPPED if verdicts else "")


def _headline(state: RunState, judgement: Judgement, colour: bool) -> str:
    counts: dict[str, int] = {}
    for judged in judgement.nodes.values():
        counts[judged.verdict] = counts.get(judged.verdict, 0) + 1
    nodes = ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) or "none"
    word = paint(judgement.verdict, judgement.verdict.upper(), colour)
    took = f" in {span(state.duration)}" if state.duration is not None else ""
    return f"{word}  {harmless_line(state.run or state.deployment)}{took}  (nodes: {nodes})"


def _first(cause: Cause, tail: str, colour: bool) -> str:
    where = f"{_where(cause)}: " if cause.where else ""
    lines = [f"First cause: {where}{paint(cause.verdict, cause.verdict, colour)}"]
    if cause.reason:
        lines.append(f"  {harmless_line(cause.reason)}")
    lines.extend(f"    {harmless_line(line)}" for line in cause.lines[:20])
    if cause.advice:
        lines.append(f"  help: {harmless_line(cause.advice, 600)}")
    shown = harmless(tail).rstrip("\n")
    if shown:
        lines.append("  the end of its log:")
        lines.extend(f"    | {line[:400]}" for line in shown.splitlines())
    return "\n".join(lines)


def _where(cause: Cause) -> str:
    """The node and step, and the machine where the reason does not name it: that of a node that fell silent."""
    silent = cause.kind == "lost" and cause.machine not in ("", cause.node)
    return harmless_line(f"{cause.where} on {cause.machine}" if silent else cause.where)


def _others(title: str, causes: Sequence[Cause], most: int = 10) -> str:
    lines = [f"{title}:"]
    for cause in causes[:most]:
        reason = f": {harmless_line(cause.reason, 160)}" if cause.reason else ""
        lines.append(f"  {_where(cause) or 'the run'}: {cause.verdict}{reason}")
    if len(causes) > most:
        lines.append(f"  ... and {len(causes) - most} more")
    return "\n".join(lines)


def _left_behind(state: RunState, most: int = 10) -> str:
    left = []
    for node in state.in_order:
        for process in node.stopped:
            told = process if isinstance(process, dict) else {}
            command, pid = (harmless_line(str(told.get(key, "?")), 120) for key in ("command", "pid"))
            left.append(f"  {harmless_line(node.name)}: {command} (pid {pid})")
    if not left:
        return ""
    rest = [f"  ... and {len(left) - most} more"] if len(left) > most else []
    return "\n".join(["Stopped at the end, left in the background by steps:", *left[:most], *rest])
