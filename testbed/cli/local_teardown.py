"""``testbed local-teardown``: the end of a scope that was made by hand."""

from __future__ import annotations

import click


@click.command()
@click.argument("scope", metavar="ID")
def command(scope: str) -> None:
    """End a local scope and remove all that is of it."""
    from testbed.run import local

    click.echo(f"local scope {local.teardown(scope).run} is gone")
