"""Nodes in doubt have their time, and no more."""

from __future__ import annotations

from testbed.run.doubted import Doubted


def test_each_has_its_own_time() -> None:
    """A node is due when its own time is over, once; doubting it again meanwhile gives it no more."""
    doubted = Doubted(10.0)
    assert doubted.alarm is None
    doubted.add("a", 100.0)
    doubted.add("b", 105.0)
    doubted.add("a", 106.0)
    first = doubted.alarm
    assert first is not None
    assert first > 110.0
    assert doubted.due(first - 1) == []
    assert doubted.due(first) == ["a"]
    assert doubted.alarm == first + 5
    assert doubted.due(first + 5) == ["b"]
    assert doubted.alarm is None
