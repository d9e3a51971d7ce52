"""``testbed status``: where a run and its nodes are."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from testbed.cli.reading import Reading
    from testbed.report.state import NodeState


@click.command()
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON (the report's shape).")
def command(run: str, as_json: bool) -> None:
    """Show where a run and its nodes are.

    Reads the run's events only: it works while the run goes on, afterwards, and when its controller is gone.
    """
    from testbed.cli.reading import read
    from testbed.report.data import document, dump

    reading = read(run)
    if as_json:
        click.echo(dump(document(reading.state, reading.judgement, over=reading.over)), nl=False)
    else:
        click.echo(_text(reading), nl=False)


def _text(reading: Reading) -> str:
    from testbed.cli.terminal import colourful
    from testbed.report.harmless import harmless_line
    from testbed.report.text import paint, span

    state, colour = reading.state, colourful(sys.stdout)
    if reading.over:
        headline = f"{paint(reading.judgement.verdict, reading.judgement.verdict, colour)}, took {span(state.duration)}"
    else:
        quiet = f", last event {span(max(0.0, time.time() - state.last_at))} ago" if state.last_at else ""
        headline = f"not ended{quiet}"
    lines = [f"{harmless_line(state.run)}: {headline}"]
    lines += [
        f"{name} raised by {harmless_line(flag.by) or 'somebody'}: {harmless_line(flag.why)}"
        for name, flag in state.flags.items()
    ]
    if state.nodes:
        rows = [("NODE", "MACHINE", "STATE", "AT")]
        rows += [
            (harmless_line(n.name, 63), harmless_line(n.machine, 63) or "-", _word(n, reading), _at(n, reading))
            for n in state.in_order
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines.append("")
        for row in rows:
            cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            cells[2] = paint(row[2], cells[2], colour and row[2] in ("passed", "failed", "lost", "error", "missing"))
            lines.append("  ".join((*cells, row[3])).rstrip())
    return "\n".join(lines) + "\n"


def _word(node: NodeState, reading: Reading) -> str:
    return reading.judgement.nodes[node.name].verdict if reading.over else node.verdict or node.state


def _at(node: NodeState, reading: Reading) -> str:
    """What the node is at, since when, or why it ended so."""
    from testbed.report.harmless import harmless_line
    from testbed.report.text import span

    if reading.over or node.verdict or node.lost:
        return harmless_line(reading.judgement.nodes[node.name].reason if reading.over else node.reason or node.lost)
    if node.failure is not None:
        return harmless_line(node.failure.reason)
    words = [str(node.current.key)] if node.current else []
    words += [f"waits for {wait.what} {' '.join(wait.names)}" for wait in node.waits.values()]
    if node.wants is not None:
        words.append("waits for ansible")
    since = node.since
    if words and since is not None and reading.state.last_at is not None:
        words.append(f"(for {span(max(0.0, time.time() - since))})")
    return harmless_line(" ".join(words))
