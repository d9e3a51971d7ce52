"""All runs and all machines as rows: what the run directories and an inventory say. Reads files, asks sockets."""

from __future__ import annotations

import json
import pwd
import socket
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.errors import LabError, UsageError
from testbed.events import EventError, decode
from testbed.inventory import Inventory, Machine
from testbed.lab.match import HERE
from testbed.report.harmless import harmless_line
from testbed.report.state import Fold, RunState
from testbed.report.verdict import judge
from testbed.run.cleaning import is_alive
from testbed.run.directory import RunDirectory, registered, state_home
from testbed_tui.inotify import Changes
from testbed_tui.views import NodeView

LINGER = 0.5
"""Seconds that the list of runs waits for more changes before it is read: a run that works changes all the time."""

LIVE, GONE = "running", "gone"
"""What a run is that has no verdict: its controller lives, or is gone."""


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run: ``word`` is its verdict, `LIVE` or `GONE`; ``machines`` maps its nodes to the machines they stand on."""

    run: str
    directory: RunDirectory
    deployment: str
    word: str
    who: str
    started_at: float | None
    duration: float | None
    nodes: int
    ended: int
    trouble: int
    machines: Mapping[str, str]
    errors: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MachineRow:
    """A machine of the inventory, or one that runs have used."""

    name: str
    address: str
    port: int
    connection: str
    attributes: str


class RunList:
    """All runs of this machine; of each only what was added since is read again."""

    def __init__(self) -> None:
        self._growing: dict[Path, _Growing] = {}
        self._over: dict[Path, RunRow] = {}

    def read(self) -> list[RunRow]:
        """The runs, newest first."""
        rows = []
        for directory in registered():
            row = self._over.get(directory.path)
            if row is None:
                try:
                    row = self._growing.setdefault(directory.path, _Growing(directory)).row()
                except (FileNotFoundError, UsageError):
                    continue  # somebody removes it at this moment
                if row.word not in (LIVE, GONE):
                    self._over[directory.path] = row
                    del self._growing[directory.path]
            rows.append(row)
        return rows[::-1]


def follow_runs(changes: Changes, ending: threading.Event) -> Iterator[list[RunRow]]:
    """All runs as `RunList` reads them, now and whenever something has changed, until ``ending`` is set.

    ``changes`` is the caller's, to close and to wake. Raises LabError where runs cannot be kept, or looked for.
    """
    runs, home = RunList(), state_home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        changes.watch(home)
        while not ending.is_set():
            rows = runs.read()
            for row in rows:
                if row.word == LIVE:
                    with suppress(FileNotFoundError):  # somebody removes it at this moment
                        changes.watch(row.directory.path)
            yield rows
            changes.wait()
            ending.wait(LINGER)
    except OSError as error:
        raise LabError(
            f"the runs of this machine cannot be looked for: {error.strerror}: {error.filename}",
            "choose another place with TESTBED_STATE_HOME",
        ) from error


class _Growing:
    """A run that has not ended: the state of what was read, and how far that was."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._fold = Fold()
        self._offset = 0

    def row(self) -> RunRow:
        """The run as it is now."""
        try:
            with self._directory.events.open("rb") as stream:
                stream.seek(self._offset)
                for line in stream:
                    if not line.endswith(b"\n"):
                        break
                    self._offset += len(line)
                    with suppress(EventError):  # the run's own screens and its report tell of it
                        self._fold.add(decode(line.decode("utf-8", "replace")))
        except FileNotFoundError:
            pass  # the run is just being made
        return _row(self._directory, self._fold.state)


