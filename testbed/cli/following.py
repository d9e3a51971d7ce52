"""``testbed run --follow``: the progress of a run, and between its lines what the steps write."""

from __future__ import annotations

import sys
import threading
from typing import Any, Self

from testbed import events as ev
from testbed.cli.looking import Look
from testbed.cli.progress import PlainProgress
from testbed.cli.showing import Lines, show_all
from testbed.cli.terminal import colourful
from testbed.coord.chunks import EVERY
from testbed.coord.peeking import Wanted
from testbed.errors import TestbedError
from testbed.run.directory import RunDirectory
from testbed.run.scopes import read_access


class FollowingProgress(PlainProgress):
    """A line per event that matters, and from the first node's start on every line of every step."""

    def __init__(self, directory: RunDirectory, nodes: tuple[str, ...]) -> None:
        super().__init__(sys.stderr)
        self._directory, self._nodes = directory, nodes
        self._look: Look | None = None
        self._thread: threading.Thread | None = None

    def __call__(self, event: ev.Event) -> None:
        """See `Progress`."""
        super().__call__(event)
        if isinstance(event, ev.NodeStarted) and self._look is None:
            access = read_access(self._directory.access)
            self._look = Look(self._directory.run, Wanted(self._nodes, EVERY), self._directory, access)
            self._thread = threading.Thread(target=self._show, args=(self._look,), name="following", daemon=True)
            self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *of: Any) -> None:
        if self._look is not None and self._thread is not None:
            self._look.end()
            self._thread.join()
        super().__exit__(*of)

    def _show(self, look: Look) -> None:
        # What else there is to say of the nodes, the progress says.
        lines = Lines(sys.stderr.buffer, self._nodes, colourful(sys.stderr), raw=False, grep=None, say=lambda _: None)
        try:
            show_all(look, lines)
        except TestbedError as error:
            print(f"nothing more is shown: {error.message}", file=sys.stderr)  # noqa: T201  the run itself goes on
