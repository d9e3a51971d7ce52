"""``testbed clean``: the clean targets of a run's nodes, and whatever the run left on their machines."""

from __future__ import annotations

import sys
from typing import Any

import click


@click.command()
@click.argument("run", default="last")
@click.option("--vault-password-file", metavar="FILE", help="Opens the inventory's vaulted variables.")
@click.option("--etcd", metavar="URLS", help="The lab's etcd cluster, where the run coordinated there.")
@click.option("--etcd-binary", metavar="PATH", help="The etcd program for the clean-up's own server.")
def command(run: str, **chosen: Any) -> None:
    """Run the clean targets of RUN's nodes, on the machines that it had.

    First the results that could not be collected are fetched if they can be by now, and the workspaces that were left
    behind are removed, and so are users and keys that were left on a cluster of the lab. Then the clean targets run, as
    a run of their own with its own report.
    """
    from testbed.cli.run import carry_out, etcd_choice
    from testbed.run.cleaning import cleaning_of
    from testbed.run.directory import find

    choice = etcd_choice(chosen["etcd"], chosen["etcd_binary"], None)
    cleaning = cleaning_of(find(run), chosen["vault_password_file"], choice)
    for line in cleaning.sweep():
        click.echo(line, err=True)
    if not cleaning.has_targets:
        click.echo("the deployment has no clean targets; nothing else to do", err=True)
        sys.exit(0)
    sys.exit(carry_out(cleaning.options))
