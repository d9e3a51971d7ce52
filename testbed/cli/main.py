"""The command ``testbed``: its words, loaded when used, and the one place where errors become exit codes."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from testbed.cli.streams import forget_stdout, take_streams
from testbed.errors import SURROUNDINGS, LabError, SpecError, TestbedError, UsageError

BUG, INTERRUPTED, BROKEN_PIPE = 70, 130, 141
"""Exit codes that no command chooses: a bug in testbed, Ctrl-C, nobody reads on."""

COMMANDS = {
    "validate": "Check a deployment spec and report every mistake.",
    "plan": "Show what would run where, touching nothing.",
    "run": "Run a deployment and report; the exit code is the verdict's.",
    "list": "List the runs on this machine, oldest first.",
    "status": "Show where a run and its nodes are.",
    "logs": "Print what the steps of a run wrote.",
    "peek": "Show what the steps of a run write, while they write it.",
    "report": "Report on a run: for a person, as JSON, or as JUnit XML.",
    "tui": "Watch runs on a screen, and act on them.",
    "abort": "Stop all nodes now; they finalise.",
    "finalise": "Let all nodes end what they are at, then finalise.",
    "set": "Set a value for all nodes; `-` takes it from standard input.",
    "get": "Print a value; with --block wait until it is set.",
    "keys": "List the keys that are set.",
    "unset": "Remove a value.",
    "barrier": "Wait until all nodes, or those named, are here.",
    "next": "Print the next number of a sequence, from 0 on.",
    "lock": "Run COMMAND while no other holds the lock.",
    "publish": "Add a message to a stream.",
    "subscribe": "Print the messages of a stream, from the first on.",
    "service": "Say where a service is, or wait until somebody does.",
    "nodes": "List the nodes of the run.",
    "hosts": "List the nodes' addresses and names.",
    "whoami": "Print the name of this node.",
    "wait": "Wait until the run finalises.",
    "local-setup": "Make a scope for COUNT nodes whose scripts are run by hand.",
    "local-teardown": "End a local scope and remove all that is of it.",
    "clean": "Run the clean targets of RUN's nodes, on the machines that it had.",
    "lab": "Make or remove a practice lab of real SSH hosts on this machine.",
    "doctor": "Check this machine, and with -i the lab's machines and their way to etcd.",
    "completion": "Print the code that completes commands in a shell.",
}
"""Every command and its one line of help; ``testbed.cli.NAME`` has it as ``command``, but for the words that nodes
have too."""

WORDS = (
    "abort", "finalise", "set", "get", "keys", "unset", "barrier", "next", "lock", "publish", "subscribe", "service",
    "nodes", "hosts", "whoami", "wait",
)  # fmt: skip
"""The commands that ``testbed.cli.words`` makes, the same as on nodes."""


class Words(click.Group):
    """A group whose commands are imported when one is used, not when all are listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """The names, in the order in which they are met."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's signature
        """Import the command; None where there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        if cmd_name in WORDS:
            from testbed.cli.words import command_for

            return command_for(cmd_name)
        command: click.Command = importlib.import_module(f"testbed.cli.{cmd_name.replace('-', '_')}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  click's
        """List all commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line and exit; takes what click's own method takes."""
        if "_TESTBED_COMPLETE" in os.environ:
            return super().main(*args, **extra)
        given = args[0] if args else extra.get("args")
        return sys.exit(_run(self, list(sys.argv[1:] if given is None else given)))


def _version(ctx: click.Context, _: click.Parameter, asked: bool) -> None:
    if asked:
        from testbed import __version__

        click.echo(f"testbed {__version__}")
        ctx.exit()


@click.command(cls=Words, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.option("--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Show the version.")
def cli() -> None:
    """Deploy a testbed as its spec declares, run it, and say in one verdict what happened.

    RUN is a run's id, the beginning of one, a run directory, or `last`.
    """


def main() -> None:
    """Be the command ``testbed``."""
    take_streams()
    cli.main(prog_name="testbed")


def _run(words: Words, arguments: list[str]) -> int:
    """Do what the arguments ask for; what went wrong is on stderr. The exit code."""
    try:
        try:
            with words.make_context("testbed", arguments) as context:
                words.invoke(context)
            sys.stdout.flush()
        except click.exceptions.Exit as done:
            return done.exit_code
        except SystemExit as done:
            return done.code if isinstance(done.code, int) else int(done.code is not None)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            return 2
        except click.ClickException as error:
            error.show()
            return 2
        except (KeyboardInterrupt, click.Abort):
            click.echo("interrupted", err=True)
            return INTERRUPTED
        except TestbedError as error:
            _tell(error)
            return error.exit_code
    except BrokenPipeError:
        forget_stdout()
        return BROKEN_PIPE
    except OSError as error:
        if _stands_nowhere():
            _tell(UsageError("the current folder has been removed", "change to one that is there"))
            return UsageError.exit_code
        if error.errno not in SURROUNDINGS:
            _confess(error)
            return BUG
        _tell(LabError(f"{error.strerror}: {error.filename or 'standard output, or a file of this run'}"))
        return LabError.exit_code
    except Exception as error:  # noqa: BLE001  the last line of defence: a person sees a sentence, the file has the rest
        _confess(error)
        return BUG
    return 0


def _stands_nowhere() -> bool:
    try:
        os.getcwd()  # noqa: PTH109  no path is wanted
    except FileNotFoundError:
        return True
    return False


def _tell(error: TestbedError) -> None:
    if isinstance(error, SpecError):
        from testbed.cli.terminal import colourful
        from testbed.diagnostics import render

        click.echo(render(error.diagnostics, error.sources, colourful(sys.stderr)), err=True, nl=False)
        return
    from testbed.report.harmless import harmless

    click.echo(f"error: {harmless(error.message)}", err=True)
    if error.help:
        click.echo(f"  help: {harmless(error.help)}", err=True)


def _confess(error: Exception) -> None:
    """Say that testbed has a bug, and where its traceback was written."""
    import traceback

    from testbed.report.harmless import harmless_line

    trace = "".join(traceback.format_exception(error))
    click.echo(f"error: this is a bug in testbed: {type(error).__name__}: {harmless_line(str(error))}", err=True)
    try:
        path = _keep(trace)
    except OSError as reason:
        click.echo(f"{trace}(not kept in a file: {reason})", err=True)
    else:
        click.echo(f"  help: please report it with the traceback in {path}", err=True)


def _keep(trace: str) -> str:
    import tempfile
    import time

    from testbed import __version__
    from testbed.run.directory import state_root

    folder = state_root() / "crashes"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, path = tempfile.mkstemp(".txt", time.strftime("%Y%m%d-%H%M%S-"), folder)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as stream:
        stream.write(f"testbed {__version__}, Python {sys.version}\n{trace}")
    return path
