"""The one thread that folds news into a board and shows pictures of it, as often as eyes can follow and no more."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence

from testbed.events import RunEnded
from testbed_tui.sources import News, Source
from testbed_tui.state import Board
from testbed_tui.views import KeyChange, Picture

PACE = 0.1
"""Seconds between two pictures, at least."""

Show = Callable[[Picture, str], None]
"""Takes a picture and what is wrong with its sources; called on the courier's thread, must not block."""


class Courier:
    """Carries the news of one run from its sources to a screen.

    A picture is shown when the one before it was `taken`, so that a screen that is slow misses pictures, never piles
    them up.
    """

    def __init__(self, sources: Sequence[Source], show: Show, pace: float = PACE) -> None:
        self._sources = sources
        self._show = show
        self._pace = pace
        self._inbox: queue.SimpleQueue[tuple[int, Sequence[News] | str] | None] = queue.SimpleQueue()
        self._board = Board()
        self._picture = Picture()
        self._wrong: dict[int, str] = {}
        self._taken = True
        self._threads = [
            threading.Thread(target=self._listen, args=(n, s), name=f"source-{n}", daemon=True)
            for n, s in enumerate(sources)
        ]
        self._threads.append(threading.Thread(target=self._work, name="courier", daemon=True))

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def taken(self) -> None:
        """The screen has taken the last picture in; it may be shown the next."""
        self._inbox.put((-1, ()))

    def close(self) -> None:
        """Stop the sources and end; nothing is shown any more when this returns."""
        for source in self._sources:
            source.stop()
        self._inbox.put(None)
        for thread in self._threads:
            thread.join()

    def _listen(self, number: int, source: Source) -> None:
        try:
            source.run(lambda news: self._inbox.put((number, news)), lambda wrong: self._inbox.put((number, wrong)))
        except Exception as error:  # noqa: BLE001  a source that dies must not leave the screen believing it lives
            self._inbox.put((number, f"a source of news failed: {type(error).__name__}: {error}"))

    def _work(self) -> None:
        try:
            self._carry()
        except Exception as error:  # noqa: BLE001  a courier that dies must not leave the screen believing it lives
            wrong = f"this is a bug in the screen, which shows nothing new any more: {type(error).__name__}: {error}"
            self._show(self._picture, wrong)

    def _carry(self) -> None:
        """Fold what comes; show a picture when something is new, the screen is ready and the pace allows it."""
        new, due = True, 0.0
        while True:
            now = time.monotonic()
            if new and self._taken and now >= due:
                self._taken = new = False
                self._picture = self._board.picture()
                self._show(self._picture, "; ".join(w for w in self._wrong.values() if w))
                due = time.monotonic() + max(self._pace, time.monotonic() - now)
                continue
            try:
                piece = self._inbox.get(timeout=due - now if new and self._taken else None)
            except queue.Empty:
                continue
            if piece is None:
                return
            new = self._take(*piece) or new

    def _take(self, number: int, piece: Sequence[News] | str) -> bool:
        """Fold one delivery; whether a picture would show anything new."""
        if number == -1:
            self._taken = True
            return False
        if isinstance(piece, str):
            if not self._board.state.verdict:  # of a run that is over nothing is missing
                self._wrong[number] = piece
            return True
        for news in piece:
            if isinstance(news, KeyChange):
                self._board.change(news)
            else:
                self._board.add(news)
                if isinstance(news, RunEnded):
                    self._wrong.clear()
                    for source in self._sources:
                        source.over()
        return bool(piece)
