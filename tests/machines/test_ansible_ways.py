"""What Ansible users keep beside a playbook or an inventory works beside a spec, found where Ansible finds it."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from machines_bench import Bench, Done, left_on

from testbed import events
from testbed.lab import practice

WAYS = Path(__file__).parent.parent / "cases" / "ansible-ways"
PASSWORD = "open sesame\n"  # of the vaulted values under `WAYS`
SECRETS = ("from the inline value", "from the vaulted file", "from the tasks file")


def password_file(folder: Path) -> Path:
    """Write the vault's password file."""
    path = folder / "vault-password"
    path.touch(mode=0o600)
    path.write_text(PASSWORD)
    return path


def write_role(folder: Path, tasks: list[dict[str, Any]], handlers: list[dict[str, Any]]) -> None:
    """Write a role."""
    for part, content in (("tasks", tasks), ("handlers", handlers)):
        (folder / part).mkdir(parents=True)
        (folder / part / "main.yml").write_text(yaml.safe_dump(content))


def role_elsewhere(folder: Path, words: str) -> None:
    """Write an ansible.cfg whose roles_path leads to a role of its own."""
    copy = {"content": f"{words}\n", "dest": "{{ testbed.workspace }}/role.txt", "mode": "0644"}
    write_role(folder / "elsewhere/outsider", [{"ansible.builtin.copy": copy}], [])
    (folder / "ansible.cfg").write_text("[defaults]\nroles_path = elsewhere\n")


CALLER = """\
deployment: caller
configurations:
  caller:
    init: {roles: [outsider], gather_facts: false}
    publish: cp role.txt "$TESTBED_REPORTS/"
nodes:
  one: {configurations: [caller]}
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """One run of the spec that uses everything."""
    folder = tmp_path_factory.mktemp("ways")
    return Bench(folder).run(
        WAYS / "spec/deployment.yml", "-i", WAYS / "inventory/lab.yml", "-p", "volume=whispered",
        "--vault-password-file", password_file(folder),
    )  # fmt: skip


def test_everything_beside_spec_and_inventory_is_found(whole: Done) -> None:
    """Roles, modules, collections, filters, variables, vaulted values, files and templates: each task sees its own."""
    assert whole.code == 0, whole.said
    expected = yaml.safe_load((WAYS / "expected.yml").read_text())
    found = {node: {name: whole.report(node, name) for name in files} for node, files in expected.items()}
    assert found == expected
    assert not (whole.directory / "nodes/pair-1/reports/stamp.txt").exists(), "the role's `when` was not heeded"
    assert not (whole.directory / "nodes/single/reports/greeting.never.txt").exists()


def test_vaulted_values_stay_out_of_what_is_kept(whole: Done) -> None:
    """After a run no vaulted value lies in the run directory, but where a task wrote it into a report."""
    assert whole.code == 0, whole.said
    holders = {
        path.relative_to(whole.directory).as_posix()
        for path in whole.directory.rglob("*")
        if path.is_file() and not path.is_symlink() and any(s in path.read_text(errors="replace") for s in SECRETS)
    }
    assert {path for path in holders if not re.fullmatch(r"nodes/[^/]+/reports/.*", path)} == set()
    assert holders


@pytest.mark.parametrize("password", ["", "wrong\n"])
def test_a_vault_that_stays_shut_is_told(bench: Bench, tmp_path: Path, password: str) -> None:
    """Without the password, or with a wrong one, the user is told of --vault-password-file and nothing was begun."""
    vault = password_file(tmp_path)
    vault.write_text(password or PASSWORD)
    given = ["--vault-password-file", vault] if password else []
    spec = bench.spec(CALLER)
    variables = spec.parent / "group_vars"
    variables.mkdir()
    (variables / "all.yml").write_bytes((WAYS / "spec/group_vars/whisperer.yml").read_bytes())
    done = bench.run(spec, "-i", WAYS / "inventory/lab.yml", *given)
    assert done.code == 2
    assert "vaulted" in done.err
    assert "--vault-password-file" in done.err
    assert "Traceback" not in done.said
    assert not done.directory.exists()


@pytest.mark.parametrize("place", ["spec", "inventory", "both"])
def test_ansible_cfg_holds_beside_spec_and_inventory(bench: Bench, tmp_path: Path, place: str) -> None:
    """ansible.cfg is taken from beside the spec, else from beside the inventory; its paths are relative to itself."""
    spec = bench.spec(CALLER)
    inventory = tmp_path / "lab" / "hosts.ini"
    inventory.parent.mkdir()
    inventory.write_text("here ansible_connection=local ansible_python_interpreter='{{ ansible_playbook_python }}'\n")
    if place in ("spec", "both"):
        role_elsewhere(spec.parent, "beside the spec")
    if place in ("inventory", "both"):
        role_elsewhere(inventory.parent, "beside the inventory")
    habits = {"ANSIBLE_VERBOSITY": "2", "ANSIBLE_STDOUT_CALLBACK": "community.general.yaml"}  # must not hurt
    done = bench.run(spec, "-i", inventory, environment=habits)
    assert done.code == 0, done.said
    assert done.report("one", "role.txt") == f"beside the {'inventory' if place == 'inventory' else 'spec'}\n"


CROSSED = """\
deployment: crossed
configurations:
  teller:
    init:
      gather_facts: false
      ansible: [{ansible.builtin.copy: {content: "{{ word }}", dest: "{{ testbed_workspace }}/word", mode: "0600"}}]
    test: cp word "$TESTBED_REPORTS/"
