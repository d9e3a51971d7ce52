"""The one-line form of events: what is written is read again, and nothing else is an event."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed import events as ev

KINDS = [c for c in vars(ev).values() if isinstance(c, type) and issubclass(c, ev.Event) and c is not ev.Event]
TEXT = st.text(max_size=8)
NUMBER = st.floats(-1e9, 1e9)
VALUES: dict[str, st.SearchStrategy[object]] = {
    "str": TEXT,
    "bool": st.booleans(),
    "int": st.integers(-(2**40), 2**40),
    "float": NUMBER,
    "Optional[int]": st.none() | st.integers(-(2**40), 2**40),
    "Optional[float]": st.none() | NUMBER,
    "List[str]": st.lists(TEXT, max_size=3),
    "List[List[Any]]": st.lists(st.lists(TEXT, max_size=2), max_size=2),
    "List[Dict[str, Any]]": st.lists(st.dictionaries(TEXT, TEXT, max_size=2), max_size=2),
    "Dict[str, Any]": st.dictionaries(TEXT, TEXT, max_size=2),
}
EVENTS = st.sampled_from(KINDS).flatmap(lambda c: st.builds(c, **{f.name: VALUES[str(f.type)] for f in fields(c)}))


@given(EVENTS)
@settings(deadline=None)
def test_an_event_is_read_as_it_was_written(event: ev.Event) -> None:
    """Any event comes back from its line, which is one line."""
    line = ev.encode(event)
    assert "\n" not in line
    assert ev.decode(line) == event


def test_members_of_a_newer_writer_are_passed_over() -> None:
    """A member that this version does not know changes nothing."""
    line = json.dumps({"event": "node_lost", "at": 1, "node": "a", "reason": "x", "new": [1]})
    assert ev.decode(line) == ev.NodeLost(1, "a", "x")


def test_a_line_is_always_unicode() -> None:
    """Names of files and processes that are no Unicode still make a line that can be written."""
    line = ev.encode(ev.NodeLost(1.0, "a", "caf\udce9"))
    assert ev.decode(line.encode("utf-8").decode("utf-8")) == ev.NodeLost(1.0, "a", "caf?")


@pytest.mark.parametrize(
    "line",
    [
        "",
        "[]",
        "null",
        "{}",
        '{"event": "no_such"}',
        '{"event": ["node_lost"]}',
        '{"event": "node_lost", "at": 1, "node": "a"}',
        '{"event": "node_lost", "at": 1, "node": 5, "reason": ""}',
        '{"event": "node_lost", "at": "1", "node": "a", "reason": ""}',
        '{"event": "node_lost", "at": NaN, "node": "a", "reason": ""}',
        '{"event": "node_lost", "at": 1e999, "node": "a", "reason": ""}',
        '{"event": "burst_started", "at": 1, "node": "", "burst": 1, "phase": "start", "nodes": [1]}',
        '{"event": "burst_started", "at": 1, "node": "", "burst": 1.5, "phase": "start", "nodes": []}',
        '{"event": "flag_raised", "at": 1, "node": "", "flag": "abort", "by": "", "why": "", "cause": []}',
        "[" * 100_000,
        '{"event": "processes_stopped", "at": 1, "node": "a", "processes": [' + '{"a":' * 900 + "1" + "}" * 900 + "]}",
    ],
)
def test_anything_else_is_no_event(line: str) -> None:
    """A line of the wrong shape, or with members of the wrong type, is refused as such."""
    with pytest.raises(ev.EventError):
        ev.decode(line)
