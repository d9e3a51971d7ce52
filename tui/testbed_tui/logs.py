"""Lines of steps' logs, from wherever they can be had."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Protocol

from testbed.report.files import open_regular
from testbed.report.harmless import harmless, harmless_line
from testbed.report.moments import Moments, moments_of
from testbed.report.state import RUNNING
from testbed.run.directory import RunDirectory
from testbed_tui.inotify import Changes
from testbed_tui.signs import look

OUT, ERR, NOTE = "out", "err", "note"
"""Where a line stood; a note is of ours, not of the step."""

LOG_NAME = re.compile(r"(?P<step>[A-Za-z0-9_][A-Za-z0-9_.-]*\.[a-z]+\.[A-Za-z0-9_-]+)\.(?P<stream>out|err)")
"""The name of a log file: ``configuration.target.step.stream``."""

ONE, MANY, ALL = 4 * 1024 * 1024, 64 * 1024, 16 * 1024 * 1024
"""How much of the end of a log is read, in bytes: of one node's, of each of many nodes', of all of them together."""

LONGEST = 4000
"""How much of a line is shown, in characters."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a step, made harmless; ``stream`` is `OUT`, `ERR` or `NOTE`.

    ``at``: when it was written (Unix seconds), 0.0 where nobody knows; ``about``: that is a guess, see `moments`.
    """

    node: str
    step: str
    stream: str
    text: str
    at: float = 0.0
    about: bool = False


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines: of these nodes, of one step (``configuration.target.step``) or of all."""

    nodes: tuple[str, ...]
    step: str = ""


Heard = Callable[[Sequence[LogLine]], None]
"""Takes the next lines; called on a thread of the source, must not block."""


class Listening(Protocol):
    """Somebody who listens to logs."""

    def close(self) -> None:
        """Hear no more; nothing is heard any more when this returns."""


class LogSource(Protocol):
    """Where lines come from."""

    def listen(self, wanted: Wanted, heard: Heard) -> Listening:
        """Hand over the lines there are, in order of time, and then those that come; never blocks."""


