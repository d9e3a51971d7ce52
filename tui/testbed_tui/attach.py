"""A run that a screen looks at: its name, its sources, its clock, and how it can be acted upon."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from testbed.agent.plan import Access
from testbed.errors import UsageError
from testbed.run.directory import RunDirectory, find
from testbed_tui.logs import HomeLogs, LogSource
from testbed_tui.peeked import PeekedLogs
from testbed_tui.sources import DirectorySource, HereScopeSource, Replay, ScopeSource, Source


@dataclass(frozen=True, slots=True)
class Attachment:
    """A run to look at; ``directory`` None: only its scope in etcd is known here. ``replay`` for a recording."""

    run: str
    directory: RunDirectory | None
    access: Access | None = field(repr=False, default=None)
    replay: Replay | None = None

    def sources(self) -> list[Source]:
        """New sources of the run's news."""
        if self.replay is not None:
            return [self.replay]
        found: list[Source] = []
        if self.directory is not None:
            found += [DirectorySource(self.directory), HereScopeSource(self.directory)]
        elif self.access is not None:
            found.append(ScopeSource(self.access, self.run, events=True))
        return found

    def logs(self) -> LogSource | None:
        """Where its logs can be read: its directory, else the nodes themselves while they live."""
        if self.directory is not None:
            return HomeLogs(self.directory)
        return PeekedLogs(self.access, self.run) if self.access is not None else None

    def now(self) -> float:
        """The run's time, Unix seconds: a recording's own, else this machine's."""
        return self.replay.now() if self.replay is not None else time.time()


def attach(name: str, access: Path | None = None, replay: float | None = None) -> Attachment:
    """The run of that name, followed live, or played back ``replay`` times as fast as it was.

    ``access`` is a file as a run keeps it in ``private/access.json``: with it the run may be on another machine. Raises
    UsageError where there is no such run, or the file cannot be read.
    """
    if access is not None:
        return Attachment(name, None, _access(access))
    directory = find(name)
    if replay is not None:
        return Attachment(directory.run, directory, replay=Replay(directory.read_events(), replay))
    return Attachment(directory.run, directory)


def _access(path: Path) -> Access:
    try:
        return Access(**json.loads(path.read_text("utf-8")))
    except OSError as error:
        raise UsageError(f"the access file {path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{path} is no access file: {error}", "copy private/access.json of the run's directory while it goes on"
        ) from error


def speed(text: str) -> float:
    """What ``10x``, ``0.5x`` or ``3`` says; raises UsageError for anything that is no speed."""
    try:
        found = float(text.removesuffix("x"))
    except ValueError:
        found = 0.0
    if not 0.0 < found < 1e9:
        raise UsageError(f"`{text}` is no speed", "like 1x, 10x or 0.5x")
    return found
