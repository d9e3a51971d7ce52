"""``testbed local-setup``: a scope for nodes that are played by hand."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("count", type=int)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write it there instead.")
def command(count: int, output: Path | None) -> None:
    """Make a scope for COUNT nodes whose scripts are run by hand.

    Prints shell lines: one `export` for each node, for a terminal of its own. There, `testbed` is that node's.
    The scope stays until `testbed local-teardown`, or until nothing has happened in it for 12 hours.
    """
    from testbed.run import local

    scope = local.setup(count)
    text = local.script(scope)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, "utf-8")
    except OSError:
        local.teardown(scope.run)
        raise
    click.echo(scope.run)
