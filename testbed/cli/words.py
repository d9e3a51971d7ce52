"""The words that coordinate, on the controller: the same as on a node, done over the run's scope by name."""

from __future__ import annotations

import getpass
import socket
import sys
from collections.abc import Sequence

import click

from testbed.errors import UsageError

PATIENCE = 10.0
"""Seconds that the run's etcd may take to answer."""

WITH_RUN_FIRST = ("abort", "finalise")
"""The words that take the run as their operand too, since they take nothing else."""


def command_for(name: str) -> click.Command:
    """The command for a word of `testbed.agent.words`."""
    from testbed.agent.words import WORDS

    word = WORDS[name]
    usage = "[RUN]" if name in WITH_RUN_FIRST else ""
    usage = " ".join(part for part in (usage, "[--run RUN]", word.synopsis.partition(" ")[2]) if part)

    @click.command(
        name,
        options_metavar=usage,
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": name in WITH_RUN_FIRST},
        help=f"{word.summary[0].upper()}{word.summary[1:]}.\n\n\b\n{word.help}",
    )
    @click.option("--run", "--uuid", "run", metavar="RUN", help="The run; `last` unless said.")
    @click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="")
    def command(run: str | None, words: tuple[str, ...]) -> None:
        rest = list(words)
        if name in WITH_RUN_FIRST and run is None and rest and not rest[0].startswith("-"):
            run = rest.pop(0)
        found, rest = _take_run(rest)
        sys.exit(_do(run or found or "last", [name, *rest]))

    return command


def _take_run(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """``--run RUN`` also after the word's own options, where click no longer looks."""
    rest = list(words)
    for option in ("--run", "--uuid"):
        if option in rest[:-1]:
            place = rest.index(option)
            run = rest[place + 1]
            del rest[place : place + 2]
            return run, rest
    return None, rest


def _do(name: str, words: list[str]) -> int:
    from testbed.agent import words as node_words
    from testbed.coord.gateway import connect
    from testbed.coord.scope import Scope
    from testbed.run.directory import find
    from testbed.run.scopes import read_access

    directory = find(name)
    try:
        access = read_access(directory.access)
    except FileNotFoundError:
        raise UsageError(
            f"the run {directory.run} is over", "testbed list shows the runs; testbed report tells how it ended"
        ) from None
    data = sys.stdin.buffer.read() if words[0] == "set" and words[-1:] == ["-"] else b""
    store = connect(access, PATIENCE)
    by = f"{getpass.getuser()}@{socket.gethostname()}"
    scope = Scope(store, directory.run, by)
    try:
        reply = node_words.run(words, scope, by, data)
    finally:
        scope.close()
        store.close()
    sys.stdout.buffer.write(reply.out)
    sys.stdout.buffer.flush()
    sys.stderr.buffer.write(reply.err)
    sys.stderr.buffer.flush()
    return reply.code
