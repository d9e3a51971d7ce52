"""What is seen of steps whose logs are home: all nodes' together, in the order in which it was written."""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path

from testbed.agent.shown import last_lines
from testbed.coord.chunks import ERR, FROM_START, OUT, PIECE, RUNNING, Begun, Ended, Note, Output, matches
from testbed.coord.peeking import Gone, Seen, Wanted
from testbed.report.files import open_regular
from testbed.report.moments import Moments, moments_of
from testbed.report.state import COLLECTED, NodeState, StepState
from testbed.run.directory import RunDirectory

_AT_ONCE = 16 * 1024
"""Bytes of a log that are read at a time where those of many are merged."""

Timed = tuple[float, Seen]


class Home:
    """The logs in a run directory, each from where it was shown to last.

    ``ends`` holds for (node, step, stream) the bytes that were shown, and is kept up; ``over`` the (node, step) whose
    end was shown. ``failed`` is set where a node's logs are not there.
    """

    def __init__(
        self,
        directory: RunDirectory,
        wanted: Wanted,
        ends: dict[tuple[str, str, str], int],
        over: set[tuple[str, str]],
    ) -> None:
        self._directory, self._wanted, self._ends, self._over = directory, wanted, ends, over
        self._alone = False  # one log at a time: nothing is to be put in order
        self.failed = False

    def show(self, nodes: Sequence[str]) -> Iterator[Seen]:
        """The steps of the ``nodes`` that were asked for. Logs hold no times: `testbed.report.moments` has them."""
        from testbed.cli.reading import read_directory

        if not nodes:
            return
        self._alone = len(nodes) == len(self._wanted.streams) == 1
        states = read_directory(self._directory).state.nodes
        with self._directory.events.open(encoding="utf-8", errors="replace") as lines:
            moments = {} if self._alone else moments_of(lines, frozenset(nodes))
        told = [self._node(states[node], moments) for node in nodes if node in states]
        for _, (node, seen) in heapq.merge(*told, key=itemgetter(0)):
            if isinstance(seen, Output):
                self._ends[node, seen.step, seen.stream] = seen.offset + len(seen.data)
            yield node, seen

    def rest(self, node: str, step: str, streams: Sequence[str]) -> Iterator[Seen]:
        """What logs of one step hold beyond what was shown, one after the other."""
        for stream in streams:
            if stream not in self._wanted.streams:
                continue
            key = (node, step, stream)
            try:
                descriptor = open_regular(self._log(*key))
            except OSError:
                continue  # it did not come home, or there never was one
            with os.fdopen(descriptor, "rb") as log:
                log.seek(self._ends.get(key, 0))
                while data := log.read(PIECE):
                    at = self._ends.get(key, 0)
                    self._ends[key] = at + len(data)
                    yield node, Output(step, stream, at, data)

    def _node(self, state: NodeState, moments: dict[tuple[str, str], Moments]) -> Iterator[Timed]:
        node = state.name
        steps = self._asked(state)
        if state.results != COLLECTED and any(not self._is_ansible(node, s) for s in steps):
            self.failed = True
            why = state.results_reason or ("nobody brought them" if state.verdict else "they come when it has ended")
            yield math.inf, (node, Gone(f"its logs are not home: {why}", well=False))
            return
        if not steps:
            yield 0.0, (node, Note(f"ran no step {self._wanted.step or ''}".rstrip()))
        for number, step in enumerate(steps):
            yield from self._step(node, step, moments, first=not number)

    def _step(
        self, node: str, step: StepState, moments: dict[tuple[str, str], Moments], first: bool
    ) -> Iterator[Timed]:
        name, began = str(step.key), step.started_at or 0.0
        known = moments.get((node, name)) or Moments(began, began + step.duration)
        at = {stream: self._start(node, name, stream, first) for stream in self._wanted.streams}
        if (node, name) not in self._over:
            yield began, (node, Begun(name, at.get(OUT, 0), at.get(ERR, 0)))
        for stream in self._wanted.streams:
            self._ends[node, name, stream] = at[stream]
        ended = began
        logs: list[Iterator[Timed]] = []
        if self._alone:
            logs.append((began, seen) for seen in self.rest(node, name, self._wanted.streams))
        else:
            logs += (self._lines(node, name, stream, at[stream], known) for stream in self._wanted.streams)
        for ended, seen in heapq.merge(*logs, key=itemgetter(0)):
            yield ended, seen
        if step.verdict and (node, name) not in self._over:
            yield max(ended, known.end or ended), (node, Ended(name, step.verdict, step.exit_code, step.reason))

    def _lines(self, node: str, step: str, stream: str, offset: int, moments: Moments) -> Iterator[Timed]:
        """A log from ``offset`` on, line by line, long ones in pieces; nothing stays open between them."""
        path = self._log(node, step, stream)
        while True:
            try:
                data, size = _read(path, offset)
            except OSError:
                return  # it did not come home, or there never was one
            lines = _split(data)
            if len(lines) > 1 and len(data) == _AT_ONCE and not lines[-1].endswith(b"\n"):
                lines.pop()  # there is more of it
            if not lines:
                return
            ends = [offset := offset + len(line) for line in lines]
            for (at, _), end, line in zip(moments.times(stream, ends, size, moments.start), ends, lines, strict=True):
                yield at, (node, Output(step, stream, end - len(line), line))

    def _asked(self, node: NodeState) -> list[StepState]:
        """The steps that were asked for and ran; of the running one and those after it, what is still to be shown."""
        wanted = self._wanted
        ran = [s for s in node.steps.values() if s.started_at is not None and matches(wanted.step, str(s.key))]
        place = wanted.positions.get(node.name)
        first = next((n for n, s in enumerate(ran) if place is not None and str(s.key) == place.step), 0)
        if wanted.step == RUNNING and place is None:
            shown = [n for n, s in enumerate(ran) if any(key[:2] == (node.name, str(s.key)) for key in self._ends)]
            first = shown[0] if shown else len(ran) - 1
        return ran[max(first, 0) :]

    def _is_ansible(self, node: str, step: StepState) -> bool:
        """Whether the step's log is written here, and not brought by the node."""
        return bool(step.tasks) or self._log(node, str(step.key), OUT).exists()

    def _start(self, node: str, step: str, stream: str, first: bool) -> int:
        """Where a log is read from: where it was shown to last, or as was asked for."""
        if (node, step, stream) in self._ends:
            return self._ends[node, step, stream]
        place = self._wanted.positions.get(node)
        if place is not None and place.step == step:
            return place.out if stream == OUT else place.err
        if not first or self._wanted.lines == FROM_START:
            return 0
        try:
            descriptor = open_regular(self._log(node, step, stream))
        except OSError:
            return 0
        with os.fdopen(descriptor, "rb"):
            return last_lines(descriptor, self._wanted.lines)

    def _log(self, node: str, step: str, stream: str) -> Path:
        return self._directory.logs(node) / f"{step}.{stream}"


def _read(path: Path, offset: int) -> tuple[bytes, int]:
    """A piece of a log from ``offset`` on, and the log's size."""
    descriptor = open_regular(path)
    try:
        return os.pread(descriptor, _AT_ONCE, offset), os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)


def _split(data: bytes) -> list[bytes]:
    """Lines as they end by a line feed only: what a carriage return writes over stays together."""
    *lines, rest = data.split(b"\n")
    return [line + b"\n" for line in lines] + ([rest] if rest else [])
