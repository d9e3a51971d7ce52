"""What target commands find: the environment, the topology file, and the command ``testbed`` on their PATH."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import Any, Dict, Tuple

from testbed.agent.plan import Plan, PlannedStep
from testbed.agent.workspace import Workspace, write_file

SHEBANG_LIMIT = 120
"""Bytes that an interpreter's path may have in a ``#!`` line; older kernels cut the line at 127."""

_OF_ANSIBLE = ("ANSIBLE_", "AWX_", "RUNNER_OMIT_EVENTS", "RUNNER_ONLY_FAILED_EVENTS")
"""What an Ansible on this very machine hands down to the agent it starts: settings of its own, for nobody else."""


def common(plan: Plan, workspace: Workspace, archive: str) -> Dict[str, str]:
    """The environment of all commands of a node: the agent's own, and what a run adds; no secret is in it."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("TESTBED_", *_OF_ANSIBLE))}
    env.update(
        TESTBED_RUN=plan.run,
        TESTBED_NODE=plan.node,
        TESTBED_INDEX=str(plan.index),
        TESTBED_NODES=" ".join(peer.name for peer in plan.peers),
        TESTBED_REPORTS=workspace.reports,
        TESTBED_WORKSPACE=workspace.path,
        TESTBED_TOPOLOGY=workspace.topology,
        PATH=workspace.own("bin") + os.pathsep + env.get("PATH", os.defpath),
        PYTHONPATH=os.pathsep.join(p for p in (archive, env.get("PYTHONPATH", "")) if p),
    )
    for peer in plan.peers:
        env[f"TESTBED_HOST_{peer.index}"] = peer.address
    for name, value in plan.parameters.items():
        env["TESTBED_PARAM_" + re.sub(r"\W", "_", name, flags=re.ASCII).upper()] = as_text(value)
    return env


def of_step(env: Dict[str, str], step: PlannedStep) -> Dict[str, str]:
    """The environment of one step's commands."""
    return {
        **env,
        "TESTBED_TARGET": step.target,
        "TESTBED_CONFIGURATION": step.configuration,
        "TESTBED_STEP": step.step,
    }


def run_marks(run: str, node: str) -> Tuple[bytes, bytes]:
    """What the environment of every process of a node's steps holds."""
    return (b"TESTBED_RUN=" + os.fsencode(run), b"TESTBED_NODE=" + os.fsencode(node))


def as_text(value: Any) -> str:
    """A parameter's value for a command: a string as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def furnish(plan: Plan, workspace: Workspace) -> None:
    """Make the agent's folders, the topology file and the command ``testbed``; raises OSError."""
    for folder in (workspace.logs, workspace.reports, workspace.own("scripts"), workspace.own("bin")):
        os.makedirs(folder, mode=0o700, exist_ok=True)
    topology = {
        "run": plan.run,
        "node": plan.node,
        "index": plan.index,
        "nodes": [vars(peer) for peer in plan.peers],
        "parameters": plan.parameters,
    }
    write_file(workspace.topology, json.dumps(topology, indent=1, ensure_ascii=False) + "\n")
    install_client(sys.executable, workspace.own("bin"))


def install_client(python: str, folder: str) -> None:
    """Write the command ``testbed``, run by ``python``, into ``folder``; raises OSError.

    A ``#!`` line takes neither spaces nor long paths; then a shell of two lines runs the script beside it.
    """
    beside = os.path.join(os.path.dirname(__file__), "client.py")
    source = __loader__.get_data(beside).decode()  # type: ignore[name-defined]  # a file, or within the agent's archive
    command = os.path.join(folder, "testbed")
    if len(os.fsencode(python)) < SHEBANG_LIMIT and not re.search(r"\s", python):
        write_file(command, f"#!{python} -IS\n{source}", 0o700)
        return
    import shlex

    write_file(command + ".py", source)
    line = f"exec {shlex.quote(python)} -IS {shlex.quote(command + '.py')}"
    write_file(command, f'#!/bin/sh\n{line} "$@"\n', 0o700)
