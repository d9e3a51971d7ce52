"""The run directory: where everything of a run is kept, and how a run is found again by name.

Runs live under `state_home`; one made elsewhere (``--run-dir``) is registered there by a symbolic link.
"""

from __future__ import annotations

import difflib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from testbed.errors import LabError, UsageError
from testbed.events import Event, EventError, Notice, decode

LAST = "last"
"""The name that stands for the newest run."""

_MARKER = "run-id"
_ID = re.compile(r"(?P<deployment>[a-z0-9][a-z0-9-]*)-(?P<moment>\d{8}-\d{6})-(?P<salt>[0-9a-f]{4,})")


def state_root() -> Path:
    """Where testbed keeps its state: ``TESTBED_STATE_HOME``, else the user's XDG state directory.

    Raises UsageError where a user without a home names neither.
    """
    configured = os.environ.get("TESTBED_STATE_HOME")
    try:
        if configured:
            return Path(configured).expanduser().absolute()
        from platformdirs import user_state_path

        return user_state_path("testbed", appauthor=False)
    except RuntimeError as error:
        whose = configured or "this user"
        raise UsageError(f"no home is known for {whose}", "set TESTBED_STATE_HOME to a folder for runs") from error


def state_home() -> Path:
    """Where runs are kept and registered: ``runs`` below `state_root`; not made here."""
    return state_root() / "runs"


def name_run(deployment: str, moment: datetime | None = None) -> str:
    """A new run id such as ``hello-20261121-023122-7f3a``; ``moment`` is put in UTC."""
    when = (moment or datetime.now(UTC)).astimezone(UTC)
    return f"{deployment}-{when:%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The paths of one run; nothing is made or read until asked for."""

    path: Path

    @property
    def run(self) -> str:
        """The run's id; raises UsageError where the directory is not a run's."""
        try:
            return (self.path / _MARKER).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{self.path} is not a run directory", f"it has no readable file `{_MARKER}`") from error

    @property
    def spec(self) -> Path:
        """The deployment spec as it was when the run began."""
        return self.path / "spec.yml"

    @property
    def plan(self) -> Path:
        """What runs where."""
        return self.path / "plan.json"

    @property
    def playbooks(self) -> Path:
        """One playbook per node."""
        return self.path / "playbooks"

    @property
    def events(self) -> Path:
        """Every event of the run, one JSON object a line, in the order of the store."""
        return self.path / "events.jsonl"

    @property
    def nodes(self) -> Path:
        """What came home, a directory per node."""
        return self.path / "nodes"

    def logs(self, node: str) -> Path:
        """The step logs of a node."""
        return self.nodes / node / "logs"

    def reports(self, node: str) -> Path:
        """What a node left in its ``$TESTBED_REPORTS``."""
        return self.nodes / node / "reports"

    @property
    def workspaces(self) -> Path:
        """Where nodes on this machine work while the run lasts."""
        return self.path / "workspaces"

    @property
    def report_json(self) -> Path:
        """The report as data."""
        return self.path / "report.json"

    @property
    def junit(self) -> Path:
        """The report as JUnit XML."""
        return self.path / "junit.xml"

    @property
    def bundle(self) -> Path:
        """All results in one archive."""
        return self.path / "reports.tar.gz"

    @property
    def private(self) -> Path:
        """Secrets and scratch of the run (mode 0700); never part of the bundle."""
        return self.path / "private"

    @property
    def access(self) -> Path:
        """How the controller's commands reach the run's scope (mode 0600)."""
        return self.private / "access.json"

    def read_events(self) -> Iterator[Event]:
        """The events so far; a line still being written is left out, a broken one yields a warning `Notice`."""
        try:
            stream = self.events.open(encoding="utf-8", errors="replace", newline="\n")
        except FileNotFoundError:
            return
        with stream:
            for number, line in enumerate(stream, 1):
                if not line.endswith("\n"):
                    return
                try:
                    yield decode(line)
                except EventError as error:
                    yield Notice(0.0, "", "warning", f"{self.events.name}, line {number}: {error}")


def create(run: str, at: Path | None = None) -> RunDirectory:
    """A new run directory below `state_home`, or at ``at`` (new or empty) and registered there if that can be.

    Raises UsageError where ``at`` is taken, LabError where the directory cannot be made.
    """
    home = state_home()
    try:
        if at is None:
            home.mkdir(parents=True, exist_ok=True)
        path = home / run if at is None else at.expanduser().absolute()
        if at is not None and path.is_dir() and any(path.iterdir()):
            raise UsageError(f"the run directory {path} is not empty", "name a new or an empty directory")
        path.mkdir(parents=True, exist_ok=at is not None)
        directory = RunDirectory(path)
        directory.private.mkdir(mode=0o700)
        directory.playbooks.mkdir()
        directory.nodes.mkdir()
        (path / _MARKER).write_text(run + "\n", "utf-8")
    except OSError as error:
        raise LabError(
            f"cannot make the run directory: {error.strerror}: {error.filename}",
            "choose another place with --run-dir or TESTBED_STATE_HOME",
        ) from error
    if at is not None:
        with suppress(OSError):  # it goes by its path then; `is_registered` tells
            home.mkdir(parents=True, exist_ok=True)
            (home / run).symlink_to(path, target_is_directory=True)
    return directory


def is_registered(run: str) -> bool:
    """Whether a run of that id is among those of `state_home`."""
    return (state_home() / run).exists()


def registered() -> list[RunDirectory]:
    """All runs that are still there, oldest first."""
    try:
        entries = [e for e in state_home().iterdir() if (e / _MARKER).is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [RunDirectory(e.resolve()) for e in sorted(entries, key=lambda e: _age(e.name))]


def find(name: str) -> RunDirectory:
    """The run of that name: its id, a unique beginning of it, a path to a run directory, or ``last``.

    Raises UsageError with what could have been meant.
    """
    runs = {d.run: d for d in registered()}
    if name == LAST:
        if not runs:
            raise UsageError("there is no run yet", "start one: testbed run SPEC")
        return list(runs.values())[-1]
    if name in runs:
        return runs[name]
    path = Path(name)
    if name and path.is_dir() and (os.sep in name or name in (".", "..") or (path / _MARKER).is_file()):
        directory = RunDirectory(path.resolve())
        _ = directory.run
        return directory
    matches = [run for run in runs if name and run.startswith(name)]
    if len(matches) == 1:
        return runs[matches[0]]
    if matches:
        raise UsageError(f"`{name}` is the beginning of {len(matches)} runs", _listing("say which", matches))
    close = difflib.get_close_matches(name, runs, n=3, cutoff=0.5)
    if close:
        raise UsageError(f"there is no run `{name}`", _listing("did you mean", close))
    raise UsageError(f"there is no run `{name}`", "testbed list shows the runs there are")


def _age(run: str) -> tuple[str, str]:
    match = _ID.fullmatch(run)
    return (match["moment"] if match else "", run)


def _listing(question: str, names: list[str], most: int = 8) -> str:
    shown = ", ".join(names[-most:])
    rest = len(names) - most
    return f"{question}: {shown}" + (f" ({rest} more)" if rest > 0 else "")
