"""``testbed run``: from a spec to a verdict."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from testbed.cli.options import deployment_options, etcd_options, parameters


@click.command()
@deployment_options
@etcd_options
@click.option(
    "--shared-credentials",
    is_flag=True,
    help="Let all nodes work as the etcd cluster's user itself where that may not make users.",
)
@click.option("--junit", type=click.Path(path_type=Path), metavar="FILE", help="Write the JUnit report there as well.")
@click.option("--run-dir", type=click.Path(path_type=Path), metavar="DIR", help="Keep everything of the run there.")
@click.option("--continue-on-error", is_flag=True, help="A failed step does not abort the run.")
@click.option("--clean-first", is_flag=True, help="Run the clean targets before all others.")
@click.option("--by-hand", is_flag=True, help="Start no node: say which playbook to run by hand for each, and wait.")
@click.option("--follow", is_flag=True, help="Show on stderr what the steps write, as they write it.")
@click.option("--tui", is_flag=True, help="Watch the run on a screen; it goes on when the screen is left.")
def command(**chosen: Any) -> None:
    """Run a deployment and report; the exit code is the verdict's.

    \b
    0 passed   1 a target failed   2 usage or spec   3 lab (machine, etcd)
    4 deadline   70 a bug in testbed   130 interrupted

    The first Ctrl-C aborts in order: nodes finalise, logs come home. A second one stops waiting for that.
    """  # noqa: D301  click's mark needs the real character
    if chosen.pop("tui"):
        from testbed.cli.tui import run_with_screen

        sys.exit(run_with_screen(as_words(click.get_current_context())))
    from testbed.compile.plan import WITH_CLEAN, WITHOUT_CLEAN
    from testbed.run.pipeline import Options

    options = Options(
        spec=chosen["spec"],
        parameters=parameters(chosen["parameter"]),
        inventories=chosen["inventory"],
        vault_password_file=chosen["vault_password_file"],
        continue_on_error=chosen["continue_on_error"],
        targets=WITH_CLEAN if chosen["clean_first"] else WITHOUT_CLEAN,
        run_dir=chosen["run_dir"],
        etcd=etcd_choice(chosen["etcd"], chosen["etcd_binary"], chosen["etcd_advertise"], chosen["shared_credentials"]),
        junit=chosen["junit"],
        by_hand=chosen["by_hand"],
    )
    sys.exit(carry_out(options, chosen["follow"]))


def as_words(context: click.Context) -> list[str]:
    """The command line that was given, without ``--tui``."""
    words = ["run"]
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if not isinstance(parameter, click.Option):
            words.append(str(value))
        elif parameter.is_flag:
            words += [parameter.opts[0]] if value and parameter.name != "tui" else []
        elif value is not None:
            for one in value if parameter.multiple else (value,):
                words += [parameter.opts[-1], str(one)]
    return words


def etcd_choice(
    endpoints: str | None, binary: str | None, advertise: str | None, shared_credentials: bool = False
) -> Any:
    """Where to coordinate, as the options and the environment say."""
    from testbed.etcd.access import external_cluster
    from testbed.etcd.choice import EtcdChoice

    return EtcdChoice(external_cluster(endpoints), binary, advertise, shared_credentials)


def carry_out(options: Any, follow: bool = False) -> int:
    """Prepare and execute, show progress on stderr and the report on stdout; the exit code."""
    from testbed.run.pipeline import prepare

    request = prepare(options)  # before all else is loaded: it loads what a run needs while it waits for Ansible
    from testbed.cli.progress import progress
    from testbed.cli.streams import forget_stdout
    from testbed.cli.terminal import colourful
    from testbed.report.text import report_text
    from testbed.run import directory as directories
    from testbed.run.controller import execute
    from testbed.run.outcome import make_room_for

    if options.junit is not None:
        make_room_for(options.junit)
    directory = directories.create(request.plan.run, options.run_dir)
    if not directories.is_registered(request.plan.run):
        home = directories.state_home()
        click.echo(f"warning: {home} cannot be written to; only as {directory.path} is this run found again", err=True)
    with _following(request, directory) if follow else progress(sys.stderr) as show:
        outcome = execute(request, directory, show)
    try:
        click.echo(report_text(outcome.state, outcome.judgement, directory, colourful(sys.stdout)), nl=False)
    except OSError as error:  # the report is in the run directory; the exit code tells of the run, not of its reader
        forget_stdout()
        click.echo(f"warning: the report could not be printed: {error.strerror}", err=True)
    for warning in outcome.warnings:
        click.echo(f"warning: {warning}", err=True)
    if outcome.unwritten is not None:
        raise outcome.unwritten
    return outcome.judgement.exit_code


def _following(request: Any, directory: Any) -> Any:
    from testbed.cli.following import FollowingProgress

    return FollowingProgress(directory, tuple(p.node.name for p in request.plan.nodes))
