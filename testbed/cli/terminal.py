"""What a stream can show."""

from __future__ import annotations

import os
from typing import IO


def lively(stream: IO[str]) -> bool:
    """Whether lines on it can be redrawn: a terminal that is not dumb, and nobody's build log."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("CI")


def colourful(stream: IO[str]) -> bool:
    """Whether it shows colours, and the user wants them (``NO_COLOR``)."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("NO_COLOR")
