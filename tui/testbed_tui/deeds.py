"""What the app does beside showing: commands carried out, shells opened, inventories read. May block; no widgets."""

from __future__ import annotations

import getpass
import os
import socket
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from testbed import inventory as inventories
from testbed.coord.gateway import connect
from testbed.coord.scope import Scope
from testbed.coord.store import StoreError
from testbed.errors import UsageError
from testbed.inventory import Inventory, Machine
from testbed.lab.match import HERE
from testbed.run.directory import RunDirectory
from testbed_tui import commands
from testbed_tui.attach import Attachment
from testbed_tui.commands import ABORT, FINALISE, Command
from testbed_tui.fleet import RunRow, frozen_plan

if TYPE_CHECKING:
    from textual.app import App

PATIENCE = 10.0
"""Seconds that the run's etcd may take to answer."""


def do(command: Command, attachment: Attachment | None) -> tuple[int, str]:
    """Carry out the command; its exit code and what it said.

    Where only the run's scope is at hand, its flags are raised from here: the command line needs the run's directory.
    """
    remote = attachment is not None and attachment.directory is None and attachment.access is not None
    if not remote or command.name not in (ABORT, FINALISE):
        return commands.carry_out(command)
    assert attachment is not None and attachment.access is not None  # noqa: S101  that is what remote means
    by = f"{getpass.getuser()}@{socket.gethostname()}"
    try:
        store = connect(attachment.access, PATIENCE)
        scope = Scope(store, attachment.run, by)
        try:
            flag = scope.raise_flag(command.name, command.words[-1] if command.name == ABORT else command.text)
        finally:
            scope.close()
            store.close()
    except StoreError as error:
        return 3, f"the run's etcd cannot be asked: {error}"
    return 0, "" if flag.by == by else f"{flag.by} was first: {flag.why}"


def inventory_of(sources: Sequence[str]) -> Inventory | None:
    """The inventory that Ansible reads from the sources; None without any."""
    return inventories.load(sources, None, None, os.environ) if sources else None


def shell_of(directory: RunDirectory, node: str) -> Command:
    """The command that opens a shell in the node's workspace. Raises a TestbedError where there is no way."""
    plan = frozen_plan(directory)
    found = next((n for n in plan.get("nodes", ()) if n.get("node") == node), None)
    if found is None:
        raise UsageError(f"the run's plan has no node {node}")
    if found.get("connection") == "local":
        return commands.shell(Machine(node, HERE, "local"), str(found.get("workspace", "")))
    return shell_on(plan.get("inventories", ()), str(found.get("machine", "")), str(found.get("workspace", "")))


def shell_on(sources: Sequence[str], machine: str, workspace: str) -> Command:
    """The command that opens a shell on a machine of the inventory."""
    inventory = inventory_of(sources)
    found = next((m for m in inventory.machines if m.name == machine), None) if inventory is not None else None
    if found is None:
        raise UsageError(f"no inventory tells how {machine} is reached", "name one: testbed tui -i INVENTORY")
    return commands.shell(found, workspace)


def enter(app: App[None], command: Command) -> bool:
    """Run the command in the app's terminal; False where it has none (in a browser)."""
    from textual.app import SuspendNotSupported

    try:
        with app.suspend():
            subprocess.run(command.argv, check=False)
    except SuspendNotSupported:
        return False
    return True


def known_specs(runs: Iterable[RunRow]) -> list[str]:
    """The specs of the runs there were, newest first, as far as they are still there."""
    found: dict[str, None] = {}
    for run in runs:
        spec = frozen_plan(run.directory).get("spec")
        if isinstance(spec, str) and Path(spec).is_file():
            found[spec] = None
    return list(found)
