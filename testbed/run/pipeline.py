"""From a spec's path and an inventory to a request that can be executed: load, match, plan; nothing is touched."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from testbed import inventory as inventories
from testbed.compile.plan import WITHOUT_CLEAN, RunPlan, plan
from testbed.etcd.addresses import LOOPBACK, reachable_address
from testbed.inventory import Inventory, Machine
from testbed.lab.match import match
from testbed.run.controller import Request
from testbed.run.directory import RunDirectory, name_run, state_home
from testbed.run.scopes import EtcdChoice
from testbed.spec import load


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator chose; empty where defaults hold."""

    spec: Path
    parameters: Mapping[str, str] = field(default_factory=dict)
    inventories: Sequence[str] = ()
    vault_password_file: str | None = None
    continue_on_error: bool = False
    targets: Sequence[str] = WITHOUT_CLEAN
    run_dir: Path | None = None
    etcd: EtcdChoice = field(default_factory=EtcdChoice)
    junit: Path | None = None


def prepare(options: Options) -> Request:
    """The request that ``options`` amount to. Raises `SpecError`, `UsageError` or `LabError`."""
    deployment = load(options.spec, options.parameters)
    folder = deployment.path.resolve().parent
    inventory = _inventory(options, folder)
    machines = match(deployment, inventory)
    run = name_run(deployment.name)
    directory = options.run_dir.expanduser().absolute() if options.run_dir else state_home() / run
    made = plan(
        run,
        deployment,
        machines,
        local_address=_local_address(machines, options.etcd.advertise),
        local_root=str(RunDirectory(directory).workspaces),
        targets=options.targets,
        continue_on_error=options.continue_on_error,
    )
    environment = inventories.ansible_environment(folder, options.inventories, os.environ)
    if options.vault_password_file:
        environment["ANSIBLE_VAULT_PASSWORD_FILE"] = str(Path(options.vault_password_file).expanduser().absolute())
    return Request(
        plan=made,
        inventory=inventories.for_nodes(inventory, machines, made.groups),
        ansible_environment=environment,
        etcd=options.etcd,
        junit=options.junit,
    )


def _inventory(options: Options, folder: Path) -> Inventory | None:
    if not options.inventories:
        return None
    return inventories.load(options.inventories, folder, options.vault_password_file, os.environ)


def _local_address(machines: Mapping[str, Machine], advertise: str | None) -> str:
    """Where the other nodes reach those on this machine: loopback, unless one of them is elsewhere."""
    if advertise:
        return advertise
    remote = next((m for m in machines.values() if not m.local), None)
    if remote is None or all(not m.local for m in machines.values()):
        return LOOPBACK
    return reachable_address(remote.address)


def plan_text(made: RunPlan) -> str:
    """The plan for a person: who runs what where, in order."""
    deployment = made.deployment
    lines = [
        f"deployment {deployment.name}: {len(made.nodes)} nodes, at most {deployment.timeout:g} s, "
        f"ends with {_ending(deployment.finalise)}"
    ]
    for node in made.nodes:
        where = "a workspace on this machine" if node.machine.local else f"{node.machine.name} ({node.machine.address})"
        lines.append("")
        lines.append(f"{node.node.index:3d}  {node.node.name} on {where}: {', '.join(node.node.configurations)}")
        for step in node.steps:
            limit = f", at most {step.timeout:g} s" if step.timeout else ""
            who = "Ansible" if step.kind == "ansible" else "agent"
            lines.append(f"     {step.target:9s}{step.step:5s}{step.configuration} ({who}{limit})")
    return "\n".join(lines) + "\n"


def _ending(finalise: str) -> str:
    if finalise == "all":
        return "the publish of all nodes"
    return "`testbed finalise`" if finalise == "explicit" else f"the publish of {finalise}"
