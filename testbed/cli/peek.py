"""``testbed peek``: any running step's output, live, from anywhere."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from testbed.errors import LabError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from testbed.agent.plan import Access
    from testbed.cli.looking import Look
    from testbed.cli.showing import Shown
    from testbed.report.state import RunState
    from testbed.run.directory import RunDirectory

_LINES = 10


@click.command()
@click.argument("run")
@click.argument("node", nargs=-1)
@click.option("--step", default="", metavar="STEP", help="TARGET, TARGET.STEP or CONFIGURATION.TARGET.STEP; '*': all.")
@click.option("--from-start", is_flag=True, help="Begin with the first byte of the step.")
@click.option("--lines", type=click.IntRange(0), metavar="N", help=f"Begin with its last N lines ({_LINES}).")
@click.option(
    "--offset",
    type=click.IntRange(0),
    metavar="BYTES",
    help="Go on where another look stopped, in stdout unless --stderr.",
)
@click.option("--stdout", is_flag=True, help="Only what it writes to stdout.")
@click.option("--stderr", is_flag=True, help="Only what it writes to stderr.")
@click.option(
    "-f",
    "--file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Append the bytes to FILE; stderr to FILE.err, of several nodes to FILE.NODE.",
)
@click.option("-T", "--patience", type=click.FloatRange(0), metavar="SECONDS", default=60.0, show_default=True,
              help="How long a node or etcd may be out of reach.")  # fmt: skip
@click.option("--grep", metavar="RE", help="Only lines in which the regular expression is found.")
@click.option("--raw", is_flag=True, help="Let a terminal have every byte, escape sequences too.")
@click.option("--window", metavar="BYTES", type=click.IntRange(4096, 16 * 1024 * 1024), default=256 * 1024,
              show_default=True, help="What a node may have written to etcd ahead of you.")  # fmt: skip
@click.option("-H", "--host", metavar="HOST", help="An etcd other than the configured one.")
@click.option("-P", "--port", type=click.IntRange(1, 65535), metavar="PORT", help="Its port; 2379 unless said.")
@click.option("-U", "--user", metavar="USER", help="Its user.")
@click.option("-W", "--password-file", type=click.Path(path_type=Path), metavar="FILE", help="That user's password.")
@click.option(
    "--access",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A copy of the run's private/access.json, to look from another machine.",
)
def command(**chosen: Any) -> None:
    """Show what the steps of a run write, while they write it.

    Without --step it is the step that each node is at, and those after it; without NODE all nodes, each line with
    node and step. It ends with the last step that was asked for; each step's exit code is told. Ctrl-C ends it earlier,
    and says how to go on. After the run the same command reads its directory.

    \b
    testbed peek last                                  the steps that run now
    testbed peek last server --step test --from-start  all of one node's target
    testbed peek last n-3 --stdout -f log              the bytes, into a file

    It costs nothing while nobody looks. Exit codes: 0; 2 usage; 3 a node was lost, or was out of reach.
    """  # noqa: D301  click's mark needs the real character
    from testbed.cli.showing import show_all

    look = look_of(chosen)
    try:
        show_all(look, shown_of(chosen, look.wanted.nodes))
    except KeyboardInterrupt:
        _tell_where(look)
        raise
    if look.failed:
        sys.exit(LabError.exit_code)


def look_of(chosen: dict[str, Any]) -> Look:
    """The look that the options describe; raises UsageError."""
    from testbed.cli.looking import Look
    from testbed.cli.showing import tell
    from testbed.coord.chunks import ERR, FROM_START, OUT, RUNNING, STREAMS
    from testbed.coord.peeking import Wanted

    if sum((chosen["from_start"], chosen["lines"] is not None, chosen["offset"] is not None)) > 1:
        raise UsageError("--from-start, --lines and --offset do not go together", "say where to begin once")
    if chosen["stdout"] and chosen["stderr"]:
        raise UsageError("--stdout and --stderr do not go together", "without either both are shown")
    directory, access = _run_of(chosen)
    run = directory.run if directory is not None else chosen["run"]
    state = _state(directory, access, run, chosen["patience"])
    nodes = chosen["node"] or tuple(n.name for n in state.in_order)
    for node in nodes:
        if node not in state.nodes:
            raise UsageError(f"the run has no node `{node}`", f"it has {', '.join(state.nodes) or 'none'}")
    _check_step(state, nodes, chosen["step"])
    streams = (OUT,) if chosen["stdout"] else (ERR,) if chosen["stderr"] else STREAMS
    lines = FROM_START if chosen["from_start"] else _LINES if chosen["lines"] is None else chosen["lines"]
    positions = {}
    if chosen["offset"] is not None:
        streams = streams if len(streams) == 1 else (OUT,)
        positions = {node: _place(state, node, chosen["step"], streams[0], chosen["offset"]) for node in nodes}
    wanted = Wanted(
        tuple(dict.fromkeys(nodes)), chosen["step"] or RUNNING, streams, lines, positions, chosen["window"],
        chosen["patience"],
    )  # fmt: skip
    return Look(run, wanted, directory, access, away=tell)


def shown_of(chosen: dict[str, Any], nodes: tuple[str, ...]) -> Shown:
    """How the options want it shown; raises UsageError."""
    from testbed.cli.showing import Bytes, Lines, OneLive
    from testbed.cli.terminal import colourful

    one = chosen["stdout"] or chosen["stderr"] or chosen["offset"] is not None
    if chosen["file"] is not None:
        return Bytes(chosen["file"], len(nodes), 1 if one else 2)
    if len(nodes) == 1 and chosen["grep"] is None and (chosen["raw"] or not sys.stdout.isatty()):
        return Bytes(None, 1, 1)
    if len(nodes) == 1 and chosen["grep"] is None:
        return OneLive(sys.stdout.buffer, nodes[0])
    try:
        grep = None if chosen["grep"] is None else re.compile(chosen["grep"])
    except re.error as error:
        raise UsageError(f"--grep: {error}", "it is a regular expression of Python's") from error
    return Lines(sys.stdout.buffer, nodes, colourful(sys.stdout), chosen["raw"], grep)


def _run_of(chosen: dict[str, Any]) -> tuple[RunDirectory | None, Access | None]:
    """The run's directory and the way to its scope, as far as there are."""
    from testbed.etcd.access import ENDPOINTS
    from testbed.run.directory import find
    from testbed.run.scopes import read_access

    other = any(chosen[name] is not None for name in ("host", "port", "user", "password_file"))
    directory, own = None, None
    try:
        directory = find(chosen["run"])
    except UsageError:
        if not other and chosen["access"] is None and not os.environ.get(ENDPOINTS):
            raise
    try:
        if chosen["access"] is not None:
            own = read_access(chosen["access"])
        elif directory is not None:
            own = read_access(directory.access)
    except FileNotFoundError:
        if chosen["access"] is not None:
            raise UsageError(f"{chosen['access']} is not there", "copy it while the run goes on") from None
    except (ValueError, TypeError) as error:
        raise UsageError(f"{chosen['access']} is no access file: {error}") from error
    if not other:
        from testbed.etcd.access import external_cluster

        return directory, own if own is not None or directory is not None else _root(external_cluster())
    return directory, _elsewhere(chosen, own)


