"""What stands in a run's scope becomes messages; nothing that a node writes there stops the controller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from testbed import events
from testbed.coord.keys import RunKeys
from testbed.coord.store import Change
from testbed.run import watching
from testbed.run.phases import own_events
from testbed.run.watching import (
    Answered,
    Delivered,
    Flagged,
    Garbled,
    Left,
    Recorded,
    Sighting,
    Vanished,
    Waits,
    Wished,
    sightings,
)

KEYS = RunKeys("r")
NODES = frozenset({"a", "b"})
EVENT = events.NodeEnded(at=1.0, node="a", verdict="passed", reason="")


def see(key: str, value: bytes | None) -> list[Sighting]:
    """What one change means."""
    return sightings(KEYS, [Change(key, value, 7)], NODES)


def dump(value: Any) -> bytes:
    """As JSON bytes."""
    return json.dumps(value).encode()


FORGED = [
    events.ResultsCollected(at=1.0, node="a", size=1, files=1),
    events.RunEnded(at=1.0, node="a", verdict="passed", exit_code=0, reason="", duration=1.0),
    events.NodePlanned(at=1.0, node="a", index=0, machine="m", address="x", configurations=[], targets=[]),
    events.FlagRaised(at=1.0, node="a", flag="abort", by="b", why="b did it", cause={"node": "b"}),
]
"""What a node might say to look better than it is."""

WISH = {"serial": 3, "configuration": "c", "target": "deploy", "step": "main"}
WAIT = {"what": "get", "names": ["x"], "since": 1.0, "until": None, "mode": "all"}
FLAG = {"by": "a", "why": "so", "at": 1.0, "cause": {"node": "a"}}
DEEP = b'{"a":' * 900 + b"1" + b"}" * 900  # can be read, and not written again


@pytest.mark.parametrize(
    ("key", "value", "seen"),
    [
        (KEYS.event("a", 0), events.encode(EVENT).encode(), Recorded(EVENT)),
        (KEYS.flag("abort"), dump(FLAG), Flagged("abort", "a", "so", {"node": "a"})),
        (KEYS.flag("finalise"), dump({**FLAG, "cause": None}), Flagged("finalise", "a", "so", {})),
        (KEYS.wants("b"), dump(WISH), Wished("b", 3, "c.deploy.main")),
        (KEYS.alive("a"), None, Vanished("a")),
        (KEYS.left("a"), b"", Left("a")),
        (KEYS.results("a"), b"raw", Delivered("a", b"raw")),
        (KEYS.waiting("a", 12), dump(WAIT), Waits("a", 12, WAIT)),
        (KEYS.waiting("b", 0), None, Waits("b", 0, None)),
        (KEYS.doing("a"), b'{"asked": "x"}', Answered("a", {"asked": "x"})),
    ],
)
def test_good_writings(key: str, value: bytes | None, seen: Sighting) -> None:
    """Each thing that ours write has its one meaning."""
    assert see(key, value) == [seen]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (KEYS.alive("a"), b"{}"),
        (KEYS.alive("stranger"), None),
        (KEYS.wants("a"), None),
        (KEYS.wants("stranger"), dump(WISH)),
        (KEYS.event("stranger", 0), events.encode(EVENT).encode()),
        (KEYS.event("-", 0), events.encode(EVENT).encode()),
        (KEYS.event("a", 0), None),
        (KEYS.flag("abort"), None),
        (KEYS.flag("other"), dump(FLAG)),
        (KEYS.waiting("stranger", 1), dump(WAIT)),
        (KEYS.doing("a"), None),
        (KEYS.asked("a"), b"still 1"),
        (KEYS.nodes + "a", b"x"),
    ],
)
def test_what_is_nobodys_business(key: str, value: bytes | None) -> None:
    """What does not concern the controller, or comes from somebody without a place in the run, is passed over."""
    assert see(key, value) == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (KEYS.event("b", 0), events.encode(EVENT).encode()),  # speaks for another node
        *((KEYS.event("a", 0), events.encode(event).encode()) for event in FORGED),
        (KEYS.event("a", 0), b"\xff\xfe"),
        (KEYS.event("a", 0), b"{}"),
        (KEYS.event("a", 0), b"[" * 100_000),
        (KEYS.waiting("a", 1), b"anything"),
        (KEYS.waiting("a", 1), b"[" * 100_000),
        (KEYS.waiting("a", 1), dump({"what": "get", "names": []})),
        (KEYS.waiting("a", 1), dump({"what": 1, "names": ["x"]})),
        (KEYS.waiting("a", 1), b'{"what": "get", "names": ["\\ud800"]}'),
        (KEYS.nodes + "a/waiting/one", dump(WAIT)),
        (KEYS.doing("a"), b"7"),
        (KEYS.wants("a"), b"[]"),
        (KEYS.wants("a"), b"7"),
        (KEYS.wants("a"), dump({**WISH, "serial": "three"})),
        (KEYS.wants("a"), b"[" * 100_000),
        (KEYS.wants("a"), b'{"serial": 1e999}'),
        (KEYS.waiting("a", 1), b'{"what": "get", "names": ["x"], "y": ' + DEEP + b"}"),
        (KEYS.doing("a"), b'{"asked": "x", "ran": ' + DEEP + b"}"),
        (KEYS.event("a", 0), b'{"event":"processes_stopped","at":1,"node":"a","processes":[' + DEEP + b"]}"),
    ],
)
def test_garbage_is_named(key: str, value: bytes) -> None:
    """What nobody of ours writes is told with its key, and hurts nothing else in the batch."""
    good = Change(KEYS.alive("b"), None, 8)
    found = sightings(KEYS, [Change(key, value, 7), good], NODES)
    assert isinstance(found[0], Garbled)
    assert found[0].key == key
    assert found[1] == Vanished("b")


@pytest.mark.parametrize(
    "value",
    [b"", b"[]", b"7", b"\xff", b'{"by": 1}', b"[" * 100_000, b'{"by": "a", "why": "b", "cause": ' + DEEP + b"}"],
)
def test_flag_stands_however_it_is_written(value: bytes) -> None:
    """A flag whose reason cannot be read stops the run all the same and is recorded: the nodes obey it too."""
    (seen,) = see(KEYS.flag("abort"), value)
    assert isinstance(seen, Flagged)
    assert seen.flag == "abort"
    assert events.encode(events.FlagRaised(1.0, "", seen.flag, seen.by, seen.why, seen.cause))


def test_spans_hold_all_that_has_a_meaning() -> None:
    """What the controller watches covers every key with a meaning, and none of the users' values."""
    spans = watching.spans(KEYS, 5)
    assert all(span.revision == 5 for span in spans)
    for key in (KEYS.event("a", 0), KEYS.flag("abort"), KEYS.wants("a"), KEYS.alive("a"), KEYS.left("b")):
        assert sum(span.holds(key) for span in spans) == 1
    assert not any(span.holds(KEYS.value("x")) for span in spans)


def test_a_nodes_own_record_is_taken_for_what_a_node_can_say(tmp_path: Path) -> None:
    """What came home as a node's record is read as what it wrote into etcd would be: its own events, and no others."""
    record = tmp_path / "events.jsonl"
    other = events.NodeEnded(at=1.0, node="b", verdict="passed", reason="")
    lines = [events.encode(event) for event in (EVENT, *FORGED, other)]
    record.write_text("\n".join([*lines, "garbage", ""]))
    assert list(own_events(record, "a")) == [EVENT]
