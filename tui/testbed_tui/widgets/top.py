"""The first lines of every screen: which run this is and how it stands, and the way to the other screens."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

MODES = {
    "runs": ("1", "Runs"), "run": ("2", "Run"), "log": ("3", "Log"), "coordination": ("4", "Coordination"),
    "machines": ("5", "Machines"), "report": ("6", "Report"),
}  # fmt: skip
"""Each screen's key and name."""


class Top(Vertical):
    """Title and tabs; clicking a tab is pressing its key."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self._mode = mode

    def compose(self) -> ComposeResult:
        """Make the two lines."""
        yield Static(id="title")
        tabs = [
            f"[@click=app.switch_mode('{mode}')][{'reverse bold' if mode == self._mode else 'not bold'}]"
            f" {key} {name} [/][/]"
            for mode, (key, name) in MODES.items()
        ]
        yield Static(" ".join(tabs), id="tabs")

    def say(self, text: str) -> None:
        """Show the title; ``text`` is plain."""
        self.query_one("#title", Static).update(Text(text, no_wrap=True, overflow="ellipsis"))
