"""What there is to show of a node's steps: which ran and how they ended, and the bytes of their logs."""

from __future__ import annotations

import json
import os
import stat
from collections import deque
from typing import Any, Deque, Dict, List, Optional, Set

from testbed.coord.chunks import (
    ERR,
    EVERY,
    FROM_START,
    OUT,
    PIECE,
    RUNNING,
    STREAMS,
    Ask,
    Begun,
    Ended,
    Note,
    Output,
    matches,
    pack,
    write_frame,
)

HEAD = 1024
"""Bytes kept free for what a chunk holds beside output."""

_BLOCK = 64 * 1024
_DENSE = 16  # pieces that are not packed after one that got no smaller
_REASON = 300  # characters of a reason; a frame's head has a bound


class Progress:
    """Which steps have begun and ended, from the record that the agent itself keeps of its events."""

    def __init__(self, journal: str) -> None:
        self.begun: Set[str] = set()
        self.ended: Dict[str, Dict[str, Any]] = {}
        self.running = ""
        self.over = False
        self._rest = b""
        self._file = os.open(journal, os.O_RDONLY)

    def look(self) -> None:
        """Take in what has been recorded since the last time."""
        while True:
            piece = os.read(self._file, _BLOCK)
            if not piece:
                return
            *lines, self._rest = (self._rest + piece).split(b"\n")
            for line in lines:
                if b'"step_' in line or b'"node_ended"' in line:
                    self._take(json.loads(line))

    def _take(self, event: Dict[str, Any]) -> None:
        kind = event["event"]
        if kind == "node_ended":
            self.over = True
        if kind not in ("step_started", "step_ended"):
            return
        name = "{configuration}.{target}.{step}".format(**event)
        if kind == "step_started":
            self.begun.add(name)
            self.running = name
        else:
            self.ended[name] = event
            if self.running == name:
                self.running = ""

    def close(self) -> None:
        """Give the record back."""
        os.close(self._file)


