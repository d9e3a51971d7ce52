"""The help page: what the signs mean, and every key of every screen."""

from __future__ import annotations

from rich.text import Text

from testbed_tui.signs import LOOKS, STYLES

KEYS = (
    ("everywhere", (("1 ... 6", "the screens"), ("ctrl+p", "command palette, themes"),
                    ("y", "copy a command that does the same"), ("?", "this page"), ("q", "leave"),
                    ("space < >", "a recording: pause, slower, faster"))),
    ("runs", (("enter", "open the run"), ("n", "start a run"), ("c", "clean up after it"), ("s", "sort"),
              ("/", "filter"))),
    ("run", (("a", "abort, with a reason"), ("f", "finalise"), ("c", "clean"), ("s", "shell on the node's machine"),
             ("enter", "the node's log"), ("t", "trouble only"), ("/", "filter"))),
    ("log", (("f", "follow"), ("/ n N", "search, next, previous"), ("[ ]", "node before, node after"),
             ("a", "all nodes merged"), ("o", "stdout, stderr, both"), ("t", "times or none"), ("w", "save"))),
    ("coordination", (("t w k b", "timeline, waits, keys, barriers"), ("+ -", "timeline wider, narrower"))),
    ("machines", (("r", "ask them again"), ("s", "shell"))),
    ("report", (("enter", "log at the line where it stopped"), ("v j l", "results, JUnit cases, files"))),
)  # fmt: skip


def help_text() -> Text:
    """The page."""
    text = Text("Signs: ", "bold")
    for word, look in LOOKS.items():
        text.append(f"{look.sign} {word}  ", STYLES[look.tone])
    for screen, keys in KEYS:
        text.append(f"\n\n{screen}", "bold")
        for key, meaning in keys:
            text.append(f"\n  {key:10}", STYLES["busy"])
            text.append(meaning)
    return text
