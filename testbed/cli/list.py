"""``testbed list``: the runs on this machine."""

from __future__ import annotations

import json
import sys
from typing import Any

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the list as JSON.")
def command(as_json: bool) -> None:
    """List the runs on this machine, oldest first."""
    from testbed.report.data import dump
    from testbed.run.directory import registered

    rows = [_row(directory) for directory in registered()]
    if as_json:
        click.echo(dump(rows), nl=False)
        return
    if not rows:
        click.echo("no runs yet: testbed run SPEC", err=True)
        return
    _print_table(rows)


def _row(directory: Any) -> dict[str, Any]:
    """What the list says of a run: from its report where that is written, else from its events."""
    from testbed.cli.reading import read_directory
    from testbed.report.data import document

    try:
        report = json.loads(directory.report_json.read_text("utf-8"))
    except (FileNotFoundError, ValueError):
        reading = read_directory(directory)
        report = document(reading.state, reading.judgement, over=reading.over)
    keys = ("deployment", "verdict", "started_at", "duration")
    return {
        "run": directory.run,
        **{key: report.get(key) for key in keys},
        "nodes": len(report.get("nodes", ())),
        "directory": str(directory.path),
    }


def _print_table(rows: list[dict[str, Any]]) -> None:
    from datetime import datetime

    from testbed.cli.terminal import colourful
    from testbed.report.harmless import harmless_line
    from testbed.report.text import paint, span

    colour = colourful(sys.stdout)
    width = max(len(row["run"]) for row in rows)
    click.echo(f"{'RUN':{width}}  {'STARTED':16}  {'TOOK':>7}  {'NODES':>5}  VERDICT")
    for row in rows:
        began = row["started_at"]
        started = f"{datetime.fromtimestamp(began):%Y-%m-%d %H:%M}" if began else "-"
        verdict = row["verdict"] or "-"
        click.echo(
            f"{harmless_line(row['run']):{width}}  {started:16}  {span(row['duration']):>7}  {row['nodes']:>5}  "
            f"{paint(verdict, verdict, colour and row['verdict'] is not None)}"
        )
