"""``testbed validate``: every mistake of a spec at once, and what can hardly go well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from testbed.cli.options import parameters
from testbed.errors import SpecError


@click.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("-p", "--parameter", "parameter", multiple=True, metavar="NAME=VALUE", help="Set a parameter.")
@click.option("--json", "as_json", is_flag=True, help="Print the diagnostics as JSON.")
def command(spec: Path, parameter: tuple[str, ...], as_json: bool) -> None:
    """Check a deployment spec and report every mistake.

    Shows which values nodes set and wait for, and warns of waits that nobody ends. Exits with 0 where the spec is
    right, else with 2.
    """
    from testbed.cli.flow import flow_data, show_flow
    from testbed.spec import load

    try:
        deployment = load(spec, parameters(parameter))
    except SpecError as error:
        if not as_json:
            raise
        from testbed.diagnostics import to_json

        _print_json({"valid": False, "flow": [], "diagnostics": [to_json(d) for d in error.diagnostics]})
        raise click.exceptions.Exit(error.exit_code) from error
    if as_json:
        _print_json({"valid": True, **flow_data(deployment)})
    else:
        nodes, kinds = len(deployment.nodes), len(deployment.configurations)
        click.echo(f"{spec}: {deployment.name} is right: {_count(nodes, 'node')}, {_count(kinds, 'configuration')}")
        show_flow(deployment)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"


def _print_json(found: dict[str, Any]) -> None:
    from testbed.report.data import dump

    click.echo(dump(found), nl=False)
