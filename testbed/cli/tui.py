"""``testbed tui``: the operator's screen."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from testbed.cli.terminal import require_screen
from testbed.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command()
@click.argument("run", required=False)
@click.option("-i", "--inventory", multiple=True, metavar="INVENTORY", help="The machines that are shown.")
@click.option("--replay", metavar="SPEED", help="Play a finished run back, like 10x.")
@click.option("--access", type=click.Path(path_type=Path), metavar="FILE",
              help="Attach over etcd, with a copy of the run's private/access.json.")  # fmt: skip
@click.option("--web", type=click.IntRange(1, 65535), metavar="PORT", help="Serve the screen to a browser instead.")
@click.option("--web-host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Where to serve it.")
def command(
    run: str | None, inventory: tuple[str, ...], replay: str | None, access: Path | None, web: int | None, web_host: str
) -> None:
    """Watch runs on a screen, and act on them.

    It shows all runs, the nodes of one, their logs, how they coordinate, the machines, and the report.

    Without RUN it begins with the list of all runs.
    """
    from testbed_tui.attach import attach, speed

    rate = speed(replay) if replay is not None else None
    if run is None and (rate is not None or access is not None):
        raise UsageError("--replay and --access are about one run", "name it: testbed tui RUN ...")
    attachment = attach(run, access, rate) if run is not None else None
    if web is not None:
        from testbed_tui.web import serve

        words = [*([run] if run else []), *(word for i in inventory for word in ("-i", str(Path(i).absolute())))]
        words += ["--replay", replay] if replay else []
        words += ["--access", str(access.absolute())] if access else []
        serve(words, web_host, web)
        return
    require_screen()
    from testbed_tui.app import TestbedApp

    TestbedApp(attachment, inventory).run()


def run_with_screen(words: Sequence[str]) -> int:
    """Run ``testbed`` with these words as a process of its own, watch it on the screen, report; the exit code."""
    require_screen()
    import sys

    from testbed_tui.app import TestbedApp
    from testbed_tui.attach import attach
    from testbed_tui.commands import Command
    from testbed_tui.launch import Launch

    launch = Launch(Command("run", tuple(words)))
    run = launch.await_run()
    if run is None:
        click.echo(launch.said(200), err=True)
        return launch.process.wait()
    TestbedApp(attach(run), own=launch).run()
    if launch.process.poll() is None and not _over(run):
        click.echo(f"{run} goes on: testbed tui {run}; its output is kept in {launch.output}", err=True)
        return 0
    code = launch.process.wait()
    _report(run, sys.stdout.isatty())
    return code


def _over(run: str) -> bool:
    from testbed.cli.reading import read

    return read(run).over


def _report(run: str, colour: bool) -> None:
    from testbed.cli.reading import read
    from testbed.report.text import report_text

    reading = read(run)
    click.echo(report_text(reading.state, reading.judgement, reading.directory, colour), nl=False)
