"""``testbed report``: what happened, made anew from the run's events."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from testbed.errors import LabError, UsageError


@click.command()
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.option("--junit", metavar="FILE", help="Write the report as JUnit XML to FILE (`-`: stdout).")
def command(run: str, as_json: bool, junit: str | None) -> None:
    """Report on a run: for a person, as JSON, or as JUnit XML.

    Exits with 0 whatever the run's verdict. A run that has not ended is judged as if nothing more came.
    """
    from testbed.cli.reading import read

    if as_json and junit:
        raise UsageError("--json and --junit exclude each other")
    reading = read(run)
    state, judgement, directory = reading.state, reading.judgement, reading.directory
    if not reading.over:
        click.echo("warning: this run has not ended, or its controller died; what did not end is missing", err=True)
    if as_json:
        from testbed.report.data import document, dump

        click.echo(dump(document(state, judgement)), nl=False)
    elif junit:
        from testbed.report.junit import render

        content, warnings = render(state, judgement, directory.nodes)
        for warning in warnings:
            click.echo(f"warning: {warning}", err=True)
        _write(content, junit)
    else:
        from testbed.cli.terminal import colourful
        from testbed.report.text import report_text

        click.echo(report_text(state, judgement, directory, colourful(sys.stdout)), nl=False)


def _write(content: bytes, where: str) -> None:
    if where == "-":
        click.echo(content, nl=False)
        return
    from testbed.report.files import write_whole

    try:
        write_whole(Path(where), content)
    except OSError as error:
        raise LabError(f"cannot write {where}: {error.strerror}", "name another file with --junit") from error
