"""When lines were written, told from events and sizes."""

from __future__ import annotations

import pytest

from testbed import events as ev
from testbed.report.moments import moments_of

STEP = ("n", "c.test.main")


def times(events: list[ev.Event], ends: list[int], size: int, stream: str = "out") -> list[tuple[float, bool]]:
    """The times of lines that end at these offsets of a log of ``size`` bytes, looked at at time 90."""
    found = moments_of([ev.encode(e) for e in events], {"n"})
    return [(round(at, 3), about) for at, about in found[STEP].times(stream, ends, size, 90.0)]


BEGAN = ev.StepStarted(10.0, "n", "c", "test", "main", None)
ENDED = ev.StepEnded(20.0, "n", "c", "test", "main", "passed", 0, 10.0, "")


def test_lines_are_spread_between_marks() -> None:
    """What was there when the node began to wait is older than the wait; what came after it is younger."""
    events = [
        BEGAN, ev.WaitStarted(11.0, "n", 0, "get", ["k"], None, 10, 0),
        ev.WaitEnded(18.0, "n", 0, "met", 7.0, 10, 0), ENDED,
    ]  # fmt: skip
    assert times(events, [5, 10, 15, 20], 20) == [(10.5, True), (11.0, True), (19.0, True), (20.0, True)]


def test_close_marks_make_a_time_known() -> None:
    """Between marks that are next to each other a time is no guess."""
    events = [BEGAN, ev.ValueSet(10.1, "n", "k", 1, 10, -1), ENDED]
    assert times(events, [10, 20], 20) == [(10.1, False), (20.0, True)]


def test_streams_have_marks_of_their_own() -> None:
    """Sizes of stdout say nothing of stderr."""
    events = [BEGAN, ev.ValueSet(12.0, "n", "k", 1, 10, 40), ENDED]
    assert times(events, [40, 80], 80, "err") == [(12.0, True), (20.0, True)]


def test_a_step_that_goes_on_ends_with_its_log() -> None:
    """Where there is no end yet, the log's last change stands in for it."""
    assert times([BEGAN], [10, 20], 20) == [(50.0, True), (90.0, True)]


@pytest.mark.parametrize(
    "events",
    [
        [BEGAN, ev.ValueSet(12.0, "n", "k", 1, 30, 0), ev.ValueSet(11.0, "n", "k", 1, 10, 0), ENDED],
        [BEGAN, ev.ValueSet(12.0, "n", "k", 1, 1 << 50, 0), ENDED],
        [BEGAN, ev.ValueSet(12.0, "n", "k", 1, -7, 0), ENDED],
        [BEGAN, ev.StepEnded(5.0, "n", "c", "test", "main", "passed", 0, 10.0, "")],
    ],
    ids=["backwards", "larger than the log", "negative", "ends before it begins"],
)
def test_what_contradicts_itself_is_borne(events: list[ev.Event]) -> None:
    """Sizes and times come from nodes: whatever they say, lines stay in their order."""
    found = [at for at, _ in times(events, list(range(1, 41)), 40)]
    assert found == sorted(found)


def test_nonsense_among_events_is_passed_over() -> None:
    """A broken line, and an event of another node, change nothing."""
    assert moments_of(['{"event":"step_started"', '"value_set"', ev.encode(BEGAN)], {"other"}) == {}
