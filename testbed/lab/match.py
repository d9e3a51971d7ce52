"""Which node stands on which machine. Pure: values in, values out, every misfit told at its line of the spec."""

from __future__ import annotations

from difflib import get_close_matches

from testbed.diagnostics import Diagnostic
from testbed.errors import SpecError
from testbed.inventory import Inventory, Machine
from testbed.spec.model import Deployment, Node

HERE = "127.0.0.1"
"""The address of a workspace on this machine."""


def match(deployment: Deployment, inventory: Inventory | None, name_of_inventory: str = "") -> dict[str, Machine]:
    """The machine of each node, in the order of the nodes.

    Pinned nodes come first; the others take what is left in the inventory's order, one machine each. Without an
    inventory every node is a workspace of its own name on this machine. Raises `SpecError` with a diagnostic for every
    node that finds no machine, or that has the name of a group of other nodes' machines.
    """
    pinned = [node for node in deployment.nodes if node.machine is not None]
    if inventory is None:
        found = [_no_inventory(node) for node in pinned]
        machines = {node.name: Machine(node.name, HERE, "local") for node in deployment.nodes}
    else:
        name = name_of_inventory or inventory.name
        found, machines = _pin(pinned, inventory, name)
        found += _fill(deployment, inventory, name, machines)
        found += _clashes(deployment, inventory, name, machines)
    if found:
        raise SpecError(found, {str(deployment.path): deployment.text})
    return {node.name: machines[node.name] for node in deployment.nodes}


def _no_inventory(node: Node) -> Diagnostic:
    return Diagnostic(
        f"node {node.name} asks for machine {node.machine}, but there is no inventory",
        node.span,
        help="give one with -i INVENTORY, or remove `machine`",
    )


def _pin(nodes: list[Node], inventory: Inventory, name: str) -> tuple[list[Diagnostic], dict[str, Machine]]:
    """Machines for the nodes that name theirs."""
    by_name = {machine.name: machine for machine in inventory.machines}
    found: list[Diagnostic] = []
    machines: dict[str, Machine] = {}
    holders: dict[str, str] = {}
    for node in nodes:
        wanted = str(node.machine)
        if wanted not in by_name:
            close = get_close_matches(wanted, list(by_name), 1)
            found.append(
                Diagnostic(
                    f"machine {wanted} of node {node.name} is not in the inventory {name}",
                    node.span,
                    help=f"did you mean {close[0]}?" if close else "`testbed doctor -i` lists the machines it holds",
                )
            )
        elif wanted in holders:
            found.append(
                Diagnostic(
                    f"machine {wanted} is asked for twice: by node {holders[wanted]} and by node {node.name}",
                    node.span,
                    notes=("a machine carries one node; several nodes share a host as inventory entries of their own",),
                    help="pin one of them to another machine",
                )
            )
        else:
            holders[wanted] = node.name
            machines[node.name] = by_name[wanted]
    return found, machines


def _fill(deployment: Deployment, inventory: Inventory, name: str, machines: dict[str, Machine]) -> list[Diagnostic]:
    """Give the remaining machines to the nodes without a pin (adds to ``machines``); say where there are too few."""
    taken = {machine.name for machine in machines.values()}
    left = iter([machine for machine in inventory.machines if machine.name not in taken])
    without = []
    for node in deployment.nodes:
        if node.machine is None:
            machine = next(left, None)
            if machine is None:
                without.append(node)
            else:
                machines[node.name] = machine
    if not without:
        return []
    # one diagnostic at the first node without a machine: a thousand of them would say no more
    there, needed = len(inventory.machines), len(deployment.nodes)
    others = f" and {len(without) - 1} more" if len(without) > 1 else ""
    return [
        Diagnostic(
            f"no machine left for node {without[0].name}{others}",
            without[0].span,
            notes=(f"the deployment needs {needed}, the inventory {name} has {there}",),
            help="add machines to the inventory, or lower a `count`",
        )
    ]


def _clashes(deployment: Deployment, inventory: Inventory, name: str, machines: dict[str, Machine]) -> list[Diagnostic]:
    """Nodes that Ansible would take for a group: what is done on one would be done on all of the group's."""

    def below(group: str) -> set[str]:
        content = inventory.groups.get(group, {})
        return {*content.get("hosts", ())}.union(*(below(child) for child in content.get("children", ())))

    found = []
    for node in deployment.nodes:
        if node.name in inventory.groups:
            members = below(node.name)
            if [other for other, machine in machines.items() if machine.name in members] != [node.name]:
                found.append(
                    Diagnostic(
                        f"node {node.name} has the name of a group of the inventory {name}",
                        node.span,
                        notes=("hosts and groups share their names in Ansible",),
                        help="rename the node, or let it alone stand on the group's machines",
                    )
                )
    return found