nodes:
  m2: {configurations: [teller]}
"""


@pytest.mark.parametrize("place", ["spec", "elsewhere"])
def test_a_node_named_as_another_machine(bench: Bench, place: str) -> None:
    """A node that is called as one machine and stands on another has the variables of the one it stands on."""
    spec = bench.spec(CROSSED)
    inventory = bench.folder / place / "lab.ini"
    (inventory.parent / "host_vars").mkdir(parents=True)
    inventory.write_text("[all:vars]\nansible_connection=local\n[lab]\nm1\nm2\n")
    (inventory.parent / "host_vars/m1.yml").write_text("word: of m1\n")
    (inventory.parent / "host_vars/m2.yml").write_text("word: of m2\n")
    done = bench.run(spec, "-i", inventory, environment={"ANSIBLE_PYTHON_INTERPRETER": sys.executable})
    assert done.code == 0, done.said
    assert done.report("m2", "word") == "of m1"


REACHED = """\
deployment: reached
configurations:
  reached:
    init:
      gather_facts: false
      ansible: [{ansible.builtin.copy: {content: "{{ opened }}", dest: "{{ testbed_workspace }}/opened", mode: "0600"}}]
    test: cp opened "$TESTBED_REPORTS/"
nodes:
  one: {configurations: [reached]}
"""


@pytest.mark.lab
def test_paths_hold_from_where_the_command_is_called(bench: Bench, practice_lab: practice.Lab) -> None:
    """Paths of keys, of ssh's files and of vault passwords are relative to the current folder, as Ansible takes them.

    The machine's address is made of its own name, which the node does not have.
    """
    host = practice_lab.hosts[0]
    own = yaml.safe_load(practice_lab.inventory.read_text())["all"]["vars"]
    shutil.copy(own["ansible_ssh_private_key_file"], bench.folder / "key")
    (bench.folder / "ssh_config").write_text(f"Host {host.name}\n  HostName {host.address}\n")
    variables = {
        "ansible_host": "{{ inventory_hostname }}",
        "ansible_ssh_private_key_file": "key",
        "ansible_ssh_common_args": own["ansible_ssh_common_args"] + " -F ssh_config",
        "opened": "{{ inline_secret }}",
    }
    inventory = bench.inventory(practice_lab, {host.name: variables})
    spec = bench.spec(REACHED)
    shutil.copytree(WAYS / "spec/group_vars", spec.parent / "group_vars")
    (spec.parent / "group_vars/talker.yml").rename(spec.parent / "group_vars/reached.yml")
    password_file(bench.folder)
    identity = {"ANSIBLE_VAULT_IDENTITY_LIST": "house@vault-password"}
    done = bench.run(spec, "-i", inventory, "--etcd-advertise", practice_lab.controller, environment=identity)
    assert done.code == 0, done.said
    assert done.report("one", "opened") == "from the inline value"


STUCK = """\
deployment: stuck
configurations:
  failing:
    init:
      gather_facts: false
      {content}
      post: touch post-ran
    test: test -e post-ran && touch never
    finalise: test -e post-ran && ! test -e never
nodes:
  one: {configurations: [failing]}
