"""What a stream can show."""

from __future__ import annotations

import os
import sys
from typing import IO

from testbed.errors import UsageError


def lively(stream: IO[str]) -> bool:
    """Whether lines on it can be redrawn: a terminal that is not dumb, and nobody's build log."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("CI")


def colourful(stream: IO[str]) -> bool:
    """Whether it shows colours, and the user wants them (``NO_COLOR``)."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("NO_COLOR")


def require_screen() -> None:
    """Raise `UsageError` where no screen can be: Textual draws it on stderr, and takes its keys from stdin.

    ``TEXTUAL_DRIVER`` names another place for both; textual-serve sets it.
    """
    if os.environ.get("TEXTUAL_DRIVER"):
        return
    for name, stream in (("stdin", sys.stdin), ("stderr", sys.stderr)):
        if not stream.isatty():
            raise UsageError(
                f"the screen needs a terminal, which {name} is not",
                "without one there are testbed status, logs --follow and report; in a browser, testbed tui --web PORT",
            )
    if os.environ.get("TERM", "dumb") == "dumb":
        raise UsageError("the screen needs a terminal that can be drawn on", "set TERM, to xterm-256color for example")
