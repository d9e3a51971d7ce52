"""`testbed doctor`: every thing that is wrong gets a line of advice, and what is right is said to be."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from machines_bench import Bench, left_on, on_host

from testbed.etcd.choice import EtcdChoice
from testbed.lab import practice
from testbed.run.doctor import BAD, GOOD, look_there


def findings(bench: Bench, code: int, *arguments: str | Path, environment: dict[str, str] | None = None) -> list[Any]:
    """What the doctor finds, by --json; its exit code must be ``code``."""
    done = bench.call("doctor", "--json", *arguments, environment=environment)
    assert done.code == code, done.said
    return list(json.loads(done.out))


def bad(found: list[Any]) -> dict[str, str]:
    """What is in the way of a run: the thing -> finding and advice; each must have advice."""
    wrong = [f for f in found if f["state"] == "bad"]
    assert all(f["advice"] for f in found if f["state"] != "good"), found
    return {f["what"]: f"{f['found']} | {f['advice']}" for f in wrong}


def test_good_machine(bench: Bench) -> None:
    """Where nothing is wrong every thing that a run needs is looked at, and nothing is left of the looking."""
    done = bench.call("doctor")
    assert done.code == 0, done.said
    for thing in ("Python", "ansible-core", "ansible-runner", "etcd", "etcd's start", "ssh", "disk"):
        assert f"ok    {thing}: " in done.out
    assert "BAD" not in done.out
    assert list(bench.folder.iterdir()) == []


def test_no_ssh(bench: Bench, tmp_path: Path) -> None:
    """Without an ssh client the doctor says which package brings it."""
    found = bad(findings(bench, 3, environment={"PATH": str(tmp_path)}))
    assert set(found) == {"ssh"}
    assert "openssh-client" in found["ssh"]


@pytest.mark.parametrize("kind", ["missing", "text", "other"])
def test_wrong_etcd_binary(bench: Bench, tmp_path: Path, kind: str) -> None:
    """An etcd program that is none is told with its path."""
    path = tmp_path / "etcd"
    if kind == "text":
        path.write_text("not a program\n")
    elif kind == "other":
        path.symlink_to("/bin/true")
    found = bad(findings(bench, 3, "--etcd-binary", path))
    assert set(found) == {"etcd"}
    assert str(path) in found["etcd"]


def test_state_that_cannot_be_written(bench: Bench) -> None:
    """A folder for runs that cannot be made is told with the variable that names another."""
    found = bad(findings(bench, 3, environment={"TESTBED_STATE_HOME": "/proc/nowhere"}))
    assert set(found) == {"disk"}
    assert "TESTBED_STATE_HOME" in found["disk"]


def test_broken_inventory(bench: Bench, tmp_path: Path) -> None:
    """An inventory that Ansible cannot read is a finding like any other."""
    broken = tmp_path / "broken.yml"
    broken.write_text("all: [1, 2\n")
    found = bad(findings(bench, 3, "-i", broken))
    assert set(found) == {"inventory"}
    assert str(broken) in found["inventory"]


def test_what_keeps_ansible_from_looking(bench: Bench, tmp_path: Path) -> None:
    """Where Ansible ends before it comes to a machine, the machine's finding is Ansible's own reason."""
    inventory = tmp_path / "lab.yml"
    inventory.write_text("all: {hosts: {here: {ansible_connection: local}}}\n")
    plugins = tmp_path / "plugins"
    plugins.mkdir()
    (plugins / "free.py").write_text("raise RuntimeError('a broken plugin')\n")
    found = bad(findings(bench, 3, "-i", inventory, environment={"ANSIBLE_STRATEGY_PLUGINS": str(plugins)}))
    assert set(found) == {"here"}
    assert "a broken plugin" in found["here"]
    assert f"ansible here -i {inventory}" in found["here"]


@pytest.mark.timeout(60)
def test_a_root_below_home(bench: Bench, tmp_path: Path) -> None:
    """A testbed_root that is relative is looked for below the login's home, as a run does, and not for ever."""
    inventory = tmp_path / "inventory.yml"
    inventory.write_text("all: {hosts: {here: {ansible_connection: local, testbed_root: not/made/yet}}}\n")
    assert bad(findings(bench, 0, "-i", inventory)) == {}


def test_a_machine_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that does not answer in time is told as one that hangs; what the others answered is told too."""
    monkeypatch.setenv("TESTBED_STATE_HOME", str(tmp_path))
    deaf = tmp_path / "python3"
    deaf.write_text("#!/bin/sh\nexec sleep 300\n")
    deaf.chmod(0o755)
    inventory = tmp_path / "inventory.yml"
    hosts = {"well": {}, "deaf": {"ansible_python_interpreter": str(deaf)}}
    inventory.write_text(json.dumps({"all": {"vars": {"ansible_connection": "local"}, "hosts": hosts}}))
    found = {f.what: f for f in look_there([str(inventory)], None, EtcdChoice(), patience=8.0)}
    assert (found["deaf"].state, found["well"].state) == (BAD, GOOD)
    assert "hangs or is slow" in found["deaf"].found


@pytest.mark.lab
def test_good_lab(bench: Bench, practice_lab: practice.Lab) -> None:
    """Every machine of a lab that is well is reached, has a Python and a way to etcd; nothing is left on it."""
    found = findings(bench, 0, "-i", practice_lab.inventory)
    assert bad(found) == {}
    reached = {f["what"] for f in found if f["found"].startswith("reached; Python 3")}
    assert reached == {h.name for h in practice_lab.hosts}
    assert left_on(practice_lab) == {}


@pytest.mark.lab
def test_broken_lab(bench: Bench, breakable_lab: Callable[[int], practice.Lab]) -> None:
    """A host that is down, homes that are read-only or noexec, no way to etcd: told of each, by its host's name."""
    lab = breakable_lab(5)
    down, read_only, noexec, walled, well = (h.name for h in lab.hosts)
    practice.kill(lab, down)
    on_host(lab, read_only, "mount -o remount,ro /root")
    on_host(lab, noexec, "mount -o remount,noexec /root")
    on_host(lab, walled, "ip rule add priority 10 ipproto tcp sport 22 lookup main")
    on_host(lab, walled, f"ip rule add priority 20 to {lab.controller} ipproto tcp unreachable")
    found = bad(findings(bench, 3, "-i", lab.inventory))
    assert set(found) == {down, read_only, noexec, walled}
    assert "is the machine on" in found[down]
    assert "testbed_root" in found[read_only]
    assert "mounted noexec" in found[noexec]
    assert f"no way to etcd at {lab.controller}:" in found[walled]
    assert "--etcd-advertise" in found[walled]
    assert os.linesep not in "".join(found.values())
    assert left_on(lab, read_only, noexec, walled, well) == {}
