"""A run's scope for somebody on this machine: the controller's commands, and nodes of a local scope played by hand."""

from __future__ import annotations

import getpass
import json
import os
import queue
import socket
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.agent.plan import Access
from testbed.agent.words import Caller
from testbed.agent.words import run as run_words
from testbed.coord.gateway import connect
from testbed.coord.here import END, ERR, HELD, OUT, Ask, Frame
from testbed.coord.keys import RunKeys
from testbed.coord.peers import Peer
from testbed.coord.scope import Cancel, Scope
from testbed.coord.session import Session
from testbed.errors import LabError, UsageError
from testbed.run import local
from testbed.run.directory import LAST, find
from testbed.run.played import Played

PATIENCE = 10.0
"""Seconds that the run's etcd may take to answer."""

LIVENESS = 15.0
"""Seconds after which a lock is free whose holder has died."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run's scope is, for whom: ``by`` a node's name, or a person's."""

    run: str
    by: str
    access: Access
    nodes: tuple[Peer, ...]


def place_of(name: str | None) -> Place:
    """The scope of that name: a run or a local scope; None: that of the environment, else the newest run.

    Raises UsageError where there is none, or the run is over.
    """
    file = os.environ.get(local.VARIABLE)
    if name is None and file:
        return _of_file(Path(file))
    me = f"{getpass.getuser()}@{socket.gethostname()}"
    place = local.find(name) if name else None
    if place is not None:
        return _of_file(place.file(local.BY_HAND), me)
    directory = find(name or LAST)
    try:
        raw = json.loads(directory.access.read_text("utf-8"))
    except FileNotFoundError:
        raise UsageError(
            f"the run {directory.run} is over", "testbed list shows the runs; testbed report tells how it ended"
        ) from None
    plan = json.loads(directory.plan.read_text("utf-8"))
    return Place(directory.run, me, Access(**raw), tuple(_peer(node) for node in plan["nodes"]))


@contextmanager
def scope_of(name: str | None = None) -> Iterator[Scope]:
    """The scope of that name, as `place_of` finds it, while it is used."""
    place = place_of(name)
    store = connect(place.access, PATIENCE)
    sessions: list[Session] = []

    def lease() -> int:
        if not sessions:  # few need one, and it costs the server
            sessions.append(Session(store, LIVENESS, lambda _: None))
        return sessions[0].lease.id

    by_hand = any(peer.name == place.by for peer in place.nodes)
    played = Played(store, RunKeys(place.run), place.by, lease) if by_hand else None
    scope = Scope(store, place.run, place.by, nodes=place.nodes, lease=lease, board=played)
    try:
        yield scope
    finally:
        if played is not None:
            played.close()
        scope.close()
        for session in sessions:
            session.close()
        store.close()


@contextmanager
def asking(name: str | None = None) -> Iterator[Ask]:
    """The words over the scope of that name, asked as a node's programs ask them of its agent."""
    with scope_of(name) as scope:

        def ask(words: list[str], data: bytes) -> Generator[Frame, None, None]:
            frames: queue.SimpleQueue[Frame] = queue.SimpleQueue()
            cancel, ended = Cancel(), threading.Event()

            def run_held(_: list[str], token: int) -> int:
                frames.put((HELD, str(token).encode()))
                ended.wait()
                return 0

            def work() -> None:
                caller = Caller(data, cancel, lambda piece: frames.put((OUT, piece)), run_held)
                reply = run_words(words, scope, caller)
                frames.put((OUT, reply.out)) if reply.out else None
                frames.put((ERR, reply.err)) if reply.err else None
                frames.put((END, str(reply.code).encode()))

            thread = threading.Thread(target=work, name="word", daemon=True)
            thread.start()
            try:
                kind = b""
                while kind != END:
                    kind, piece = frames.get()
                    yield kind, piece
            finally:
                cancel.fire()
                ended.set()
                thread.join()

        yield ask


def _of_file(path: Path, by: str = "") -> Place:
    try:
        raw: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return Place(
            raw["run"], by or raw["node"], Access(**raw["access"]), tuple(Peer(**node) for node in raw["nodes"])
        )
    except FileNotFoundError:
        raise UsageError(f"the scope of {path} is gone", "make a new one with testbed local-setup") from None
    except OSError as error:
        raise LabError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"{path} describes no scope", f"{local.VARIABLE} names a file that is another's") from error


def _peer(node: dict[str, Any]) -> Peer:
    name, group = str(node["node"]), str(node["group"])
    return Peer(name, int(node["index"]), group, str(node["machine"]), str(node["address"]), node["configurations"])