def _elsewhere(chosen: dict[str, Any], own: Access | None) -> Access | None:
    """The way to the etcd that the options name: as their user, or with the run's ``own`` access."""
    from testbed.etcd.access import CA, PASSWORD, PASSWORD_FILE, USER, external_cluster

    environment = dict(os.environ)
    scheme = "https" if environment.get(CA) or (own is not None and own.ca) else "http"
    host = chosen["host"] or "127.0.0.1"
    url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{chosen['port'] or 2379}"
    if own is not None and chosen["user"] is None and chosen["password_file"] is None:
        return replace(own, endpoints=[url])
    if chosen["user"] is not None:
        environment[USER] = chosen["user"]
    if chosen["password_file"] is not None:
        environment.pop(PASSWORD, None)
        environment[PASSWORD_FILE] = str(chosen["password_file"])
    if not environment.get(USER):
        raise UsageError(f"no user of the etcd at {url} is known", f"give --user and --password-file, or set {USER}")
    if not environment.get(PASSWORD) and not environment.get(PASSWORD_FILE):
        raise UsageError(f"the password of {environment[USER]} is not known", "give --password-file")
    return _root(external_cluster(url, environment))


def _root(cluster: Any) -> Access | None:
    return None if cluster is None else cluster.root


def _state(directory: RunDirectory | None, access: Access | None, run: str, patience: float) -> RunState:
    """The run as its events tell of it: those in its directory, or those in etcd."""
    from testbed.report.state import fold

    if directory is not None:
        return fold(directory.read_events())
    from contextlib import closing

    from testbed.cli.looking import away
    from testbed.cli.showing import tell
    from testbed.coord.gateway import connect
    from testbed.coord.keys import RunKeys, end_of
    from testbed.coord.store import StoreError
    from testbed.events import EventError, decode

    assert access is not None  # noqa: S101  else the run was found here
    events = RunKeys(run).events
    found = []
    try:
        with closing(connect(access, patience)) as store:
            store.client.listen = lambda why: tell(away(why, patience))
            entries = store.range(events, end_of(events)).entries
    except StoreError as error:
        raise LabError(
            f"the run cannot be looked at: {error}", "check --host, --port, --user, --password-file"
        ) from error
    for entry in sorted(entries, key=lambda e: e.revision):
        try:
            found.append(decode(entry.value.decode("utf-8", "replace")))
        except EventError:
            continue
    if not found:
        raise UsageError(f"there is no run `{run}` in that etcd", "give its whole id; `testbed list` there shows it")
    return fold(found)