class Reader:
    """Reads what was asked for, frame by frame, from logs that are still being written.

    ``names`` are all steps of the node in running order, ``folder`` is where their logs lie.
    """

    def __init__(self, ask: Ask, names: List[str], progress: Progress, folder: str) -> None:
        self.over = False
        self.more = False  # whether the last piece left something for at once
        self._ask, self._progress, self._folder = ask, progress, folder
        self._names: Deque[str] = deque(n for n in names if matches(ask.step, n))
        self._strange = "" if self._names else f"no step is called {ask.step!r}; there are {', '.join(names[:20])}"
        first = ask.position.step if ask.position is not None else self._present(names)
        if first and first not in self._names and not self._strange:
            self._strange = f"there is no step {first!r} among those asked for"
        while first and self._names and self._names[0] != first:
            self._names.popleft()
        self._first = self._names[0] if self._names else ""
        self._files: Dict[str, int] = {}
        self._at: Dict[str, int] = {}
        self._limits: Dict[str, int] = {}
        self._dense = 0

    def _present(self, names: List[str]) -> str:
        """The step that runs, or the next one; empty where the first is as good."""
        if self._ask.step != RUNNING:
            return ""
        to_come = (n for n in names if n not in self._progress.ended)
        return self._progress.running or next(to_come, names[-1] if names else "")

    def read(self, room: int) -> bytes:
        """The next frames, of at most ``room`` bytes; empty where nothing is to be said now. `HEAD` is the least."""
        self.more = False
        while not self.over:
            if self._strange or not self._names:
                self.over = True
                return write_frame(Note(self._strange[:_REASON] or "all that was asked for has ended", over=True))
            name = self._names[0]
            ended = self._progress.ended.get(name)  # before its logs are read: then they are whole
            over = ended is not None or self._progress.over
            if not over and name not in self._progress.begun:
                return b""
            frames = self._begin(name, over)
            if self._at:
                frames += self._output(name, min(room - HEAD, PIECE), over)
            if frames or not over:
                return frames
            frames = self._end(name, ended)
            if frames:
                self.more = True
                return frames
        return b""

    def close(self) -> None:
        """Give the logs back."""
        for file in self._files.values():
            os.close(file)
        self._files.clear()

    def _begin(self, name: str, over: bool) -> bytes:
        """Open the step's logs; the frame that tells where they are shown from, once they are there or will not be."""
        if self._at:
            return b""
        for stream in STREAMS:
            if stream not in self._files:
                file = _open(os.path.join(self._folder, f"{name}.{stream}"))
                if file is not None:
                    self._files[stream] = file
        if len(self._files) < len(STREAMS) and not over:
            return b""
        if name not in self._progress.begun and self._ask.step in (RUNNING, EVERY):  # nobody expected it
            self._at = dict.fromkeys(STREAMS, 0)
            return b""
        self._at = {stream: self._start(name, stream) for stream in STREAMS}
        return write_frame(Begun(name, self._at[OUT], self._at[ERR]))

    def _end(self, name: str, ended: Optional[Dict[str, Any]]) -> bytes:
        """Leave the step; the frame that tells how it ended, where that is known."""
        sizes = {stream: self._at[stream] for stream in self._ask.streams}
        self.close()
        self._at.clear()
        self._limits.clear()
        self._names.popleft()
        if ended is None or (self._ask.step in (RUNNING, EVERY) and name not in self._progress.begun):
            return b""
        reason = str(ended["reason"])[:_REASON]
        return write_frame(
            Ended(name, ended["verdict"], ended["exit_code"], reason, sizes.get(OUT, -1), sizes.get(ERR, -1))
        )

    def _output(self, name: str, room: int, bounded: bool) -> bytes:
        """As much as fits of what both logs have got since, each its share.

        ``bounded``: what they get from now on, from processes that the step left behind, is none of the step's.
        """
        there = {stream: self._grown(stream, bounded) for stream in self._ask.streams}
        first = min(there.get(OUT, 0), max(room // 2, room - there.get(ERR, 0)))
        share = {OUT: first, ERR: min(there.get(ERR, 0), room - first)}
        frames = b""
        for stream in self._ask.streams:
            data = os.pread(self._files[stream], share[stream], self._at[stream]) if share[stream] > 0 else b""
            if data:
                frame, worth = pack(Output(name, stream, self._at[stream], data), dense=self._dense > 0)
                self._dense = self._dense - 1 if self._dense else 0 if worth or len(data) < HEAD else _DENSE
                self._at[stream] += len(data)
                frames += frame
        self.more = sum(share.values()) < sum(there.values())
        return frames

    def _grown(self, stream: str, bounded: bool) -> int:
        """How many bytes of the log were not read yet."""
        if stream not in self._files:
            return 0
        size = os.fstat(self._files[stream]).st_size
        if bounded:
            size = min(size, self._limits.setdefault(stream, size))
        return max(0, size - self._at[stream])

    def _start(self, name: str, stream: str) -> int:
        if name != self._first:
            return 0
        position = self._ask.position
        if position is not None:
            return position.out if stream == OUT else position.err
        if stream not in self._files or self._ask.lines == FROM_START:
            return 0
        return last_lines(self._files[stream], self._ask.lines)


def last_lines(file: int, count: int) -> int:
    """The offset at which the last ``count`` lines of a file begin."""
    at = size = os.fstat(file).st_size
    if count <= 0 or not size:
        return size if count <= 0 else 0
    left = count
    while at > 0:
        begin = max(0, at - _BLOCK)
        block = os.pread(file, at - begin, begin)
        stop = len(block) - 1 if at == size else len(block)  # the end of the last line begins none
        while True:
            stop = block.rfind(b"\n", 0, stop)
            if stop < 0:
                break
            left -= 1
            if not left:
                return begin + stop + 1
        at = begin
    return 0


def _open(path: str) -> Optional[int]:
    """The log, where it is one: what lies there belongs to the step, which may put anything in its place."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        return None
    return file
