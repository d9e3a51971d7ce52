"""The output of steps: of one node or of all, of one step or of all, as it comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal
from textual.message import Message
from textual.widgets import Input, Select, Static

from testbed_tui.logs import ERR, NOTE, OUT, Listening, LogLine, Wanted, began, ended
from testbed_tui.screens.base import View
from testbed_tui.screens.dialogs import Ask
from testbed_tui.views import NodeView, Picture
from testbed_tui.widgets.logview import LogView

ALL = ""
STREAMS = {"": "both streams", OUT: "stdout only", ERR: "stderr only"}


class LogsView(View):
    """Choose node and step; the lines are read by a thread of their own."""

    MODE = "log"
    BINDINGS = [
        ("f", "follow", "Follow"),
        ("slash", "search", "Search"),
        ("n", "hit(True)", "Next"),
        ("N", "hit(False)", ""),
        ("a", "all", "All"),
        ("o", "stream", "out/err"),
        ("t", "times", ""),
        ("w", "save", "Save"),
        Binding("left_square_bracket", "node(-1)", "Nodes", key_display="[ ]"),
        ("right_square_bracket", "node(1)", ""),
        ("escape", "leave_search", ""),
    ]

    class Lines(Message):
        """Lines of the listener with that number."""

        def __init__(self, number: int, lines: Sequence[LogLine]) -> None:
            super().__init__()
            self.number, self.lines = number, lines

    def __init__(self) -> None:
        super().__init__()
        self._listening: Listening | None = None
        self._number = 0
        self._told: dict[str, tuple[NodeView, set[tuple[str, bool]]]] = {}  # the steps whose begin and end is shown
        self._names: tuple[str, ...] = ()
        self._steps: tuple[str, ...] = ()
        self._asked: tuple[object, ...] = ()
        self._goal: str | None = None

    def body(self) -> ComposeResult:
        """Make the choice above and the lines below."""
        with Horizontal(id="choice"):
            yield Select([("all nodes", ALL)], value=ALL, allow_blank=False, compact=True, id="node")
            yield Select([("all steps", ALL)], value=ALL, allow_blank=False, compact=True, id="step")
        yield Input(placeholder="search for ...", classes="filter", id="search")
        yield LogView(id="log")
        yield Static(id="logstate")

    def on_mount(self) -> None:
        """Begin with the lines, not with the choice."""
        super().on_mount()
        self.query_one(LogView).focus()

    def on_unmount(self) -> None:
        """Listen no more."""
        self._stop()

    def on_screen_suspend(self) -> None:
        """Nobody looks: nothing is read."""
        self._stop()
        self._asked = ()

    def open(self, node: str | None, step: str = ALL, at_failure: bool = False) -> None:
        """Show that node's log, of one step where ``step`` names it; ``at_failure`` at its last line."""
        self._fill(self.owner.picture)
        self.query_one("#node", Select).value = node if node in self._names else ALL
        self._fill(self.owner.picture)
        self.query_one("#step", Select).value = step if step in self._steps else ALL
        self._goal = step if at_failure else None
        self._asked = ()
        self._listen()

    def show(self, picture: Picture, now: float) -> None:  # noqa: ARG002  logs know no time
        """See `View`."""
        self._fill(picture)
        self._listen()
        self._tell_of_steps(picture)
        self._say()

    def chosen_node(self) -> str | None:
        """See `View`."""
        return str(self.query_one("#node", Select).value) or None

    def _fill(self, picture: Picture) -> None:
        """Offer the nodes and steps that there are."""
        nodes = tuple(n.name for n in picture.nodes)
        choice = self.query_one("#node", Select)
        if nodes != self._names:
            self._names = nodes
            kept = choice.value
            choice.set_options([("all nodes", ALL), *((Text(n), n) for n in nodes)])
            choice.value = kept if kept in nodes else ALL
        chosen = [n for n in picture.nodes if choice.value in (ALL, n.name)]
        steps = tuple(dict.fromkeys(str(s.key) for n in chosen for s in n.steps))
        if steps != self._steps:
            self._steps = steps
            box = self.query_one("#step", Select)
            kept = box.value
            box.set_options([("all steps", ALL), *((Text(s), s) for s in steps)])
            box.value = kept if kept in steps else ALL

    def _listen(self) -> None:
        """Listen to what is chosen, anew where that has changed."""
        run = self.owner.attachment.run if self.owner.attachment is not None else ""
        node, step = self.query_one("#node", Select).value, self.query_one("#step", Select).value
        nodes = self._names if node == ALL else (str(node),)
        asked = (run, nodes, step)
        if asked == self._asked:
            return
        self._stop()
        self._asked = asked
        self._number += 1
        self._told = {}
        picture = self.owner.picture
        view = self.query_one(LogView)
        view.begin({n: i for i, n in enumerate(self._names)}, len(nodes) > 1, picture.started_at or 0.0)
        source = self.owner.attachment.logs() if self.owner.attachment is not None else None
        if source is None or not nodes:
            return
        number = self._number
        wanted = Wanted(nodes, "" if step == ALL else str(step))
        self._listening = source.listen(wanted, lambda lines: self._heard(number, lines))

    def _heard(self, number: int, lines: Sequence[LogLine]) -> None:
        """On the source's thread."""
        self.post_message(self.Lines(number, lines))

    def on_logs_view_lines(self, event: Lines) -> None:
        """Show more lines."""
        if event.number != self._number:
            return
        view = self.query_one(LogView)
        view.add(event.lines)
        if self._goal is not None and view.lines:
            self._point_at_failure(view)
        self._say()

    def _tell_of_steps(self, picture: Picture) -> None:
        """Put in when the chosen steps began and ended; nodes that show their logs themselves tell that too."""
        if self.owner.attachment is None or self.owner.attachment.directory is None:
            return
        node, step = self.query_one("#node", Select).value, self.query_one("#step", Select).value
        notes: list[LogLine] = []
        for view in picture.nodes if node == ALL else filter(None, [picture.node(str(node))]):
            known, told = self._told.get(view.name, (None, set()))
            if known is not view:
                notes += _notes(view, str(step), told)
                self._told[view.name] = view, told
        self.query_one(LogView).add(sorted(notes, key=lambda line: line.at))

    def _point_at_failure(self, view: LogView) -> None:
        """The last thing that the step wrote: on stderr if it wrote there, else on stdout."""
        spoken = [n for n, line in enumerate(view.lines) if line.text.strip() and line.stream != NOTE]
        complaints = [n for n in spoken if view.lines[n].stream == ERR]
        if spoken:
            view.go_to((complaints or spoken)[-1])

    def _say(self) -> None:
        view = self.query_one(LogView)
        parts = [f"{len(view.lines)} lines", STREAMS[view.only]]
        parts.append("following" if view.follow else "not following (f)")
        if view.needle:
            hits = sum(1 for line in view.lines if view.needle.lower() in line.text.lower())
            parts.append(f"{hits} lines with {view.needle!r}")
        if self.owner.attachment is not None and self.owner.attachment.directory is None:
            parts.append("as the nodes show it: ended steps by choosing them, ended nodes no more")
        elif not any(line.stream != NOTE for line in view.lines):
            parts.append("logs of other machines come home when a node has ended: `testbed peek` shows them now")
        self.query_one("#logstate", Static).update(Text("  ".join(parts)))

    def _stop(self) -> None:
        if self._listening is not None:
            threading.Thread(target=self._listening.close, name="farewell").start()  # which may take its time
            self._listening = None

    def on_select_changed(self, event: Select.Changed) -> None:
        """Show what was chosen."""
        if event.select.id == "node":
            self._fill(self.owner.picture)
        self._listen()
        self._say()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Search while it is typed."""
        self.query_one(LogView).needle = event.value
        self._say()

    def on_input_submitted(self) -> None:
        """Go to the first hit."""
        self.query_one(LogView).focus()
        self.action_hit(True)

    def action_follow(self) -> None:
        """Follow the end, or stay where it is."""
        view = self.query_one(LogView)
        view.follow = not view.follow
        self._say()

    def action_search(self) -> None:
        """Ask what to search for."""
        box = self.query_one("#search", Input)
        box.add_class("on")
        box.focus()

    def action_leave_search(self) -> None:
        """Show all lines alike again."""
        box = self.query_one("#search", Input)
        box.value = ""
        box.remove_class("on")
        self.query_one(LogView).focus()

    def action_hit(self, forward: bool) -> None:
        """Go to the next line with what is searched for."""
        view = self.query_one(LogView)
        if view.needle and not view.find(forward):
            self.notify(f"{view.needle!r} is nowhere in it", severity="warning")
        self._say()

    def action_all(self) -> None:
        """All nodes, merged."""
        self.query_one("#node", Select).value = ALL

    def action_node(self, by: int) -> None:
        """The next node, or the one before."""
        choices = (ALL, *self._names)
        box = self.query_one("#node", Select)
        box.value = choices[(choices.index(str(box.value)) + by) % len(choices)]

    def action_stream(self) -> None:
        """Both streams, stdout alone, or stderr alone."""
        view, streams = self.query_one(LogView), list(STREAMS)
        view.only = streams[(streams.index(view.only) + 1) % len(streams)]
        self._say()

    def action_times(self) -> None:
        """Show when lines were written, or do not."""
        view = self.query_one(LogView)
        view.times = not view.times

    def action_save(self) -> None:
        """Write the lines into a file."""
        question = "Save these lines to which file?"
        self.app.push_screen(Ask(question, "", ["Save"], hint="FILE"), self._save)

    def _save(self, name: str | None) -> None:
        if not name:
            return
        view, path = self.query_one(LogView), Path(name).expanduser()
        try:
            with path.open("x", encoding="utf-8") as file:
                for line in view.lines:
                    when = time.strftime("%H:%M:%S", time.localtime(line.at)) + f".{line.at % 1 * 1000:03.0f}"
                    about = "~" if line.about else " "
                    file.write(f"{about}{when} {line.node} {line.step}.{line.stream} | {line.text}\n")
        except OSError as error:
            self.notify(f"{path}: {error.strerror}", severity="error")
        else:
            self.notify(f"{len(view.lines)} lines are in {path}")


def _notes(node: NodeView, wanted: str, told: set[tuple[str, bool]]) -> Iterator[LogLine]:
    """Begins and ends of the node's steps that were not ``told`` yet; those of one step only where it is ``wanted``."""
    ends = {bar.label: bar.end for bar in node.bars if bar.kind == "step"}
    for step in node.steps:
        name = str(step.key)
        if step.started_at is None or wanted not in (ALL, name):
            continue
        if (name, False) not in told:
            told.add((name, False))
            yield began(node.name, name, step.started_at)
        end = ends.get(name)
        if step.verdict and end is not None and (name, True) not in told:
            told.add((name, True))
            yield ended(node.name, name, end, step.verdict, step.exit_code, step.reason)
