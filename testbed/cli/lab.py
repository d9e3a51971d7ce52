"""``testbed lab``: the practice lab."""

from __future__ import annotations

from pathlib import Path

import click

INVENTORY = Path("inventories/practice.yml")
"""Where the lab's inventory is written unless told otherwise."""

_name = click.option("--name", default="practice", show_default=True, metavar="NAME", help="The lab's name.")


@click.group()
def command() -> None:
    """Make or remove a practice lab of real SSH hosts on this machine."""


@command.command()
@click.argument("count", type=int)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=INVENTORY, show_default=True, metavar="FILE",
    help="Write the Ansible inventory there.",
)  # fmt: skip
@_name
def up(count: int, output: Path, name: str) -> None:
    """Make COUNT hosts, and an inventory for them."""
    from testbed.lab import practice

    lab = practice.up(count, output, name)
    click.echo(f"{len(lab.hosts)} hosts are up: {', '.join(f'{h.name} {h.address}' for h in lab.hosts[:4])}", nl=False)
    click.echo(" ..." if len(lab.hosts) > 4 else "")
    click.echo(f"inventory: {output}")


@command.command()
@_name
def down(name: str) -> None:
    """Remove the lab with all that runs on it."""
    from testbed.lab import practice

    click.echo(f"practice lab {name} is gone" if practice.down(name) else f"there is no practice lab {name}")


@command.command()
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON.")
@_name
def status(as_json: bool, name: str) -> None:
    """Show each host of the lab."""
    from testbed.lab import practice
    from testbed.report.data import dump

    found = practice.status(practice.find(name))
    if as_json:
        click.echo(dump(found.to_json()), nl=False)
        return
    click.echo(f"practice lab {found.name}, {found.subnet}, inventory {found.inventory}")
    for host in found.hosts:
        sshd = "ssh answers" if host.sshd else "no answer"
        click.echo(f"{host.name}  {host.address}  {f'up, {sshd}' if host.up else 'down'}")
