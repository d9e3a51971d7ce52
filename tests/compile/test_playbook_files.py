"""Golden playbooks: tests/cases/playbooks/NAME/deployment.yml and what becomes of it, in NAME/expected/.

After a change that is meant, `python tests/compile/test_playbook_files.py` writes what is expected anew; read the diff.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from testbed.compile.plan import RunPlan, plan
from testbed.compile.playbooks import playbooks
from testbed.inventory import Machine
from testbed.spec import load

CASES = sorted((Path(__file__).parent.parent / "cases" / "playbooks").iterdir())


def planned(case: Path) -> RunPlan:
    """The case's plan; every node is on a machine of its own."""
    deployment = load(case / "deployment.yml", {})
    machines = {
        node.name: Machine(f"host{node.index}", f"192.0.2.{node.index + 1}", "ssh") for node in deployment.nodes
    }
    return plan(f"{deployment.name}-run", deployment, machines)


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.name)
def test_playbooks(case: Path) -> None:
    """A deployment becomes exactly these playbooks and task files."""
    expected = {str(p.relative_to(case / "expected")): p.read_text() for p in (case / "expected").rglob("*.yml")}
    assert playbooks(planned(case)) == expected


@pytest.mark.parametrize("case", CASES, ids=lambda p: p.name)
def test_playbooks_are_as_ansible_wants_them(case: Path) -> None:
    """Each file is YAML; a node's own is one play for that node, a step's a list of tasks; none holds an alias."""
    made = planned(case)
    files = playbooks(made)
    for path, text in files.items():
        data = yaml.safe_load(text)
        assert isinstance(data, list)
        assert all(isinstance(item, dict) for item in data)
        assert "&id" not in text
        if "/" not in path:
            assert [play["hosts"] for play in data] == [Path(path).stem]
    wanted = {f"{n.node.name}/{s.name}.yml" for n in made.nodes for s in n.ansible}
    assert set(files) == wanted | {f"{n.node.name}.yml" for n in made.nodes}


def test_there_are_cases() -> None:
    """The cases are found."""
    assert len(CASES) >= 3


if __name__ == "__main__":
    for case in CASES:
        shutil.rmtree(case / "expected", ignore_errors=True)
        for path, text in playbooks(planned(case)).items():
            target = case / "expected" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