def _check_step(state: RunState, nodes: Sequence[str], wanted: str) -> None:
    """Raise UsageError where none of the nodes, of which all is known, has such a step."""
    from testbed.coord.chunks import matches
    from testbed.report.harmless import harmless_line

    targets = [planned for node in nodes for planned in state.nodes[node].targets]
    planned = [f"{configuration}.{target}.{step}" for target, configuration, steps in targets for step in steps]
    if planned and not any(matches(wanted, step) for step in planned):
        raise UsageError(
            f"no step is called `{wanted}`", f"there are {harmless_line(', '.join(dict.fromkeys(planned)))}"
        )


def _place(state: RunState, node: str, step: str, stream: str, offset: int) -> Any:
    """The position in the one step that is meant."""
    from testbed.coord.chunks import OUT, Position, matches

    current = state.nodes[node].current
    steps = [str(key) for key in state.nodes[node].steps if matches(step, str(key))]
    if not step and current is not None:
        steps = [str(current.key)]
    if len(steps) != 1:
        raise UsageError(
            f"--offset is a place in one step, and {len(steps)} of {node} are meant",
            f"name it: --step {', '.join(steps[:5]) or 'CONFIGURATION.TARGET.STEP'}",
        )
    return Position(steps[0], offset, 0) if stream == OUT else Position(steps[0], 0, offset)


def _tell_where(look: Look) -> None:
    """Say where another look would have to go on."""
    from testbed.report.harmless import harmless_line

    last = {}
    for (node, step, stream), end in look.ends.items():
        last[node, stream] = (step, end)
    for (node, stream), (step, end) in last.items():
        if stream in look.wanted.streams:
            words = f"--step {harmless_line(step)} --std{stream} --offset {end}"
            click.echo(f"goes on there: testbed peek {look.run} {harmless_line(node)} {words}", err=True)
