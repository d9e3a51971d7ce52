"""``testbed doctor``: whether everything is there that a run needs."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from itertools import chain

import click

from testbed.cli.options import etcd_options

SIGNS = {"good": "ok  ", "poor": "warn", "bad": "BAD "}
COLOURS = {"good": "green", "poor": "yellow", "bad": "red"}


@click.command()
@click.option("-i", "--inventory", multiple=True, metavar="INVENTORY", help="Look at these machines too.")
@click.option("--vault-password-file", metavar="FILE", help="Opens the inventory's vaulted variables.")
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@etcd_options
def command(
    inventory: tuple[str, ...],
    vault_password_file: str | None,
    as_json: bool,
    etcd: str | None,
    etcd_binary: str | None,
    etcd_advertise: str | None,
) -> None:
    """Check this machine, and with -i the lab's machines and their way to etcd.

    Exit code 0 when a run can start, 3 when something is in its way; each thing that is wrong comes with advice.
    """
    from testbed.cli.run import etcd_choice
    from testbed.run.doctor import BAD, look_here, look_there

    choice = etcd_choice(etcd, etcd_binary, etcd_advertise)
    findings = []
    there = look_there(inventory, vault_password_file, choice) if inventory else ()
    for finding in chain(look_here(choice), there):
        findings.append(finding)
        if not as_json:
            sign = click.style(SIGNS[finding.state], fg=COLOURS[finding.state])
            click.echo(f"{sign}  {finding.what}: {finding.found}")
            if finding.advice:
                click.echo(f"      {finding.advice}")
    if as_json:
        click.echo(json.dumps([asdict(f) for f in findings], indent=1))
    sys.exit(3 if any(f.state == BAD for f in findings) else 0)
