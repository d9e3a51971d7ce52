"""Calls that block, on threads of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any


class Background:
    """A call on a thread of its own, and how it ended."""

    def __init__(self, call: Callable[..., Any], *args: Any, **rest: Any) -> None:
        self.result: Any = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(call, args, rest))
        self._thread.start()

    def _run(self, call: Callable[..., Any], args: tuple[Any, ...], rest: dict[str, Any]) -> None:
        try:
            self.result = call(*args, **rest)
        except Exception as error:  # noqa: BLE001  the test looks at it
            self.error = error

    @property
    def done(self) -> bool:
        """Whether it has ended."""
        return not self._thread.is_alive()

    def join(self) -> Background:
        """Wait for its end."""
        self._thread.join(100)
        assert not self._thread.is_alive()
        return self

    def outcome(self) -> Any:
        """What it gave, after its end; raises what it raised."""
        self.join()
        if self.error is not None:
            raise self.error
        return self.result


class Blocked:
    """A board that says when somebody has blocked: `await_waits` returns once so many waits have begun."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.open: set[int] = set()
        self._some = threading.Condition()

    def begin(self, what: str, names: list[str], timeout: float | None, details: Any) -> int:
        """Note that a wait has begun."""
        with self._some:
            self.told.append({"what": what, "names": names, "timeout": timeout, **details})
            number = len(self.told)
            self.open.add(number)
            self._some.notify_all()
            return number

    def end(self, wait: int, outcome: str) -> None:
        """Note that it has ended."""
        with self._some:
            self.open.remove(wait)
            self.told[wait - 1]["outcome"] = outcome

    def await_waits(self, count: int) -> None:
        """Return when so many waits have begun in all."""
        with self._some:
            assert self._some.wait_for(lambda: len(self.told) >= count, 60), self.told
