"""From a spec's path and an inventory to a request that can be executed: load, match, plan; nothing is touched."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from testbed import inventory as inventories
from testbed.compile.plan import WITHOUT_CLEAN, RunPlan, plan
from testbed.errors import UsageError
from testbed.etcd.addresses import LOOPBACK, reachable_address
from testbed.etcd.choice import EtcdChoice
from testbed.inventory import Inventory, Machine
from testbed.lab.match import HERE, match
from testbed.run.directory import RunDirectory, name_run, state_home
from testbed.spec import load
from testbed.spec.model import Deployment

if TYPE_CHECKING:
    from testbed.run.controller import Request


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator chose; empty where defaults hold.

    ``text`` is used in place of the spec's content, ``machines`` (node -> machine) in place of matching, and
    ``workspaces`` in place of the run's own folder for local nodes: they repeat what an earlier run had.
    """

    spec: Path
    parameters: Mapping[str, str] = field(default_factory=dict)
    inventories: Sequence[str] = ()
    vault_password_file: str | None = None
    continue_on_error: bool = False
    targets: Sequence[str] = WITHOUT_CLEAN
    run_dir: Path | None = None
    etcd: EtcdChoice = field(default_factory=EtcdChoice)
    junit: Path | None = None
    by_hand: bool = False
    text: str | None = None
    machines: Mapping[str, str] | None = None
    workspaces: Path | None = None


def prepare(options: Options) -> Request:
    """The request that ``options`` amount to. Raises `SpecError`, `UsageError` or `LabError`."""
    made, inventory = plan_of(options)
    from testbed.run.controller import Request
    from testbed.run.freeze import timing_of

    return Request(
        plan=made,
        inventory=node_inventory(made, inventory),
        ansible_environment=environment_of(options, once=not any(node.ansible for node in made.nodes)),
        etcd=options.etcd,
        timing=timing_of(made.deployment),
        junit=options.junit,
        by_hand=options.by_hand,
    )


def plan_of(options: Options, run: str | None = None) -> tuple[RunPlan, Inventory | None]:
    """The plan, of the run of that name or of a new one, and the inventory that it was made with."""
    deployment = load(options.spec, options.parameters, options.text)
    folder = deployment.path.resolve().parent
    inventory = None
    if options.inventories:
        with inventories.Reading(options.inventories, folder, options.vault_password_file, os.environ) as reading:
            _load_what_runs()
            inventory = reading.result()
    machines = match(deployment, inventory) if options.machines is None else _again(deployment, options, inventory)
    run = run or name_run(deployment.name)
    directory = options.run_dir.expanduser().absolute() if options.run_dir else state_home() / run
    for path in (folder, directory):
        _require_text(path)
    made = plan(
        run,
        deployment,
        machines,
        local_address=_local_address(machines, options.etcd.advertise),
        local_root=str(options.workspaces or RunDirectory(directory).workspaces),
        targets=options.targets,
        continue_on_error=options.continue_on_error,
        inventories=inventory.sources if inventory else (),
        hosts=[machine.name for machine in inventory.machines] if inventory else (),
    )
    return made, inventory


def _require_text(path: Path) -> None:
    """Raise `UsageError` for a path that JSON cannot hold, as what a run leaves must (RFC 8259, 8.1)."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UsageError(f"the name of {ascii(str(path))[1:-1]} is not UTF-8", "rename it, or work elsewhere") from None


def _load_what_runs() -> None:
    """Import, while Ansible reads an inventory, what a run needs besides; it takes about half as long."""
    import testbed.run.controller  # noqa: F401
    from testbed.run.bursts import preload

    preload()


def node_inventory(made: RunPlan, inventory: Inventory | None) -> dict[str, Any]:
    """The run's own inventory: its nodes, with their machines' variables."""
    return inventories.for_nodes(inventory, {p.node.name: p.machine for p in made.nodes}, made.groups)


def environment_of(options: Options, once: bool = False) -> dict[str, str]:
    """What Ansible is told by environment; ``once``: it connects to every machine once, as far as can be told."""
    folder = options.spec.resolve().parent
    environment = inventories.ansible_environment(folder, options.inventories, os.environ, once)
    if options.vault_password_file:
        environment["ANSIBLE_VAULT_PASSWORD_FILE"] = str(Path(options.vault_password_file).expanduser().absolute())
    return environment


def _again(deployment: Deployment, options: Options, inventory: Inventory | None) -> dict[str, Machine]:
    """The machines that the nodes had before, by name."""
    had = options.machines or {}
    if inventory is None:
        return {node.name: Machine(node.name, HERE, "local") for node in deployment.nodes}
    known = {machine.name: machine for machine in inventory.machines}
    gone = sorted({had[n.name] for n in deployment.nodes} - known.keys())
    if gone:
        raise UsageError(
            f"the inventory no longer has {', '.join(gone)}, on which the run's nodes stood",
            "put them back to clean them, or clean them by hand",
        )
    return {node.name: known[had[node.name]] for node in deployment.nodes}


def _local_address(machines: Mapping[str, Machine], advertise: str | None) -> str:
    """Where the other nodes reach those on this machine: loopback, unless one of them is elsewhere."""
    remote = [m for m in machines.values() if not m.local]
    if not remote or len(remote) == len(machines):
        return LOOPBACK
    return advertise or reachable_address(remote[0].address)


def plan_text(made: RunPlan) -> str:
    """The plan for a person: who runs what where, in order."""
    deployment = made.deployment
    count = len(made.nodes)
    lines = [
        f"deployment {deployment.name}: {count} node{'' if count == 1 else 's'}, at most {deployment.timeout:g} s, "
        f"ends with {_ending(deployment.finalise)}"
    ]
    for node in made.nodes:
        where = "a workspace on this machine" if node.machine.local else f"{node.machine.name} ({node.machine.address})"
        lines.append("")
        lines.append(f"{node.node.index:3d}  {node.node.name} on {where}: {', '.join(node.node.configurations)}")
        width = max((len(step.step) for step in node.steps), default=0)
        for step in node.steps:
            limit = f", at most {step.timeout:g} s" if step.timeout else ""
            who = "Ansible" if step.kind == "ansible" else "agent"
            lines.append(f"     {step.target:9s}{step.step:{width}s} {step.configuration} ({who}{limit})")
    return "\n".join(lines) + "\n"


def _ending(finalise: str) -> str:
    if finalise == "all":
        return "the publish of all nodes"
    return "`testbed finalise`" if finalise == "explicit" else f"the publish of {finalise}"
