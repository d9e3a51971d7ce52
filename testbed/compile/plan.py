"""A deployment and its machines become a plan: what every node does, step by step, and where (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.agent.plan import ANSIBLE, COMMAND, KEY, PORT, RUN, Peer, PlannedStep
from testbed.agent.plan import SERVICE as SERVICE_STEP
from testbed.events import SERVICE, STEPS, TARGETS
from testbed.inventory import Machine
from testbed.spec.model import AnsibleWork, Command, Deployment, Node, Service

CLEAN_ONLY: tuple[str, ...] = ("clean",)
WITHOUT_CLEAN: tuple[str, ...] = tuple(t for t in TARGETS if t != "clean")
WITH_CLEAN: tuple[str, ...] = TARGETS
"""The three selections of targets: `testbed clean`, `testbed run`, `testbed run --clean-first`."""


@dataclass(frozen=True, slots=True)
class AnsibleStep:
    """A step of a node that Ansible does; ``name`` is that of its task file."""

    target: str
    configuration: str
    step: str
    work: AnsibleWork

    @property
    def name(self) -> str:
        """Unique within its node."""
        return step_name(self.target, self.configuration, self.step)


@dataclass(frozen=True, slots=True)
class NodePlan:
    """One node on its machine with all its steps in running order."""

    node: Node
    machine: Machine
    address: str
    workspace: str
    files: tuple[str, ...]
    steps: tuple[PlannedStep, ...]
    ansible: tuple[AnsibleStep, ...]


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A whole run: the deployment, and every node's plan in index order.

    ``hosts`` are the names of all machines of the inventories, with nodes or without.
    """

    run: str
    deployment: Deployment
    nodes: tuple[NodePlan, ...]
    targets: tuple[str, ...]
    inventories: tuple[str, ...] = ()
    hosts: frozenset[str] = frozenset()

    @property
    def peers(self) -> list[Peer]:
        """The nodes as every node sees them."""
        return [
            Peer(
                name=p.node.name,
                index=p.node.index,
                group=p.node.group,
                machine=p.machine.name,
                address=p.address,
                configurations=list(p.node.configurations),
            )
            for p in self.nodes
        ]

    @property
    def groups(self) -> dict[str, list[str]]:
        """The Ansible groups that the deployment makes: configurations, and nodes with a count.

        A configuration that has the name of the one node that carries it makes none: to Ansible both would be one name.
        """
        groups: dict[str, dict[str, None]] = {}
        for plan in self.nodes:
            node = plan.node
            for group in (*node.configurations, *((node.group,) if node.counted else ())):
                groups.setdefault(group, {})[node.name] = None
        return {group: list(nodes) for group, nodes in groups.items() if list(nodes) != [group]}


def step_name(target: str, configuration: str, step: str) -> str:
    """The name of a step's log and task files: configuration, target, step."""
    return f"{configuration}.{target}.{step}"


def planned_steps(
    deployment: Deployment, node: Node, targets: Sequence[str], continue_on_error: bool
) -> list[PlannedStep]:
    """The node's steps in running order: target by target, in each the configurations as listed, pre, main, post.

    The services come after all of deploy.
    """
    steps: list[PlannedStep] = []
    for name in targets:
        for configuration in node.configurations:
            steps += _steps_of(deployment, configuration, name, continue_on_error)
        if name == "deploy":
            for configuration in node.configurations:
                steps += [_start_of(s, configuration) for s in deployment.configurations[configuration].services]
    return steps


def _steps_of(deployment: Deployment, configuration: str, name: str, continue_on_error: bool) -> Iterator[PlannedStep]:
    target = deployment.configurations[configuration].targets.get(name)
    if target is None:
        return
    goes_on = target.continue_on_error
    if goes_on is None:
        goes_on = deployment.continue_on_error
    for step in STEPS:
        work = getattr(target, step)
        if work is not None:
            yield PlannedStep(
                target=name,
                configuration=configuration,
                step=step,
                kind=RUN if isinstance(work, Command) else ANSIBLE,
                script=work.script if isinstance(work, Command) else "",
                timeout=target.timeout,
                continue_on_error=goes_on or continue_on_error,
            )


