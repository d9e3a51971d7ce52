"""``testbed plan``: what would run where, touching nothing."""

from __future__ import annotations

import json
from pathlib import Path

import click

from testbed.cli.options import deployment_options, parameters


@click.command()
@deployment_options
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.option("--continue-on-error", is_flag=True, help="As with `testbed run`.")
@click.option("--clean-first", is_flag=True, help="As with `testbed run`.")
def command(
    spec: Path,
    inventory: tuple[str, ...],
    parameter: tuple[str, ...],
    vault_password_file: str | None,
    as_json: bool,
    continue_on_error: bool,
    clean_first: bool,
) -> None:
    """Show what would run where, touching nothing."""
    from testbed.cli.flow import flow_data, show_flow
    from testbed.compile.plan import WITH_CLEAN, WITHOUT_CLEAN, to_data
    from testbed.run.pipeline import Options, plan_text, prepare

    request = prepare(
        Options(
            spec=spec,
            parameters=parameters(parameter),
            inventories=inventory,
            vault_password_file=vault_password_file,
            continue_on_error=continue_on_error,
            targets=WITH_CLEAN if clean_first else WITHOUT_CLEAN,
        )
    )
    deployment = request.plan.deployment
    if as_json:
        click.echo(json.dumps({**to_data(request.plan), **flow_data(deployment)}, indent=1))
    else:
        click.echo(plan_text(request.plan), nl=False)
        show_flow(deployment)
