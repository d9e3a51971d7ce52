"""What asks a store ends in time, and what comes too late is undone."""

from __future__ import annotations

import queue
import threading

import pytest

from testbed.coord.punctual import TooLate, in_time
from testbed.coord.store import StoreError


@pytest.mark.parametrize("seconds", [None, 60.0])
def test_what_comes_in_time_is_given(seconds: float | None) -> None:
    """The value or the error comes through, and nothing is undone."""
    undone: list[int] = []
    assert in_time(lambda: 7, seconds, undone.append) == 7
    with pytest.raises(ZeroDivisionError):
        in_time(lambda: 1 // 0, seconds, undone.append)
    assert undone == []


def test_what_comes_too_late_is_undone() -> None:
    """Whoever asks is not kept, and what was done after all is undone once it is."""
    answer = threading.Event()
    undone: queue.SimpleQueue[int] = queue.SimpleQueue()

    def ask() -> int:
        answer.wait(60)
        return 7

    with pytest.raises(TooLate):
        in_time(ask, 0.01, undone.put)
    assert undone.empty()
    answer.set()
    assert undone.get(timeout=60) == 7


def test_what_fails_too_late_is_not_undone() -> None:
    """An error that comes too late is nobody's any more: there is nothing to undo."""
    answer = threading.Event()
    asked: queue.SimpleQueue[threading.Thread] = queue.SimpleQueue()
    undone: list[object] = []

    def ask() -> None:
        asked.put(threading.current_thread())
        answer.wait(60)
        raise StoreError("away")

    with pytest.raises(TooLate):
        in_time(ask, 0.01, undone.append)
    answer.set()
    asked.get(timeout=60).join(60)
    assert undone == []