def _start_of(service: Service, configuration: str) -> PlannedStep:
    """The start of a service; without it nothing makes sense, so it never goes on after an error."""
    said = {PORT: service.port, COMMAND: service.check and service.check.script, KEY: service.key}
    return PlannedStep(
        target=SERVICE,
        configuration=configuration,
        step=service.name,
        kind=SERVICE_STEP,
        script=service.run.script,
        timeout=service.timeout,
        ready={kind: value for kind, value in said.items() if value is not None},
    )


def plan(
    run: str,
    deployment: Deployment,
    machines: Mapping[str, Machine],
    *,
    local_address: str = "127.0.0.1",
    local_root: str = "",
    targets: Sequence[str] = WITHOUT_CLEAN,
    continue_on_error: bool = False,
    inventories: Sequence[str] = (),
    hosts: Iterable[str] = (),
) -> RunPlan:
    """The plan of ``run``.

    ``machines`` maps every node's name to its machine. ``local_address`` is where nodes on this machine are reached
    by the others; ``local_root`` is a folder of the run's own for their workspaces (empty: the default that
    remote machines have).
    """
    plans = []
    for node in deployment.nodes:
        machine = machines[node.name]
        local = machine.connection == "local"
        files = {f: None for c in node.configurations for f in deployment.configurations[c].files}
        steps = planned_steps(deployment, node, targets, continue_on_error)
        plans.append(
            NodePlan(
                node=node,
                machine=machine,
                address=local_address if local else machine.address,
                workspace=workspace(run, node.name, machine, local_root if local else ""),
                files=tuple(files),
                steps=tuple(steps),
                ansible=tuple(_ansible_steps(deployment, steps)),
            )
        )
    return RunPlan(run, deployment, tuple(plans), tuple(targets), tuple(inventories), frozenset(hosts))


def workspace(run: str, node: str, machine: Machine, root: str = "") -> str:
    """Where the node works: below the machine's ``testbed_root``, the run's own ``root``, or ``~/.testbed``."""
    if root and not machine.variables.get("testbed_root"):
        return f"{root.rstrip('/')}/{node}"
    chosen = str(machine.variables.get("testbed_root") or "~/.testbed")
    return f"{chosen.rstrip('/')}/{run}/{node}"


def _ansible_steps(deployment: Deployment, steps: Sequence[PlannedStep]) -> list[AnsibleStep]:
    """The steps that Ansible does, with their content."""
    found = []
    for step in steps:
        if step.kind != ANSIBLE:
            continue
        work = getattr(deployment.configurations[step.configuration].targets[step.target], step.step)
        if isinstance(work, AnsibleWork):
            found.append(AnsibleStep(step.target, step.configuration, step.step, work))
    return found


def targets_of(node: NodePlan) -> list[list[Any]]:
    """``[target, configuration, [step, ...]]`` in running order, as `NodePlanned` events carry it."""
    table: dict[tuple[str, str], list[str]] = {}
    for step in node.steps:
        table.setdefault((step.target, step.configuration), []).append(step.step)
    return [[target, configuration, steps] for (target, configuration), steps in table.items()]


def to_data(plan: RunPlan) -> dict[str, Any]:
    """The plan as plain data, for ``plan.json`` and ``testbed plan --json``; holds no secrets."""
    deployment = plan.deployment
    return {
        "run": plan.run,
        "deployment": deployment.name,
        "description": deployment.description,
        "spec": str(deployment.path.resolve()),
        "digest": deployment.digest,
        "timeout": deployment.timeout,
        "finalise": deployment.finalise,
        "stall": deployment.stall,
        "liveness": deployment.liveness,
        "outage": deployment.outage,
        "parameters": dict(deployment.parameters),
        "targets": list(plan.targets),
        "inventories": list(plan.inventories),
        "nodes": [
            {
                "node": p.node.name,
                "index": p.node.index,
                "group": p.node.group,
                "machine": p.machine.name,
                "connection": p.machine.connection,
                "address": p.address,
                "become": p.node.become,
                "policy": p.node.policy,
                "quorum": p.node.quorum,
                "configurations": list(p.node.configurations),
                "workspace": p.workspace,
                "files": list(p.files),
                "clean": any("clean" in deployment.configurations[c].targets for c in p.node.configurations),
                "steps": [
                    {
                        "target": s.target,
                        "configuration": s.configuration,
                        "step": s.step,
                        "kind": s.kind,
                        "timeout": s.timeout,
                        "continue_on_error": s.continue_on_error,
                        "ready": s.ready,
                    }
                    for s in p.steps
                ],
            }
            for p in plan.nodes
        ],
    }
