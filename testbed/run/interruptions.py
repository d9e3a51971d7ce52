"""The operator's signals while a run lasts: one way to end at each of its phases, and no phase in which they kill."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

from testbed.errors import Interrupted

WANTED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals by which an operator ends a run."""

PATIENCE = 3
"""The signal of that number, and all after it, does what it would have done without us."""


class Interruptions:
    """Signals as a scope, on the main thread; on another one it does nothing, and `to` neither.

    Before nodes live the first signal raises `Interrupted` where the program stands; while they live (`to`) each is
    told; once the run is being taken down (`over`) they are passed over: that part is bounded, and brings home what
    nobody could fetch later.
    """

    def __init__(self) -> None:
        self._tell: Callable[[str], None] | None = None
        self._seen = 0
        self._over = False
        self._before: dict[int, Any] = {}

    @contextmanager
    def to(self, tell: Callable[[str], None]) -> Iterator[None]:
        """Have every signal's name told to ``tell`` (from a signal handler: it must not block), and none after."""
        self._tell = tell
        try:
            yield
        finally:
            self.over()

    def over(self) -> None:
        """Pass over what comes from now on."""
        self._over, self._tell = True, None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in WANTED:
                if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                    continue  # nohup: the run is to outlive its terminal
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        self._seen += 1
        name = signal.Signals(number).name
        if self._seen >= PATIENCE:
            for caught, handler in self._before.items():
                signal.signal(caught, handler)
            signal.raise_signal(number)
        elif self._tell is not None:
            self._tell(name)
        elif not self._over:
            self._over = True  # what is taken down now is not interrupted once more
            raise Interrupted(f"the operator stopped the run ({name}) before its nodes were started")
