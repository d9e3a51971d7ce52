"""A deployment and its machines become a plan: what runs in which order, where, and under whose rule on errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from testbed.compile.plan import CLEAN_ONLY, WITH_CLEAN, WITHOUT_CLEAN, RunPlan, plan, targets_of, to_data
from testbed.coord.peers import Peer
from testbed.inventory import Machine
from testbed.spec import load

HERE = Machine("here", "127.0.0.1", "local")
TOLD = ("node", "index", "group", "machine", "address", "configurations")
ONE = "configurations:\n  a: {test: x}\nnodes:\n  n: {configurations: [a]}\n"


def make(folder: Path, text: str, machines: dict[str, Machine] | None = None, **options: Any) -> RunPlan:
    """The plan of a spec; nodes without a machine are on this one."""
    spec = folder / "deployment.yml"
    spec.write_text("deployment: d\n" + text)
    deployment = load(spec, {})
    found = {node.name: (machines or {}).get(node.name, HERE) for node in deployment.nodes}
    return plan("d-run", deployment, found, **options)


def order(made: RunPlan, node: int = 0) -> list[str]:
    """A node's steps, in a word each."""
    return [f"{s.target}/{s.configuration}/{s.step}" for s in made.nodes[node].steps]


TWO = """
configurations:
  a: {finalise: x, clean: x, test: {post: x, run: x, pre: x}, init: x}
  b: {publish: x, test: {pre: x}, deploy: x, clean: {post: x}}
nodes:
  n: {configurations: [a, b]}
  m: {configurations: [b, a]}
"""


def test_order(tmp_path: Path) -> None:
    """Target by target in their order, whatever the spec's; in each the configurations as listed; pre, main, post."""
    made = make(tmp_path, TWO)
    assert order(made) == [
        "init/a/main", "deploy/b/main", "test/a/pre", "test/a/main", "test/a/post", "test/b/pre", "publish/b/main",
        "finalise/a/main",
    ]  # fmt: skip
    assert order(made, 1) == [
        "init/a/main", "deploy/b/main", "test/b/pre", "test/a/pre", "test/a/main", "test/a/post", "publish/b/main",
        "finalise/a/main",
    ]  # fmt: skip
    assert targets_of(made.nodes[0])[2] == ["test", "a", ["pre", "main", "post"]]


@pytest.mark.parametrize(
    ("targets", "steps"),
    [
        (CLEAN_ONLY, ["clean/a/main", "clean/b/post"]),
        (WITH_CLEAN, ["clean/a/main", "clean/b/post", "init/a/main"]),
        (WITHOUT_CLEAN, ["init/a/main", "deploy/b/main", "test/a/pre"]),
    ],
)
def test_selections(targets: tuple[str, ...], steps: list[str], tmp_path: Path) -> None:
    """Clean runs only where asked for, and then before all else."""
    found = order(make(tmp_path, TWO, targets=targets))
    assert found[: len(steps)] == steps
    assert ("clean/a/main" in found) == ("clean" in targets)


@pytest.mark.parametrize("of_spec", [None, False, True])
@pytest.mark.parametrize("of_target", [None, False, True])
@pytest.mark.parametrize("of_command_line", [False, True])
def test_going_on_after_errors(
    of_spec: bool | None, of_target: bool | None, of_command_line: bool, tmp_path: Path
) -> None:
    """The command line's word goes for all; else the target's own; else the spec's; else an error ends the run."""
    spec = "" if of_spec is None else f"continue_on_error: {str(of_spec).lower()}\n"
    target = "" if of_target is None else f", continue_on_error: {str(of_target).lower()}"
    text = f"{spec}configurations:\n  a: {{test: {{run: x, post: x{target}}}}}\nnodes:\n  n: {{configurations: [a]}}\n"
    made = make(tmp_path, text, continue_on_error=of_command_line)
    expected = of_command_line or (of_target if of_target is not None else bool(of_spec))
    assert {s.continue_on_error for s in made.nodes[0].steps} == {expected}


SERVICES = """
parameters:
  port: {type: integer, default: 80}
configurations:
  a: {deploy: x, services: {two: {run: x}, one: {run: x, ready: {port: "{{ params.port }}"}, timeout: 9s}}, test: x}
  b: {services: {three: {run: x, ready: {key: up}}}, init: x, deploy: x}
nodes:
  n: {configurations: [a, b]}
"""


