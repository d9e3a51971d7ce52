"""The flow table and its doubts, for the commands that show a deployment before it runs."""

from __future__ import annotations

from typing import Any

import click

from testbed.spec.model import Deployment

_MOST_ROWS = 40
_MOST_NODES = 4


def show_flow(deployment: Deployment) -> None:
    """Print who sets what and who waits for it; doubts go to stderr."""
    import sys

    from testbed.cli.terminal import colourful
    from testbed.compile.doubts import doubts
    from testbed.diagnostics import render

    flow = _flow(deployment)
    rows = flow.table()
    if rows:
        cells = [
            ("", "set by", "waited for by"),
            *((f"{r.kind} {r.name}", _some(r.set_by), _some(r.waited_by)) for r in rows[:_MOST_ROWS]),
        ]
        widths = [max(len(row[i]) for row in cells) for i in range(2)]
        click.echo()
        for row in cells:
            click.echo(f"{row[0].ljust(widths[0])}  {row[1].ljust(widths[1])}  {row[2]}".rstrip())
        if len(rows) > _MOST_ROWS:
            click.echo(f"... and {len(rows) - _MOST_ROWS} more")
    found = doubts(flow)
    if found:
        sys.stdout.flush()
        click.echo("\n" + render(found, flow.sources, colourful(sys.stderr)), err=True, nl=False)


def flow_data(deployment: Deployment) -> dict[str, Any]:
    """The same as plain data: ``flow`` and ``diagnostics``."""
    from dataclasses import asdict

    from testbed.compile.doubts import doubts
    from testbed.diagnostics import to_json

    flow = _flow(deployment)
    return {"flow": [asdict(row) for row in flow.table()], "diagnostics": [to_json(d) for d in doubts(flow)]}


def _flow(deployment: Deployment) -> Any:
    from testbed.compile.flow import flow_of
    from testbed.spec.staged import staged_texts

    return flow_of(deployment, staged_texts(deployment))


def _some(names: tuple[str, ...]) -> str:
    from testbed.diagnostics import visible

    more = f" and {len(names) - _MOST_NODES} more" if len(names) > _MOST_NODES else ""
    return visible(", ".join(names[:_MOST_NODES])) + more or "-"
