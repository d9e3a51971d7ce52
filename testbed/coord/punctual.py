"""What must end in time although it asks a store that may not answer."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Callable, List, Optional, Tuple, TypeVar

from testbed.coord.store import StoreError

T = TypeVar("T")


class TooLate(Exception):
    """It was not done in time."""


def in_time(do: Callable[[], T], seconds: Optional[float], undo: Optional[Callable[[T], object]] = None) -> T:
    """Give what ``do()`` gives; raises what it raises, and TooLate where it takes longer than that.

    Then it goes on by itself, and ``undo`` is called with what it gives in the end. With None for ``seconds`` it may
    take as long as it likes.
    """
    if seconds is None:
        return do()
    lock = threading.Lock()
    ended = threading.Event()
    given: List[T] = []
    raised: List[BaseException] = []
    waiting: List[Tuple[()]] = [()]

    def work() -> None:
        try:
            given.append(do())
        except BaseException as error:  # noqa: BLE001  raised by whoever waits
            raised.append(error)
        with lock:
            ended.set()
        if given and undo is not None and not waiting:
            with suppress(StoreError):  # nobody is left to be told; whoever lost etcd is told of that by itself
                undo(given[0])

    threading.Thread(target=work, name="bounded", daemon=True).start()
    ended.wait(min(max(0.0, seconds), threading.TIMEOUT_MAX))
    with lock:
        if not ended.is_set():
            waiting.clear()
            raise TooLate
    if raised:
        raise raised[0]
    return given[0]
