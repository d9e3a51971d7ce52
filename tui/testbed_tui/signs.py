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

RED = "#ef5b5b"

STYLES = {
    "good": "#4fb060", "bad": f"bold {RED}", "warn": "#c07be0", "busy": "#3fa7c4", "wait": "#d49a2a", "dim": "dim",
}  # fmt: skip
"""The colour of each tone: by value, because themes give several of the named ones the same."""

NODE_COLOURS = ("#3fa7c4", "#4fb060", "#d49a2a", "#c07be0", "#6f92e0", "#d9825a", "#45b398", "#a8a23a", "#d878a8",
                "#8f87e0", "#7fa0b0", "#b0906a")  # fmt: skip
"""The colours that tell nodes apart, in index order, over and over; none of them is that of trouble."""


def look(word: str) -> Look:
    """The look of a verdict or state; a question mark for a word nobody knows."""
    return LOOKS.get(word, Look("?" if word else " ", "dim"))


def style_of(word: str) -> str:
    """The colour of a verdict or state."""
    return STYLES[look(word).tone]
