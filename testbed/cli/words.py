"""The words that coordinate, on the controller: the same as on a node, done over the run's scope by name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

import click

WITH_RUN_FIRST = ("abort", "finalise")
"""The words that take the run as their operand too, since they take nothing else."""

WITH_OPTIONS_ANYWHERE = ("abort", "finalise", "nodes", "hosts", "whoami")
"""The words whose operands cannot look like options."""


def command_for(name: str) -> click.Command:
    """The command for a word of `testbed.agent.words`."""
    from testbed.agent.words import WORDS

    word = WORDS[name]
    usage = "[RUN]" if name in WITH_RUN_FIRST else ""
    usage = " ".join(part for part in (usage, "[--run RUN]", word.synopsis.partition(" ")[2]) if part)

    @click.command(
        name,
        options_metavar=usage,
        context_settings={
            "ignore_unknown_options": True, "allow_interspersed_args": name in WITH_OPTIONS_ANYWHERE,
        },
        help=f"{word.summary[0].upper()}{word.summary[1:]}.\n\n\b\n{word.help}",
    )  # fmt: skip
    @click.option("--run", "--uuid", "run", metavar="RUN", help="The run or local scope; the newest run unless said.")
    @click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="")
    def command(run: str | None, words: tuple[str, ...]) -> None:
        rest = list(words)
        if name in WITH_RUN_FIRST and run is None and rest and not rest[0].startswith("-"):
            run = rest.pop(0)
        found, rest = _take_run(rest)
        sys.exit(_do(run or found, [name, *rest]))

    return command


def _take_run(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """``--run RUN`` also after the word's own options, where click no longer looks; not beyond ``--``."""
    rest = list(words)
    until = rest.index("--") if "--" in rest else len(rest)
    for option in ("--run", "--uuid"):
        if option in rest[: until - 1]:
            place = rest.index(option)
            run = rest[place + 1]
            del rest[place : place + 2]
            return run, rest
    return None, rest


def _do(name: str | None, words: list[str]) -> int:
    from testbed.agent.words import Caller, run
    from testbed.coord.store import MAX_VALUE
    from testbed.run.reach import scope_of

    takes_input = words[0] in ("set", "publish") and words[-1:] == ["-"]
    data = sys.stdin.buffer.read(MAX_VALUE + 1) if takes_input else b""
    with scope_of(name) as scope:
        reply = run(words, scope, Caller(data, emit=_emit, run_held=_run_held))
    _emit(reply.out)
    sys.stderr.buffer.write(reply.err)
    sys.stderr.buffer.flush()
    return reply.code


def _emit(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def _run_held(command: list[str], token: int) -> int:
    """Run the command of a lock; its exit code as a shell says it."""
    try:
        code = subprocess.run(command, env={**os.environ, "TESTBED_LOCK_TOKEN": str(token)}, check=False).returncode
    except OSError as error:
        click.echo(f"testbed lock: {command[0]}: {error.strerror}", err=True)
        return 127 if isinstance(error, FileNotFoundError) else 126
    return code if code >= 0 else 128 - code