"""
FAILING = {
    "role-unknown": ("roles: [nosuchrole]", "nosuchrole"),
    "module-unknown": ("ansible: [{nosuchmodule: {}}]", "nosuchmodule"),
    "variable-undefined": ('ansible: [{ansible.builtin.debug: {msg: "{{ nosuchvariable }}"}}]', "nosuchvariable"),
    "task": ("ansible: [{name: This one, ansible.builtin.command: /bin/false}]", "This one"),
    "handler": ("roles: [brittle]", "the handler breaks"),
    "assertion": ("ansible: [{ansible.builtin.fail: {msg: said by the task}}]", "said by the task"),
    "hidden": ("ansible: [{ansible.builtin.command: /bin/false, no_log: true}]", "no_log hides why"),
    "elsewhere": (
        "ansible: [{name: Over there, ansible.builtin.command: id, delegate_to: no.such.host.example,"
        " vars: {ansible_connection: ssh, ansible_ssh_retries: 0}}]",
        "task 'Over there' failed",
    ),
    "unreachable-passed-over": (
        "ansible: [{ansible.builtin.command: id, delegate_to: no.such.host.example, ignore_unreachable: true,"
        " vars: {ansible_connection: ssh, ansible_ssh_retries: 0}}, {ansible.builtin.fail: {msg: went on}}]",
        "went on",
    ),
    "item": ('ansible: [{ansible.builtin.command: "test {{ item }} = 1", loop: [1, 2]}]', "failed: [one] (item=2)"),
}


@pytest.mark.parametrize("case", FAILING)
def test_a_failing_step_says_what_failed(bench: Bench, case: str) -> None:
    """What Ansible refuses or a task fails at is the step's failure, in Ansible's words, and finalise runs."""
    content, words = FAILING[case]
    spec = bench.spec(STUCK.replace("{content}", content))
    write_role(
        spec.parent / "roles/brittle",
        [{"ansible.builtin.command": "true", "notify": "the handler breaks"}],
        [{"name": "the handler breaks", "ansible.builtin.command": "/bin/false"}],
    )
    done = bench.run(spec)
    assert done.code == 1, done.said
    first = done.out.partition("\n\n")[2].partition("\n\n")[0]
    assert "one failing.init.main" in first
    assert words in first
    ended = {(e.target, e.step): e.verdict for e in done.told(events.StepEnded)}
    assert ended["finalise", "main"] == "passed"


ENDED = """\
deployment: ended
configurations:
  ended:
    init: {gather_facts: false, ansible: [{meta: end_host}, {ansible.builtin.fail: {}}]}
    test: echo went on
nodes:
  one: {configurations: [ended]}
"""


def test_a_step_that_ends_early_has_passed(bench: Bench) -> None:
    """`meta: end_host` ends the step without failing, and the node goes on with the next."""
    done = bench.run(bench.spec(ENDED))
    assert done.code == 0, done.said
    assert done.log("one", "ended.test.main") == "went on\n"


TAGGED = """\
deployment: tagged
configurations:
  tagged:
    init:
      gather_facts: false
      ansible: [{ansible.builtin.fail: {}}, {ansible.builtin.debug: {msg: was wanted}, tags: wanted}]
nodes:
  one: {configurations: [tagged]}
"""


def test_tags_of_the_operator_choose_tasks(bench: Bench) -> None:
    """Tags that Ansible is told to run choose among a step's tasks; the run itself has none, and goes on."""
    done = bench.run(bench.spec(TAGGED), environment={"ANSIBLE_RUN_TAGS": "wanted"})
    assert done.code == 0, done.said
    assert "was wanted" in done.log("one", "tagged.init.main")


OVER_SSH = """\
deployment: over-ssh
finalise: all
configurations:
  web:
    deploy:
      become: true
      roles: [notifier]
      ansible:
        - ansible.builtin.copy: {src: page.txt, dest: /run/page.txt, mode: "0644"}
        - ansible.builtin.copy:
            content: "{{ ansible_facts.user_id }} {{ hostvars['web-1'].ansible_host }} {{ groups.web | length }}\\n"
            dest: /run/seen.txt
            mode: "0644"
    test:
      pre:
        gather_facts: true
        ansible:
          - ansible.builtin.copy: {content: "{{ ansible_facts.user_id }}", dest: /tmp/plain.txt, mode: "0644"}
      run: |
        cat /run/page.txt /run/seen.txt /tmp/plain.txt > all.txt
        stat -c ' %U' /run/page.txt /run/handled.txt >> all.txt
        id -un >> all.txt
    publish: cp all.txt "$TESTBED_REPORTS/"
    finalise:
      ansible:
        - ansible.builtin.file: {path: "{{ item }}", state: absent}
          loop: [/run/page.txt, /run/seen.txt, /run/handled.txt, /tmp/plain.txt]
          become: true
nodes:
  web: {configurations: [web], count: 2}
"""


@pytest.mark.lab
def test_become_of_a_target_over_ssh(bench: Bench, practice_lab: practice.Lab) -> None:
    """`become: true` on a target makes its tasks root's and nothing else; files beside the spec travel over SSH."""
    spec = bench.spec(OVER_SSH)
    (spec.parent / "page.txt").write_text("a page\n")
    hosts = {h.name: {"ansible_user": "lab-admin"} for h in practice_lab.hosts[:2]}
    write_role(
        spec.parent / "roles/notifier",
        [{"ansible.builtin.command": "true", "notify": "handled"}],
        [{"name": "handled", "ansible.builtin.copy": {"content": "", "dest": "/run/handled.txt", "mode": "0644"}}],
    )
    done = bench.run(spec, "-i", bench.inventory(practice_lab, hosts))
    assert done.code == 0, done.said
    second = practice_lab.hosts[1].address
    for node in ("web-0", "web-1"):
        assert done.report(node, "all.txt") == f"a page\nroot {second} 2\nlab-admin root\n root\nlab-admin\n"
    assert left_on(practice_lab) == {}
