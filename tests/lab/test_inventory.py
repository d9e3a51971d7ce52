"""Inventories: what Ansible reads is what testbed sees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from testbed.errors import LabError, UsageError
from testbed.inventory import Inventory, Machine, Reading, ansible_environment, for_nodes, load

CASES = Path(__file__).parent.parent / "cases"
BROKEN = sorted((CASES / "inventory-broken").glob("*.expected"))
PROGRAMS = Path(sys.executable).parent


def read(folder: Path, *sources: str, playbook_dir: Path | None = None, vault: Path | None = None) -> Inventory:
    """Load sources (relative to ``folder``) with this process's environment."""
    paths = [source if "," in source else str(folder / source) for source in sources]
    return load(paths, playbook_dir, str(vault) if vault else None, os.environ)


def ansible(program: str, *arguments: str | Path, **environment: str) -> str:
    """What an Ansible program prints; fails the test with its words."""
    done = subprocess.run(
        [str(PROGRAMS / program), *map(str, arguments)],
        check=False,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("case", sorted(p for p in (CASES / "inventory").iterdir()), ids=lambda path: path.name)
def test_reads_what_ansible_reads(case: Path) -> None:
    """Files, scripts, plugins and lists give their machines in Ansible's order, with the variables that hold.

    Of templates only those that a case names as ``resolved`` are: how to reach a machine, but not with which password.
    """
    expected = json.loads((case / "expected.json").read_text())
    inventory = read(case, *expected["sources"])
    found = [[m.name, m.address, m.connection, m.user, m.port] for m in inventory.machines]
    assert found == expected["machines"]
    arguments = [word for source in inventory.sources for word in ("-i", source)]
    printed = ansible("ansible-inventory", "--list", *arguments)
    effective = json.loads(printed, object_hook=lambda d: d.get("__ansible_unsafe", d))["_meta"]["hostvars"]
    for machine in inventory.machines:
        own = {key: value for key, value in machine.variables.items() if key != "ansible_group_priority"}
        resolved = {key: own[key] for key in expected.get("resolved", ()) if key in own}
        assert own == {**effective.get(machine.name, {}), **resolved}


@pytest.mark.parametrize("case", BROKEN, ids=lambda path: path.stem)
def test_broken_sources_are_told_plainly(case: Path) -> None:
    """A source that cannot be read is told with its file and Ansible's reason, without Ansible's noise."""
    fault, _, words = case.read_text().strip().partition(" ")
    with pytest.raises(UsageError if fault == "usage" else LabError) as caught:
        read(case.parent, case.stem)
    assert words in caught.value.message
    assert str(case.with_suffix("")) in caught.value.message
    assert "\n" not in caught.value.message
    assert "WARNING" not in caught.value.message


def test_missing_source_is_named(tmp_path: Path) -> None:
    """An inventory that is not there is named as it was given, with the file that was meant."""
    (tmp_path / "practice.yml").write_text("all: {}\n")
    with pytest.raises(UsageError) as caught:
        read(tmp_path, "practise.yml")
    assert f"{tmp_path}/practise.yml does not exist" in caught.value.message
    assert caught.value.help == "did you mean practice.yml?"


def test_empty_inventory_has_no_machines(tmp_path: Path) -> None:
    """An inventory without hosts is read as such; who needs machines will say that there are none."""
    (tmp_path / "lab.yml").write_text("all: {}\n")
    assert read(tmp_path, "lab.yml").machines == ()


@pytest.fixture
def vaulted(tmp_path: Path) -> Path:
    """A folder with an inventory, an inline-vaulted variable, a vaulted file beside the spec, and the password."""
    spec = tmp_path / "spec" / "group_vars"
    spec.mkdir(parents=True)
    (tmp_path / "password").write_text("open sesame\n")
    (tmp_path / "lab.yml").write_text("all: {children: {web: {hosts: {m1: {said: '{{ word }}!'}, m2: {}}}}}\n")
    (spec / "web.yml").write_text("word: hidden\n")
    secret = ("--vault-password-file", tmp_path / "password")
    ansible("ansible-vault", "encrypt", *secret, spec / "web.yml")
    (tmp_path / "group_vars").mkdir()
    inline = ansible("ansible-vault", "encrypt_string", *secret, "--name", "token", "{{ no template }}")
    (tmp_path / "group_vars" / "all.yml").write_text(inline)
    return tmp_path


def test_vaulted_values_reach_the_nodes(vaulted: Path) -> None:
    """Vaulted files and inline-vaulted values, and templates over them, work in the inventory made for a run."""
    inventory = read(vaulted, "lab.yml", playbook_dir=vaulted / "spec", vault=vaulted / "password")
    made = for_nodes(inventory, {"n0": inventory.machines[0]}, {"dicom-server": ["n0"]})
    run = vaulted / "run.json"
    run.touch(mode=0o600)
    run.write_text(json.dumps(made))
    made["all"]["hosts"]["n0"]["ansible_connection"] = "local"
    run.write_text(json.dumps(made))
    arguments = ("-i", run, "all", "--vault-password-file", vaulted / "password", "-m", "debug")
    printed = ansible("ansible", *arguments, "-a", "msg='{{ said }} {{ token }} {{ group_names | sort }}'")
    assert "hidden! {{ no template }} ['dicom-server', 'web']" in printed


def test_vault_without_password_says_what_to_give(vaulted: Path) -> None:
    """Vaulted values that cannot be opened are told with the option that opens them."""
    for vault in (None, vaulted / "lab.yml"):
        with pytest.raises(UsageError) as caught:
            read(vaulted, "lab.yml", playbook_dir=vaulted / "spec", vault=vault)
        assert "--vault-password-file" in caught.value.help
    with pytest.raises(UsageError, match="does not exist"):
        read(vaulted, "lab.yml", vault=vaulted / "nothing")


def exported() -> Inventory:
    """An inventory of two remote machines and a local one, in nested groups."""
    groups: dict[str, Any] = {
        "_meta": {"hostvars": {"m1": {"ansible_host": "10.0.0.1"}, "here": {"ansible_connection": "local"}}},
        "all": {"children": ["ungrouped", "lab", "modality"], "vars": {"site": "north"}},
        "ungrouped": {"hosts": ["here"], "vars": {"alone": True}},
        "lab": {"children": ["rack"], "vars": {"x": 1}},
        "rack": {"hosts": ["m1", "m2"], "vars": {"y": 2}},
        "modality": {"hosts": ["m2"], "vars": {"z": 3}},
    }
    machines = (
        Machine("m1", "10.0.0.1", variables={"ansible_host": "10.0.0.1"}),
        Machine("m2", "m2"),
        Machine("here", "here", "local", variables={"ansible_connection": "local"}),
    )
    return Inventory(machines, groups, ("lab.yml",))


def test_nodes_take_the_place_of_machines() -> None:
    """Nodes get their machines' variables and groups and an address; machines without nodes are gone."""
    inventory = exported()
    m1, m2, here = inventory.machines
    made = for_nodes(inventory, {"a": m2, "b": here}, {"modality": ["a", "b"], "server": ["b"]})["all"]
    assert made["hosts"] == {"a": {"ansible_host": "m2"}, "b": {"alone": True, "ansible_connection": "local"}}
    assert made["vars"] == {"site": "north"}
    assert made["children"]["lab"] == {"children": {"rack": {}}, "vars": {"x": 1}}
    assert made["children"]["rack"] == {"hosts": {"a": None}, "vars": {"y": 2}}
    assert made["children"]["modality"] == {"hosts": {"a": None, "b": None}, "vars": {"z": 3}}
    assert made["children"]["server"] == {"hosts": {"b": None}}
    assert m1.name not in json.dumps(made)


def test_a_node_is_reached_as_its_machine() -> None:
    """A connection that an inventory makes of its hosts' names leads to the machine, not to the node's name."""
    case = CASES / "inventory" / "templated-connection"
    inventory = read(case, "lab.ini")
    data = for_nodes(inventory, {"node": next(m for m in inventory.machines if m.name == "web")}, {})
    assert data["all"]["hosts"]["node"]["ansible_host"] == "web.lab.example"


def test_the_log_of_ansible_holds_no_vault(vaulted: Path, tmp_path: Path) -> None:
    """Where ansible.cfg keeps a log, reading an inventory with opened vaults writes nothing into it."""
    log = tmp_path / "ansible.log"
    environment = {**os.environ, "ANSIBLE_LOG_PATH": str(log)}
    opened = load([str(vaulted / "lab.yml")], vaulted / "spec", str(vaulted / "password"), environment)
    assert opened.groups["web"]["vars"]["word"] == "hidden"
    assert not log.exists()


def test_two_nodes_on_one_machine() -> None:
    """Where two nodes stand on one machine both get its variables and groups."""
    inventory = exported()
    made = for_nodes(inventory, {"a": inventory.machines[0], "b": inventory.machines[0]}, {})["all"]
    assert made["hosts"] == {"a": {"ansible_host": "10.0.0.1"}, "b": {"ansible_host": "10.0.0.1"}}
    assert list(made["children"]["rack"]["hosts"]) == ["a", "b"]


def test_without_inventory_nodes_are_local() -> None:
    """Without an inventory every node is a local host that uses this Python."""
    made = for_nodes(None, {"a": Machine("a", "127.0.0.1", "local")}, {"hello": ["a"]})
    here = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    assert made == {"all": {"hosts": {"a": here}, "children": {"hello": {"hosts": {"a": None}}}}}


def test_finds_ansible_cfg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's ansible.cfg comes first, then that beside the spec, beside the inventory, in the current folder."""
    folders = [tmp_path / name for name in ("here", "inventory", "spec", "own")]
    here, inventory, spec, own = folders
    for folder in folders:
        folder.mkdir()
    monkeypatch.chdir(here)
    sources = [str(inventory / "lab.yml")]
    assert "ANSIBLE_CONFIG" not in ansible_environment(spec, sources, {})
    for folder in (here, inventory, spec):
        (folder / "ansible.cfg").write_text("[defaults]\n")
        assert ansible_environment(spec, sources, {})["ANSIBLE_CONFIG"] == str(folder / "ansible.cfg")
    found = ansible_environment(spec, sources, {"ANSIBLE_CONFIG": str(own / "my.cfg")})
    assert found["ANSIBLE_CONFIG"] == str(own / "my.cfg")
    spec.chmod(0o777)  # Ansible itself does not trust such a folder
    assert ansible_environment(spec, sources, {})["ANSIBLE_CONFIG"] == str(inventory / "ansible.cfg")


def test_settings_of_the_user_stand(tmp_path: Path) -> None:
    """What the user set in ansible.cfg or the environment is not overridden by what keeps Ansible quiet."""
    assert ansible_environment(tmp_path, [], {})["ANSIBLE_PYTHON_INTERPRETER"] == "auto_silent"
    (tmp_path / "ansible.cfg").write_text("[defaults]\ninterpreter_python = /opt/python\n")
    found = ansible_environment(tmp_path, [], {"ANSIBLE_TRANSFORM_INVALID_GROUP_CHARS": "always"})
    assert "ANSIBLE_PYTHON_INTERPRETER" not in found
    assert "ANSIBLE_TRANSFORM_INVALID_GROUP_CHARS" not in found


def test_ansible_cfg_beside_the_spec_is_obeyed(tmp_path: Path) -> None:
    """A vault password file that only the ansible.cfg beside the spec names opens the inventory."""
    (tmp_path / "spec").mkdir()
    (tmp_path / "password").write_text("open sesame\n")
    (tmp_path / "spec" / "ansible.cfg").write_text("[defaults]\nvault_password_file = ../password\n")
    (tmp_path / "lab.yml").write_text("all: {hosts: {m: {ansible_user: ann}}}\n")
    ansible("ansible-vault", "encrypt", "--vault-password-file", tmp_path / "password", tmp_path / "lab.yml")
    assert read(tmp_path, "lab.yml", playbook_dir=tmp_path / "spec").machines[0].user == "ann"


def test_a_reading_ends_with_its_block(tmp_path: Path) -> None:
    """An inventory that nobody waits for any more is read no further: its script and what that started end."""
    fifo, script = tmp_path / "fifo", tmp_path / "slow"
    os.mkfifo(fifo)
    script.write_text(f"#!/bin/sh\nexec 9>{fifo}\necho begun >&9\nsleep 1000\n")
    script.chmod(0o755)
    with Reading([str(script)], None, None, os.environ):
        held = fifo.open()
        assert held.readline() == "begun\n"
    with held:
        assert held.read() == ""  # comes once nobody has it open for writing
