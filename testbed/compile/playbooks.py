"""A plan becomes playbooks: one readable play per node, and a task file for every step that is Ansible's (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from testbed.agent.plan import ANSIBLE
from testbed.compile.plan import AnsibleStep, NodePlan, RunPlan, step_name


def playbooks(plan: RunPlan) -> dict[str, str]:
    """Every playbook and task file of the run: path below ``playbooks/`` -> YAML text."""
    files = {}
    for node in plan.nodes:
        files[f"{node.node.name}.yml"] = _playbook(plan, node)
        for step in node.ansible:
            files[f"{node.node.name}/{step.name}.yml"] = _task_file(plan, node, step)
    return files


def task_list(step: AnsibleStep) -> list[dict[str, Any]]:
    """The step's Ansible content as tasks: facts, roles, the task file, the tasks; in that order, in one block.

    Last come the handlers that were notified: the step is over only when they have run.
    """
    work = step.work
    inner: list[dict[str, Any]] = []
    if work.gather_facts:
        inner.append({"name": "Gathering Facts", "ansible.builtin.gather_facts": {}})
    inner.extend(_role(role) for role in work.roles)
    if work.tasks_from:
        inner.append(
            {
                "name": f"tasks of {work.tasks_from}",
                "ansible.builtin.include_tasks": f"{{{{ testbed_spec_dir }}}}/{work.tasks_from}",
            }
        )
    inner.extend(dict(task) for task in work.tasks)
    block: dict[str, Any] = {"name": f"{step.configuration} {step.target} {step.step}", "block": inner}
    if work.become is not None:
        block["become"] = work.become
    return [block, {"name": "Handlers", "ansible.builtin.meta": "flush_handlers"}]


def _role(role: Any) -> dict[str, Any]:
    """A role as a play lists it becomes a task: keywords stay on the task, the rest are the role's variables."""
    if isinstance(role, str):
        return {"name": f"role {role}", "ansible.builtin.include_role": {"name": role}}
    keywords = ("when", "become", "become_user", "become_method", "tags", "delegate_to", "environment", "no_log")
    named = dict(role)
    name = named.pop("role", None) or named.pop("name", "")
    variables = {**named.pop("vars", {}), **{k: v for k, v in named.items() if k not in keywords}}
    task: dict[str, Any] = {"name": f"role {name}", "ansible.builtin.include_role": {"name": name}}
    task.update({k: v for k, v in named.items() if k in keywords})
    if variables:
        task["vars"] = variables
    return task


def _task_file(plan: RunPlan, node: NodePlan, step: AnsibleStep) -> str:
    head = f"# {plan.deployment.name}, node {node.node.name}: {step.target} of {step.configuration}, {step.step}\n"
    return head + _dump(task_list(step))


def _playbook(plan: RunPlan, node: NodePlan) -> str:
    """The node's whole part as one play.

    The agent runs the scripts by itself; the play starts it and does what is Ansible's when the agent comes to it. The
    controller brings the results home.
    """
    name = node.node.name
    head = [
        f"# {plan.deployment.name}: all that node {name} does, on machine {node.machine.name}.",
        "# The controller does this for many nodes at once. `testbed run --by-hand` leaves it to you, and waits:",
        f"#   private/by-hand {name}",
        "#",
        *(
            f"#   {n:2d}. {s.target:8s} {s.step:4s} {s.configuration} ({_who(s.kind)})"
            for n, s in enumerate(node.steps, 1)
        ),
    ]
    tasks: list[dict[str, Any]] = [
        {"name": "Start the agent with its plan", "testbed_start": {}, "become": node.node.become}
    ]
    for step in node.ansible:
        tasks.append(
            {
                "name": f"Wait until {name} comes to {step.name}",
                "testbed_await": {"step": step.name},
                "register": "testbed_awaited",
            }
        )
        tasks.append(
            {
                "name": f"{step.target} of {step.configuration}",
                "when": "testbed_awaited.wanted",
                "block": [{"ansible.builtin.include_tasks": f"{name}/{step.name}.yml"}, _answer("passed")],
                "rescue": [_answer("failed")],
            }
        )
    play = [{"name": f"{plan.deployment.name}: {name}", "hosts": name, "gather_facts": False, "tasks": tasks}]
    return "\n".join(head) + "\n" + _dump(play)


def _answer(verdict: str) -> dict[str, Any]:
    """The task that tells the agent how its Ansible step ended."""
    arguments = {"serial": "{{ testbed_awaited.serial }}", "verdict": verdict}
    if verdict != "passed":
        arguments["reason"] = (
            "{{ ansible_failed_task.name | default('') }}: {{ ansible_failed_result.msg | default('') }}"
        )
    return {"name": f"Tell the agent: {verdict}", "testbed_answer": arguments}


def _who(kind: str) -> str:
    return "Ansible" if kind == ANSIBLE else "agent"


def _dump(data: Any) -> str:
    """YAML as people write it: block style, keys in order, scripts as literal blocks.

    Characters beyond ASCII are escaped: PyYAML and libyaml disagree on some of them.
    """
    import yaml

    class Dumper(yaml.SafeDumper):
        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002  PyYAML's own signature
            super().increase_indent(flow, False)

    def text(dumper: Dumper, value: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    Dumper.ignore_aliases = lambda *_: True  # type: ignore[method-assign]
    return yaml.dump(_plain(data), Dumper=Dumper, sort_keys=False, width=110)


def _plain(data: Any) -> Any:
    """Mappings and sequences of any make as dicts and lists."""
    if isinstance(data, Mapping):
        return {str(k): _plain(v) for k, v in data.items()}
    if isinstance(data, (list, tuple)):
        return [_plain(v) for v in data]
    return data


__all__ = ["playbooks", "step_name", "task_list"]
