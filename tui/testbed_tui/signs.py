"""What a verdict or a state looks like: a sign that reads without colours, and a colour beside it."""

from __future__ import annotations

from typing import NamedTuple

from testbed import events as ev
from testbed.report import state as st


class Look(NamedTuple):
    """A sign of one cell, and the name of its colour in `STYLES`."""

    sign: str
    tone: str


LOOKS: dict[str, Look] = {
    ev.PASSED: Look("✓", "good"),
    ev.FAILED: Look("✗", "bad"),
    ev.ERROR: Look("!", "bad"),
    ev.TIMEOUT: Look("◷", "bad"),
    ev.ABORTED: Look("⊘", "warn"),
    ev.CANCELLED: Look("⊗", "warn"),
    ev.MISSING: Look("?", "bad"),
    ev.SKIPPED: Look("-", "dim"),
    st.PLANNED: Look("·", "dim"),
    st.STARTING: Look("△", "busy"),
    st.RUNNING: Look("▶", "busy"),
    st.WAITING: Look("…", "wait"),
    st.FINALISING: Look("▽", "busy"),
    st.LOST: Look("☠", "bad"),
    st.ENDED: Look("■", "dim"),
}
"""The look of each verdict of a run, node or step, and of each state of a node."""

STYLES = {"good": "green", "bad": "bold red", "warn": "magenta", "busy": "cyan", "wait": "yellow", "dim": "dim"}
"""The colour of each tone, as Rich names it."""

NODE_COLOURS = ("cyan", "green", "yellow", "magenta", "blue", "bright_red", "bright_cyan", "bright_green",
                "bright_yellow", "bright_magenta", "bright_blue", "orange3")  # fmt: skip
"""The colours that tell nodes apart, in index order, over and over."""


def look(word: str) -> Look:
    """The look of a verdict or state; a question mark for a word nobody knows."""
    return LOOKS.get(word, Look("?" if word else " ", "dim"))


def style_of(word: str) -> str:
    """The colour of a verdict or state."""
    return STYLES[look(word).tone]
