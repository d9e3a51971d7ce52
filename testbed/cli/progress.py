"""What a run shows while it goes on: one live line per node on a terminal, else one plain line per event."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import IO, Any, Protocol, Self

from testbed import events as ev
from testbed.cli.terminal import lively
from testbed.report.harmless import harmless_line
from testbed.report.sentence import matters, sentence
from testbed.report.state import BAD, FINALISING, LOST, PLANNED, RUNNING, STARTING, WAITING, Fold, NodeState
from testbed.report.text import span

Clock = Callable[[], float]
"""Seconds that only rise."""

_RANK = {LOST: 0, FINALISING: 2, RUNNING: 2, WAITING: 3, STARTING: 4, PLANNED: 5}
_STYLES = {LOST: "red", RUNNING: "cyan", FINALISING: "cyan", WAITING: "yellow", ev.PASSED: "green"}


class Progress(Protocol):
    """A scope that is told every event of a run, in order, from any thread."""

    def __call__(self, event: ev.Event) -> None:
        """Take the next event."""

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None: ...


def progress(stream: IO[str], clock: Clock = time.monotonic) -> Progress:
    """The progress that suits the stream."""
    return LiveProgress(stream, clock) if lively(stream) else PlainProgress(stream, clock)


class PlainProgress:
    """One line per event that matters: seconds since the start, the node (``-`` for the run), what happened."""

    def __init__(self, stream: IO[str], clock: Clock = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._began = clock()

    def __call__(self, event: ev.Event) -> None:
        """Print the event; it is stamped with its arrival, as nodes' clocks may be wrong."""
        if matters(event):
            node = harmless_line(event.node, 63) or "-"
            self._stream.write(f"{self._clock() - self._began:8.1f}s  {node}  {sentence(event)}\n")
            self._stream.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.flush()


class LiveProgress:
    """A line per node that is redrawn, troubled and working nodes first, and a bar for the whole run."""

    def __init__(self, stream: IO[str], clock: Clock = time.monotonic) -> None:
        from rich.console import Console
        from rich.live import Live

        self._clock = clock
        self._began = clock()
        self._lock = threading.Lock()
        self._fold = Fold()
        self._since: dict[str, tuple[str, float]] = {}
        self._steps = self._done = 0
        self._console = Console(file=stream)
        self._live = Live(
            get_renderable=self.picture, console=self._console, transient=True, refresh_per_second=4,
            redirect_stdout=False, redirect_stderr=False,
        )  # fmt: skip

    def __call__(self, event: ev.Event) -> None:
        """Take the event in; the picture is drawn from time to time on its own."""
        with self._lock:
            self._fold.add(event)
            if isinstance(event, ev.NodePlanned):
                self._steps += sum(len(steps) for _, _, steps in self._fold.state.nodes[event.node].targets)
            elif isinstance(event, ev.StepEnded):
                self._done += 1
            node = self._fold.state.nodes.get(event.node) if event.node else None
            if node is not None:
                doing = _doing(node)
                if self._since.get(node.name, ("", 0.0))[0] != doing:
                    self._since[node.name] = (doing, self._clock())
        if isinstance(event, ev.Notice | ev.MachineFailed | ev.FlagRaised | ev.NodeLost):
            self._console.print(f"{event.node or '-'}  {sentence(event)}", markup=False, highlight=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)

    def picture(self) -> Any:
        """The run as it is now, as high as the terminal at most."""
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        with self._lock:
            now = self._clock()
            nodes = sorted(self._fold.state.nodes.values(), key=_rank)
            room = max(3, self._console.size.height - 3)
            shown = nodes if len(nodes) <= room else nodes[: room - 1]
            grid = Table.grid(padding=(0, 2))
            grid.add_column(no_wrap=True)
            grid.add_column(no_wrap=True)
            grid.add_column(no_wrap=True, overflow="ellipsis")
            grid.add_column(no_wrap=True, justify="right")
            for node in shown:
                word = node.verdict or node.state
                style = "red" if word in BAD or node.failure else _STYLES.get(word, "dim")
                doing, since = self._since.get(node.name, ("", self._began))
                took = "" if node.verdict else span(now - since)
                grid.add_row(harmless_line(node.name, 63), Text(word, style), Text(doing), took)
            rest = len(nodes) - len(shown)
            more = [Text(f"... and {rest} more nodes", "dim")] if rest else []
            ended = sum(1 for n in nodes if n.verdict)
            bar = Table.grid(padding=(0, 2))
            bar.add_row(
                ProgressBar(total=max(self._steps, 1), completed=min(self._done, self._steps), width=32),
                f"{self._done}/{self._steps} steps",
                f"{ended}/{len(nodes)} nodes ended",
                span(now - self._began),
            )
        return Group(grid, *more, bar)


def _rank(node: NodeState) -> tuple[int, int, str]:
    """Troubled nodes first, then those at work, then the others; those that are through last."""
    if node.verdict:
        return (1 if node.verdict in BAD else 6, node.index, node.name)
    return (0 if node.failure else _RANK[node.state], node.index, node.name)


def _doing(node: NodeState) -> str:
    """What the node is at: its step, and what it waits for."""
    if node.verdict:
        return harmless_line(node.reason, 120)
    if node.failure is not None:
        return harmless_line(node.failure.reason, 120)
    words = [str(node.current.key)] if node.current else []
    if node.waits:
        words.append("waits for " + ", ".join(" ".join(w.names) for w in node.waits.values()))
    elif node.wants is not None:
        words.append("waits for ansible")
    return harmless_line(" ".join(words), 120)