class HomeLogs:
    """The logs in a run's directory: collected ones, Ansible's, and those of nodes that work on this machine."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory

    def listen(self, wanted: Wanted, heard: Heard) -> Listening:
        """See `LogSource`."""
        return _Reader(self._directory, wanted, heard)


class _Reader:
    """One listener's thread: reads what there is, then whatever the kernel says has changed."""

    def __init__(self, directory: RunDirectory, wanted: Wanted, heard: Heard) -> None:
        self._directory, self._wanted, self._heard = directory, wanted, heard
        self._read: dict[tuple[str, str, str], tuple[int, bytes]] = {}
        self._watched: set[Path] = set()
        self._closed = False
        self._changes = Changes()
        self._thread = threading.Thread(target=self._work, name="logs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closed = True
        self._changes.wake()
        self._thread.join()

    def _work(self) -> None:
        try:
            while not self._closed:
                self._watch()
                files = self._files()
                fresh = [f for f in files if (f[0], *_parts(f[1])) not in self._read]
                moments = self._moments() if fresh else {}
                limit = ONE if len(self._wanted.nodes) == 1 else min(MANY, ALL // max(1, len(files)))
                lines: list[LogLine] = []
                for node, name, path in files:
                    if self._closed:
                        return
                    lines += self._more(node, name, path, moments, limit)
                if lines:
                    self._heard(sorted(lines, key=lambda line: line.at))
                self._changes.wait()
        finally:
            self._changes.close()

    def _moments(self) -> dict[tuple[str, str], Moments]:
        """When the steps wrote, as far as the events tell."""
        try:
            with self._directory.events.open(encoding="utf-8", errors="replace") as events:
                return moments_of(events, frozenset(self._wanted.nodes))
        except OSError:
            return {}

    def _folders(self, node: str) -> list[Path]:
        """Where a node's logs can be; the first of two files of the same name is the one at home."""
        return [self._directory.logs(node), self._directory.workspaces / node / ".testbed" / "logs"]

    def _watch(self) -> None:
        """Watch every folder that is there, and above those that are not yet; many nodes by what is above them."""
        for node in self._wanted.nodes if len(self._wanted.nodes) <= 256 else ():
            for folder in self._folders(node):
                while self._come_nearer(folder):
                    pass

    def _come_nearer(self, folder: Path) -> bool:
        """Watch the folder, or the nearest above it; whether to look again, for it may have been made before that."""
        for nearest in (folder, *folder.parents):
            if nearest in self._watched:
                return False
            if self._begin_to_watch(nearest):
                return nearest != folder
            if nearest == self._directory.path:
                return False
        return False

    def _begin_to_watch(self, folder: Path) -> bool:
        """Watch a folder from now on; False where it is not there, or no more: a workspace goes when its node ends."""
        try:
            self._changes.watch(folder)
        except OSError:  # or another user's, as the workspaces of a run are
            return False
        self._watched.add(folder)
        return True

    def _files(self) -> list[tuple[str, str, Path]]:
        """The logs there are, by node and name."""
        found: dict[tuple[str, str], Path] = {}
        for node in self._wanted.nodes:
            for folder in self._folders(node):
                for path in _in(folder):
                    match = LOG_NAME.fullmatch(path.name)
                    if match and self._wanted.step in ("", match["step"]):
                        found.setdefault((node, path.name), path)
        return [(node, name, path) for (node, name), path in found.items()]

    def _more(
        self, node: str, name: str, path: Path, moments: dict[tuple[str, str], Moments], limit: int
    ) -> list[LogLine]:
        """What has been added to a file since it was read last."""
        step, stream = _parts(name)
        offset, rest = self._read.get((node, step, stream), (-1, b""))
        try:
            descriptor = open_regular(path)
        except OSError:
            return []  # it went home meanwhile, or is no log
        with os.fdopen(descriptor, "rb") as file:
            facts = os.fstat(descriptor)
            size = facts.st_size
            skipped = offset < 0 and size > limit
            file.seek(size - limit if skipped else max(offset, 0))
            start = file.tell() - len(rest)
            raw = rest + file.read(size - file.tell() if size > file.tell() else 0)
            end = file.tell()
        *lines, rest = raw.split(b"\n")
        ends = list(accumulate((len(line) + 1 for line in lines), initial=start))[1:]
        if rest and (len(rest) > LONGEST * 4 or self._is_home(node, path)):  # nobody ends this line
            lines, ends, rest = [*lines, rest], [*ends, end], b""
        self._read[node, step, stream] = (end, rest)
        known = moments.get((node, step))
        if offset < 0 and known is not None:
            times = known.times(stream, ends, size, facts.st_mtime)
        else:
            times = [(min(time.time(), facts.st_mtime), False)] * len(lines)
        texts = [plain(line) for line in lines]
        if skipped:
            texts[:1] = ["... the beginning is left out: `testbed logs` has it"]
        return [LogLine(node, step, stream, text, *at) for text, at in zip(texts, times, strict=True)]

    def _is_home(self, node: str, path: Path) -> bool:
        """Whether nobody writes to that log any more."""
        return path.parent == self._directory.logs(node) and self._directory.report_json.exists()


def _in(folder: Path) -> list[Path]:
    """What is in a folder that is no link; nothing where it is not there, or no more, or another user's."""
    try:
        return [] if folder.is_symlink() else list(folder.iterdir())
    except OSError:
        return []


def _parts(name: str) -> tuple[str, str]:
    """Step and stream of a log's name."""
    step, _, stream = name.rpartition(".")
    return step, stream


def plain(raw: bytes) -> str:
    """The line as a terminal may have it; of what was overwritten by carriage returns the last remains."""
    text = raw.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")
    return harmless(text).expandtabs()[:LONGEST]


def began(node: str, step: str, at: float) -> LogLine:
    """The note that a step begins."""
    name = harmless_line(step, 120)
    return LogLine(node, name, NOTE, f"{look(RUNNING).sign} {name}", at)


def ended(node: str, step: str, at: float, verdict: str, exit_code: int | None, reason: str) -> LogLine:
    """The note how a step ended; it stands behind what the step wrote until then."""
    name = harmless_line(step, 120)
    why = f", exit code {exit_code}" if exit_code else f": {reason}" if reason and exit_code is None else ""
    text = f"{look(verdict).sign} {name} {verdict}{why}"
    return LogLine(node, name, NOTE, harmless_line(text), at + 1e-6)
