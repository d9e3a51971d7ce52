"""What a run costs apart from the table: waiting nodes, a thousand nodes on one machine, checking and planning."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import spec
from benchmarks.measure import Cost, Failure, cpu_of, descendants, measure, memory_of, name_of
from testbed.coord.gateway import connect
from testbed.coord.scope import Scope
from testbed.lab.practice import Lab
from testbed.run.directory import RunDirectory
from testbed.run.scopes import read_access

ROOT = Path(__file__).resolve().parent.parent
WATCHED = 60.0
"""Seconds for which waiting nodes are watched."""

SETTLED = 5.0
"""Seconds after the last node's wait has begun until the watching begins: what starting them cost is not counted."""


def testbed(*words: str) -> list[str]:
    """The command line of testbed with ``words``."""
    return [sys.executable, "-m", "testbed", *words]


def environment(folder: Path) -> dict[str, str]:
    """An environment in which all that testbed keeps lies in ``folder``."""
    return {"TESTBED_STATE_HOME": str(folder / "state"), "PYTHONPATH": str(ROOT)}


def blocked(lab: Lab, folder: Path) -> dict[str, Any]:
    """What the controller takes while all of the lab's nodes sit in a blocked get."""
    path = spec.one_test(folder / "blocked.yml", "testbed get --block go", len(lab.hosts))
    run = folder / "blocked"
    process = subprocess.Popen(
        [*testbed("run", str(path), "-i", str(lab.inventory)), "--run-dir", str(run)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **environment(folder)}, cwd=folder,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        waiting: set[str] = set()
        for line in process.stderr:  # one line for every event
            words = line.split()
            if "waits:" in words:
                waiting.add(words[1])
            if len(waiting) == len(lab.hosts):
                break
        else:
            raise Failure(f"only {len(waiting)} of {len(lab.hosts)} nodes came to wait")
        time.sleep(SETTLED)
        found = _watch_waiting(process.pid)
    finally:
        if RunDirectory(run).access.exists():
            _set(RunDirectory(run), "go")
        process.stderr.read()
        process.wait()
    if process.returncode:
        raise Failure(f"the run with waiting nodes ended with {process.returncode}")
    return found


def _watch_waiting(pid: int) -> dict[str, Any]:
    """CPU and memory of the controller's processes over a minute, and which of them are Ansible's."""
    ansible = [p for p in descendants(pid) if name_of(p).startswith("ansible")]
    before = {p: cpu_of(p) for p in descendants(pid)}
    began = time.monotonic()
    time.sleep(WATCHED)
    seconds = time.monotonic() - began
    spent = {p: cpu_of(p) - cpu for p, cpu in before.items()}
    etcd = [p for p in before if name_of(p) == "etcd"]
    return {
        "seconds": seconds,
        "ansible_processes": len(ansible),
        "controller_cpu_share": spent[pid] / seconds,
        "etcd_cpu_share": sum(spent[p] for p in etcd) / seconds,
        "controller_memory": memory_of(pid),
        "etcd_memory": sum(memory_of(p) for p in etcd),
    }


def _set(directory: RunDirectory, key: str) -> None:
    with scope_of(directory) as scope:
        scope.set(key, b"yes")


@contextmanager
def scope_of(directory: RunDirectory) -> Iterator[Scope]:
    """The scope of a run that goes on, as its controller has it."""
    store = connect(read_access(directory.access))
    try:
        yield Scope(store, json.loads(directory.plan.read_text())["run"], "controller")
    finally:
        store.close()


def workspaces(nodes: int, folder: Path) -> dict[str, Any]:
    """A run of so many local workspaces whose agents do next to nothing; what agents and controller take."""
    folder.mkdir(parents=True, exist_ok=True)
    path = spec.six_targets(folder / f"local-{nodes}.yml", nodes)
    cost = measure(
        testbed("run", str(path), "--clean-first"), environment(folder), folder, folder / f"local-{nodes}.log"
    )
    return _shares(cost, nodes)


def _shares(cost: Cost, nodes: int) -> dict[str, Any]:
    agents = sorted(cost.detached, key=lambda d: d.cpu, reverse=True)[:nodes]
    if len(agents) < nodes:
        raise Failure(f"{nodes} agents should have been left to themselves, {len(agents)} were")
    return {
        "nodes": nodes,
        "wall": cost.wall,
        "controller_cpu_per_node": cost.cpu / nodes,
        "controller_memory": cost.memory,
        "etcd_cpu": cost.etcd_cpu,
        "etcd_memory": cost.etcd_memory,
        "agent_cpu": sum(a.cpu for a in agents) / nodes,
        "agent_rss": max(a.rss for a in agents),
    }


def sizes(folder: Path, nodes: int = 1000, machines: int = 2000) -> dict[str, Any]:
    """What checking a spec of so many nodes costs, and planning it on so many machines."""
    path = spec.many_named(folder / "many.yml", nodes)
    inventory = spec.many_machines(folder / "many-machines.yml", machines)
    checked = measure(testbed("validate", str(path)), environment(folder), folder)
    planned = measure(testbed("plan", str(path), "-i", str(inventory)), environment(folder), folder)
    return {"validate": _seconds(checked), "plan": _seconds(planned)}


def _seconds(cost: Cost) -> Mapping[str, float]:
    return {"wall": cost.wall, "cpu": cost.cpu}
