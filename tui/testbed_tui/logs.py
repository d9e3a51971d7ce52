"""Lines of steps' logs, from wherever they can be had."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from testbed.report.files import open_regular
from testbed.report.harmless import harmless
from testbed.run.directory import RunDirectory
from testbed_tui.inotify import Changes

OUT, ERR = "out", "err"

LOG_NAME = re.compile(r"(?P<step>[A-Za-z0-9_][A-Za-z0-9_.-]*\.[a-z]+\.[A-Za-z0-9_-]+)\.(?P<stream>out|err)")
"""The name of a log file: ``configuration.target.step.stream``."""

ONE, MANY = 4 * 1024 * 1024, 64 * 1024
"""How much of the end of a log is read, in bytes: of one node's, of each of many nodes'."""

LONGEST = 4000
"""How much of a line is shown, in characters."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of a step, made harmless; ``stream`` is out or err."""

    node: str
    step: str
    stream: str
    text: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines: of these nodes in this order, of one step (``configuration.target.step``) or of all."""

    nodes: tuple[str, ...]
    step: str = ""
    order: tuple[tuple[str, str], ...] = ()  # (node, step) in the order in which the steps began


Heard = Callable[[Sequence[LogLine]], None]
"""Takes the next lines; called on a thread of the source, must not block."""


class Listening(Protocol):
    """Somebody who listens to logs."""

    def close(self) -> None:
        """Hear no more; nothing is heard any more when this returns."""


class LogSource(Protocol):
    """Where lines come from."""

    def listen(self, wanted: Wanted, heard: Heard) -> Listening:
        """Hand over the lines there are, in order of time, and then those that come."""


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
                for node, name, path in self._files():
                    if self._closed:
                        return
                    self._more(node, name, path)
                self._changes.wait()
        finally:
            self._changes.close()

    def _folders(self, node: str) -> list[Path]:
        """Where a node's logs can be; the first of two files of the same name is the one at home."""
        return [self._directory.logs(node), self._directory.workspaces / node / ".testbed" / "logs"]

    def _watch(self) -> None:
        """Watch every folder that is there, and above those that are not yet; many nodes by what is above them."""
        for node in self._wanted.nodes if len(self._wanted.nodes) <= 256 else ():
            for folder in self._folders(node):
                while folder != self._directory.path and not folder.is_dir():
                    folder = folder.parent  # noqa: PLW2901  the nearest that is there
                if folder not in self._watched:
                    self._watched.add(folder)
                    self._changes.watch(folder)

    def _files(self) -> list[tuple[str, str, Path]]:
        """The logs there are: by the time at which their steps began, then stdout before stderr."""
        order = {at: number for number, at in enumerate(self._wanted.order)}
        found: dict[tuple[str, str], Path] = {}
        for node in self._wanted.nodes:
            for folder in self._folders(node):
                if folder.is_symlink() or not folder.is_dir():
                    continue
                for path in folder.iterdir():
                    match = LOG_NAME.fullmatch(path.name)
                    if match and self._wanted.step in ("", match["step"]):
                        found.setdefault((node, path.name), path)

        def rank(item: tuple[tuple[str, str], Path]) -> tuple[int, str, str, bool]:
            (node, name), _ = item
            step, _, stream = name.rpartition(".")
            return order.get((node, step), len(order)), node, step, stream != OUT

        return [(node, name, path) for (node, name), path in sorted(found.items(), key=rank)]

    def _more(self, node: str, name: str, path: Path) -> None:
        """Hand over what has been added to a file since it was read last."""
        step, _, stream = name.rpartition(".")
        key = (node, step, stream)
        offset, rest = self._read.get(key, (-1, b""))
        limit = ONE if len(self._wanted.nodes) == 1 else MANY
        try:
            descriptor = open_regular(path)
        except OSError:
            return  # it went home meanwhile, or is no log
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            skipped = offset < 0 and size > limit
            file.seek(size - limit if skipped else max(offset, 0))
            raw = rest + file.read(size - file.tell() if size > file.tell() else 0)
            offset = file.tell()
        *lines, rest = raw.split(b"\n")
        if skipped:
            lines[:1] = [b"... the beginning is left out: `testbed logs` has it"]
        if rest and len(rest) > LONGEST * 4:  # nobody ends this line; what there is of it is shown
            lines, rest = [*lines, rest], b""
        at_home = path.parent == self._directory.logs(node) and self._directory.report_json.exists()
        if rest and at_home:
            lines, rest = [*lines, rest], b""
        self._read[key] = (offset, rest)
        if lines:
            self._heard([LogLine(node, step, stream, _line(line)) for line in lines])


def _line(raw: bytes) -> str:
    """The line as a terminal may have it; of what was overwritten by carriage returns the last remains."""
    text = raw.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")
    return harmless(text).expandtabs()[:LONGEST]
