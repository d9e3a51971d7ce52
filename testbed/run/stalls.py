"""Looks out for a stall while a run lives: who waits, whether everybody does, and whether that has lasted.

That all nodes wait is seen from what they tell; that none of them could go on by itself, only they know, and are asked:
once when half of the grace is over without anything having moved, and again at its end. If nothing of any node has run
between the two answers, there was a moment at which all of them stood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from testbed.agent.doing import STILL
from testbed.run import watching
from testbed.run.stall import Member, Wait

LONGEST_PAUSE = 60.0
"""Seconds between two rounds of questions at most, while somebody could go on and does not."""

Ask = Callable[[Sequence[str], str], None]
"""Asks nodes what they do; the answers come as `Stalls.answered`."""


class Stalls:
    """What is known of the waits of a run's nodes. Times are monotonic seconds; with a ``grace`` of None it sleeps."""

    def __init__(self, names: Iterable[str], grace: float | None, ask: Ask) -> None:
        self._names = list(names)
        self._grace = grace
        self._ask = ask
        self._waits: dict[str, dict[int, Wait]] = {}  # of living nodes that wait
        self._gone: dict[str, str] = {}
        self._alarm: float | None = None
        self._moved = 0.0
        self._rounds = 0
        self._pause = 0.0
        self._answers: dict[str, str] | None = None  # of the round that goes on: node to what has run
        self._before: dict[str, str] | None = None  # of the round before it, if everybody stood then

    @property
    def members(self) -> list[Member]:
        """The nodes, taken to stand."""
        return [
            Member(name, tuple(self._waits.get(name, {}).values()), name in self._waits, self._gone.get(name, ""))
            for name in self._names
        ]

    # --- what is told -------------------------------------------------------------------------------------------

    def hear(self, message: object, now: float) -> bool:
        """Take in whatever happens in the run; whether all of its nodes have stood for the whole grace."""
        if isinstance(message, watching.Answered):
            return self.answered(message.node, message.told, now)
        self.moved(now)
        if isinstance(message, watching.Waits):
            if message.told is None:
                self.over(message.node, message.number)
            else:
                self.began(message.node, message.number, message.told, now)
        return False

    def moved(self, now: float) -> None:
        """Something has happened in the run: nobody has stood up to now."""
        self._moved, self._pause = now, 0.0
        self._answers = self._before = None

    def began(self, node: str, number: int, told: Mapping[str, Any], now: float) -> None:
        """A node has begun to wait."""
        if node not in self._gone:
            names = tuple(str(name) for name in told["names"])
            self._waits.setdefault(node, {})[number] = Wait(str(told["what"]), names, now, dict(told))

    def over(self, node: str, number: int) -> None:
        """A wait is over."""
        waits = self._waits.get(node, {})
        waits.pop(number, None)
        if not waits:
            self._waits.pop(node, None)

    def gone(self, node: str, why: str) -> None:
        """A node brings nothing any more."""
        self._gone.setdefault(node, why)
        self._waits.pop(node, None)

    def answered(self, node: str, told: Mapping[str, Any], now: float) -> bool:
        """Take in what a node says of itself; whether the run has stood for the whole grace."""
        if self._answers is None or self._grace is None or told.get("asked") != self._question:
            return False
        stands = not told.get("able") and told.get("open") == sorted(self._waits.get(node, {}))
        if not stands:
            self._later(now)
            return False
        self._answers[node] = str(told.get("ran"))
        if self._answers.keys() != self._waits.keys():
            return False
        answers, before, self._answers = self._answers, self._before, None
        if answers == before and now >= self._moved + self._grace:
            self._later(now)  # should it be no stall all the same
            return True
        self._before = answers
        self._alarm = max(self._moved + self._grace, now + self._grace / 2)
        return False

    # --- what is due --------------------------------------------------------------------------------------------

    def consider(self, busy: int, living: int, now: float) -> float | None:
        """When to `ring`: if all ``living`` nodes wait and nobody is ``busy`` with what is not theirs alone."""
        if self._grace is None or busy or living != len(self._waits) or not living:
            self._alarm = None
        elif self._alarm is None:
            self._alarm = max(now, self._moved + self._grace / 2)
        return self._alarm

    def ring(self, now: float) -> None:
        """The alarm's moment has come: ask, unless something has moved since it was set."""
        assert self._grace is not None  # noqa: S101  else there is no alarm
        if now < self._moved + self._grace / 2:
            self._alarm = self._moved + self._grace / 2
            return
        before = self._before
        self._later(now)
        self._before, self._answers = before, {}
        self._rounds += 1
        self._ask(list(self._waits), self._question)

    @property
    def _question(self) -> str:
        return f"{STILL}{self._rounds}"

    def _later(self, now: float) -> None:
        """Begin anew after a pause that grows."""
        assert self._grace is not None  # noqa: S101  else nobody is asked
        self._pause = min(LONGEST_PAUSE, max(self._grace, 2 * self._pause))
        self._alarm = now + self._pause
        self._answers = self._before = None
