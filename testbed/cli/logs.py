"""``testbed logs``: what the steps of a run wrote."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from testbed.errors import UsageError

if TYPE_CHECKING:
    from testbed.cli.reading import Reading


@click.command()
@click.argument("run")
@click.argument("node", required=False)
@click.option("--step", metavar="TARGET", help="Only this target, or step: TARGET, TARGET.STEP or a log file's name.")
@click.option("--follow", is_flag=True, help="Go on with what is written while the run lasts, like `testbed peek`.")
def command(run: str, node: str | None, step: str | None, follow: bool) -> None:
    """Print what the steps of a run wrote.

    Several logs are parted by lines `==> NODE LOG <==`. A terminal is shown harmless text; a pipe gets every byte.
    """
    from testbed.cli.reading import read

    if follow:
        _follow(run, node, step)
        return
    reading = read(run)
    names = _nodes(reading, node)
    found = [(name, log) for name in names for log in _logs(reading, name) if step is None or _is(log.name, step)]
    for name in names:
        if not reading.state.nodes[name].results:
            click.echo(f"the logs of {name} are not home yet: they come when it has ended", err=True)
    if not found:
        raise UsageError("there is no such log", _advice(reading, names))
    for number, (name, log) in enumerate(found):
        if len(found) > 1:
            click.echo(f"{'' if number == 0 else chr(10)}==> {name} {log.name} <==")
        _print(log)


def _follow(run: str, node: str | None, step: str | None) -> None:
    """Show all steps from their beginning, those to come too."""
    from testbed.cli import peek
    from testbed.coord.chunks import EVERY

    nodes = () if node is None else (node,)
    peek.command.main(
        [run, *nodes, "--from-start", "--step", step or EVERY], prog_name="testbed logs --follow", standalone_mode=False
    )


def _nodes(reading: Reading, node: str | None) -> list[str]:
    known = [n.name for n in reading.state.in_order]
    if node is None:
        return known
    if node not in known:
        raise UsageError(f"the run has no node `{node}`", f"it has {', '.join(known) or 'none'}")
    return [node]


def _logs(reading: Reading, node: str) -> list[Path]:
    """The node's logs in the order in which its steps began; what no step explains comes last."""
    order = {str(key): number for number, key in enumerate(reading.state.nodes[node].steps)}
    folder = reading.directory.logs(node)
    if folder.is_symlink() or not folder.is_dir():
        return []
    files = [f for f in folder.iterdir() if f.is_file() and not f.is_symlink()]
    return sorted(files, key=lambda f: (order.get(f.stem, len(order)), f.stem, f.suffix != ".out"))


def _is(name: str, step: str) -> bool:
    """Whether the log ``configuration.target.step.out`` is meant by ``step``."""
    stem = name.rpartition(".")[0]
    return f".{step}." in f".{name}." or step == stem


def _advice(reading: Reading, names: list[str]) -> str:
    logs = sorted({log.name for name in names for log in _logs(reading, name)})
    return f"there are {', '.join(logs[:8])}" if logs else f"look into {reading.directory.nodes}"


def _print(log: Path) -> None:
    from testbed.report.files import open_regular
    from testbed.report.harmless import harmless

    with os.fdopen(open_regular(log), "rb") as stream:
        if sys.stdout.isatty():
            for line in stream:
                click.echo(harmless(line.decode("utf-8", "replace")), nl=False)
        else:
            sys.stdout.flush()
            shutil.copyfileobj(stream, sys.stdout.buffer)
            sys.stdout.buffer.flush()
