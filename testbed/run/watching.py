"""What the run's scope in etcd says becomes messages for the run's loop."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from testbed import events
from testbed.coord.keys import RunKeys, end_of
from testbed.coord.scope import read_flag
from testbed.coord.store import Change, Span
from testbed.events import ABORT, FINALISE, Event


@dataclass(frozen=True, slots=True)
class Recorded:
    """A node wrote an event."""

    event: Event


@dataclass(frozen=True, slots=True)
class Flagged:
    """A flag was raised."""

    flag: str
    by: str
    why: str
    cause: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wished:
    """A node stands before an Ansible step."""

    node: str
    serial: int
    step: str


@dataclass(frozen=True, slots=True)
class Vanished:
    """A node's lease has ended: its agent is through, or dead."""

    node: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """A node's results came through etcd, as a tar.gz that is still to be checked."""

    node: str
    archive: bytes


@dataclass(frozen=True, slots=True)
class Left:
    """Nothing of a node is left on its machine."""

    node: str


@dataclass(frozen=True, slots=True)
class Waits:
    """A command of a node blocks, or (``told`` is None) does so no more; ``told`` is as in docs/coordination.md."""

    node: str
    number: int
    told: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Answered:
    """A node says what it does right now, because somebody asked."""

    node: str
    told: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Garbled:
    """Something stands in the run's scope that nobody of ours writes."""

    key: str
    reason: str


Sighting = Recorded | Flagged | Wished | Vanished | Delivered | Left | Waits | Answered | Garbled


TOLD_BY_NODES = (
    events.NodeStarted, events.StepStarted, events.StepEnded, events.AnsibleWanted, events.WaitStarted,
    events.WaitEnded, events.ValueSet, events.ProcessesStopped, events.NodeEnded, events.Notice,
)  # fmt: skip
"""What a node can know and tell of itself; the controller says all else, its results and the run's end above all."""


def spans(keys: RunKeys, revision: int) -> list[Span]:
    """What the controller watches: events, flags, and what nodes say of themselves."""
    return [Span(p, end_of(p), revision) for p in (keys.events, keys.flags, keys.nodes)]


def sightings(keys: RunKeys, changes: Sequence[Change], nodes: frozenset[str]) -> list[Sighting]:
    """What the changes mean, in their order (pure); ``nodes`` are the names that may speak."""
    found = []
    for change in changes:
        try:
            seen = _sighting(keys, change, nodes)
        except events.UNREADABLE as error:
            seen = Garbled(change.key, str(error))
        if seen is not None:
            found.append(seen)
    return found


def _sighting(keys: RunKeys, change: Change, nodes: frozenset[str]) -> Sighting | None:
    if change.key.startswith(keys.flags):
        return _flag(change, change.key[len(keys.flags) :])
    if change.key.startswith(keys.events):
        writer = change.key[len(keys.events) :].split("/")[0]
        if change.value is None or writer not in nodes:
            return None
        return Recorded(_told(writer, change.value))
    node, _, what = change.key[len(keys.nodes) :].partition("/")
    if node not in nodes:
        return None
    if what == "alive" and change.value is None:
        return Vanished(node)
    if what == "left" and change.value is not None:
        return Left(node)
    if what == "results" and change.value is not None:
        return Delivered(node, change.value)
    if what.startswith("waiting/"):
        return Waits(node, int(what.removeprefix("waiting/")), None if change.value is None else _wait(change.value))
    if what == "doing" and change.value is not None:
        return Answered(node, _read(change.value))
    if what == "wants" and change.value is not None:
        wish = _read(change.value)
        return Wished(node, int(wish["serial"]), f"{wish['configuration']}.{wish['target']}.{wish['step']}")
    return None


def _told(writer: str, value: bytes) -> events.Event:
    """The event that the node wrote; raises ValueError where it is none, or none of its own."""
    event = events.decode(value.decode())
    if event.node != writer:
        raise ValueError(f"{writer} wrote an event of {event.node!r}")
    if type(event) not in TOLD_BY_NODES:
        raise ValueError(f"{writer} wrote {event.kind}, which is not for a node to say")
    return event


def _read(value: bytes) -> dict[str, Any]:
    """A JSON object that a node wrote."""
    told = dict(json.loads(value))
    if not events.shallow(told):
        raise ValueError("it nests too deep")
    return told


def _wait(value: bytes) -> dict[str, Any]:
    """What a node tells of a wait: at least its word and what it is for."""
    told = _read(value)
    if not (isinstance(told["what"], str) and isinstance(told["names"], list) and told["names"]):
        raise ValueError("a wait for nothing")
    "".join(map(str, told["names"])).encode()  # no key holds half a character
    return told


def _flag(change: Change, name: str) -> Flagged | None:
    """The flag that stands, however badly its reason is written: the nodes obey it too."""
    if change.value is None or name not in (ABORT, FINALISE):
        return None
    flag = read_flag(name, change.value)
    return Flagged(name, flag.by, flag.why, dict(flag.cause))