def test_services_come_after_all_of_deploy(tmp_path: Path) -> None:
    """Services start in the order of configurations and file, once everything is deployed, and not for a clean."""
    made = make(tmp_path, SERVICES, continue_on_error=True)
    assert order(made) == [
        "init/b/main",
        "deploy/a/main",
        "deploy/b/main",
        "service/a/two",
        "service/a/one",
        "service/b/three",
        "test/a/main",
    ]
    services = [s for s in made.nodes[0].steps if s.kind == "service"]
    assert [(s.ready, s.timeout) for s in services] == [({}, 60.0), ({"port": 80}, 9.0), ({"key": "up"}, 60.0)]
    assert not any(s.continue_on_error for s in services)
    assert targets_of(made.nodes[0])[3:5] == [["service", "a", ["two", "one"]], ["service", "b", ["three"]]]
    assert order(make(tmp_path, SERVICES, targets=CLEAN_ONLY)) == []


def test_timeout_is_each_steps(tmp_path: Path) -> None:
    """A target's limit bounds each of its steps; without one only the run's does."""
    text = ONE.replace("{test: x}", "{test: {pre: x, run: x, timeout: 90s}, publish: x}")
    made = make(tmp_path, text)
    assert [s.timeout for s in made.nodes[0].steps] == [90.0, 90.0, None]


@pytest.mark.parametrize(
    ("machine", "root", "workspace"),
    [
        (HERE, "/runs/d/workspaces", "/runs/d/workspaces/n"),
        (HERE, "/runs/d/workspaces/", "/runs/d/workspaces/n"),
        (HERE, "", "~/.testbed/d-run/n"),
        (Machine("h", "10.0.0.1"), "/runs/d/workspaces", "~/.testbed/d-run/n"),
        (Machine("h", "10.0.0.1", variables={"testbed_root": "/data/tb/"}), "", "/data/tb/d-run/n"),
        (Machine("h", "x", "local", variables={"testbed_root": "/data"}), "/runs/d/workspaces", "/data/d-run/n"),
    ],
)
def test_workspace(machine: Machine, root: str, workspace: str, tmp_path: Path) -> None:
    """A node works in the machine's testbed_root, else here in the run's own folder, else below its login's home."""
    assert make(tmp_path, ONE, {"n": machine}, local_root=root).nodes[0].workspace == workspace


def test_addresses(tmp_path: Path) -> None:
    """Peers are reached at their machine's address, those on this machine at the one given for it."""
    text = "configurations:\n  a: {test: x}\nnodes:\n  n: {configurations: [a]}\n  m: {configurations: [a]}\n"
    made = make(tmp_path, text, {"m": Machine("h", "10.0.0.9")}, local_address="10.0.0.1")
    assert [(p.name, p.index, p.address, p.machine) for p in made.peers] == [
        ("n", 0, "10.0.0.1", "here"),
        ("m", 1, "10.0.0.9", "h"),
    ]


def test_groups(tmp_path: Path) -> None:
    """Configurations and counted nodes make groups, each node in one once; a node's own name makes none."""
    text = """
configurations:
  web: {test: x}
  db: {test: x}
  lone: {test: x}
nodes:
  front: {configurations: [web, db], count: 2}
  lone: {configurations: [lone]}
  back: {configurations: [db]}
"""
    assert make(tmp_path, text).groups == {
        "web": ["front-0", "front-1"],
        "db": ["front-0", "front-1", "back"],
        "front": ["front-0", "front-1"],
    }


def test_files_of_all_configurations(tmp_path: Path) -> None:
    """A node is sent the files of all its configurations, each once."""
    for name in ("x", "y", "z"):
        (tmp_path / name).write_text("")
    text = """
configurations:
  a: {files: [x, y], test: x}
  b: {files: [y, z], test: x}
nodes:
  n: {configurations: [a, b]}
"""
    assert make(tmp_path, text).nodes[0].files == ("x", "y", "z")


def test_data_is_plain(tmp_path: Path) -> None:
    """The plan as data goes through JSON unchanged and names every step."""
    made = make(tmp_path, TWO)
    data = to_data(made)
    assert json.loads(json.dumps(data)) == data
    assert [f"{s['target']}/{s['configuration']}/{s['step']}" for s in data["nodes"][0]["steps"]] == order(made)
    assert [n["clean"] for n in data["nodes"]] == [True, True]


def test_data_tells_the_topology(tmp_path: Path) -> None:
    """Who reads the plan knows of each node what the nodes know of each other, also of those with a count."""
    nodes = "nodes:\n  n: {configurations: [a], count: 2}\n  m: {configurations: [a]}\n"
    made = make(tmp_path, "configurations:\n  a: {test: x}\n" + nodes)
    told = [Peer(**{"name" if k == "node" else k: n[k] for k in TOLD}) for n in to_data(made)["nodes"]]
    assert told == made.peers
    assert [peer.group for peer in told] == ["n", "n", "m"]