def _row(directory: RunDirectory, state: RunState) -> RunRow:
    nodes = state.in_order
    word = state.verdict and judge(state).verdict
    return RunRow(
        run=directory.run, directory=directory, deployment=harmless_line(state.deployment, 63),
        word=word or (LIVE if is_alive(directory) else GONE), who=_owner(directory.path), started_at=state.started_at,
        duration=state.duration, nodes=len(nodes), ended=sum(1 for n in nodes if n.verdict),
        trouble=sum(1 for n in nodes if n.verdict not in ("", "passed", "skipped") or n.failure or n.lost),
        machines={n.name: n.machine for n in nodes if n.machine}, errors=_errors(state),
    )  # fmt: skip


def _errors(state: RunState) -> dict[str, str]:
    return {
        c.machine: harmless_line(c.reason, 200) for c in state.causes if c.kind in ("machine", "lost") and c.machine
    }


def _owner(path: Path) -> str:
    uid = path.stat().st_uid
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def machines_of(
    inventory: Inventory | None, runs: Iterable[RunRow], nodes: Iterable[NodeView] = ()
) -> list[MachineRow]:
    """The inventory's machines in its order; without one those on which ``nodes`` stand, and which runs' plans name."""
    if inventory is not None:
        groups = _groups(inventory.groups)
        return [_machine(m, groups.get(m.name, [])) for m in inventory.machines]
    found = {n.machine: MachineRow(n.machine, n.address, 22, "ssh", "") for n in nodes if n.address not in ("", HERE)}
    for run in runs:
        for node in _plan(run.directory):
            name = str(node.get("machine", ""))
            address = str(node.get("address", ""))
            connection = str(node.get("connection", "ssh"))
            found.setdefault(name, MachineRow(name, address, 22, connection, ""))
    return sorted(found.values(), key=lambda m: m.name)


def inventories_of(runs: Iterable[RunRow]) -> tuple[str, ...]:
    """The inventory sources of the newest run that had any and whose files are still there."""
    for run in runs:
        try:
            sources = json.loads(run.directory.plan.read_text("utf-8")).get("inventories", [])
        except (OSError, ValueError):
            continue
        if sources and all("," in s or Path(s).exists() for s in sources):
            return tuple(sources)
    return ()


def frozen_plan(directory: RunDirectory) -> dict[str, Any]:
    """The run's plan as it was written; empty where there is none."""
    try:
        return dict(json.loads(directory.plan.read_text("utf-8")))
    except (OSError, ValueError):
        return {}


def _plan(directory: RunDirectory) -> list[dict[str, Any]]:
    return list(frozen_plan(directory).get("nodes", ()))


def _machine(machine: Machine, groups: Sequence[str]) -> MachineRow:
    told = [f"groups {', '.join(groups)}"] if groups else []
    told += [f"user {machine.user}"] if machine.user else []
    told += [
        f"{name}={harmless_line(str(value), 40)}"
        for name, value in machine.variables.items()
        if not name.startswith("ansible_") and isinstance(value, str | int | float)
    ]
    return MachineRow(
        machine.name, machine.address, machine.port or 22, machine.connection, harmless_line("; ".join(told))
    )


def _groups(exported: Mapping[str, Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for group, content in exported.items():
        if group not in ("_meta", "all", "ungrouped"):
            for host in content.get("hosts", ()):
                found.setdefault(host, []).append(group)
    return found


def reach(machines: Sequence[MachineRow], patience: float = 3.0) -> dict[str, str]:
    """Whether each machine's SSH port can be reached: ``reachable (2 ms)``, or why not. At most 64 at a time."""

    def ask(machine: MachineRow) -> str:
        if machine.connection == "local":
            return "this machine"
        began = time.monotonic()
        try:
            with socket.create_connection((machine.address, machine.port), patience):
                return f"reachable ({(time.monotonic() - began) * 1000:.0f} ms)"
        except TimeoutError:
            return f"no answer in {patience:g} s"
        except (OSError, ValueError) as error:
            return harmless_line(getattr(error, "strerror", None) or str(error), 60)

    with ThreadPoolExecutor(64) as workers:
        return dict(zip((m.name for m in machines), workers.map(ask, machines), strict=True))
