"""Ansible that is started ahead of its time waits for it, and leaves nothing where the time never comes."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from testbed.agent import process
from testbed.events import START
from testbed.resources import playbooks
from testbed.run.bursts import AnsibleBursts, remove_sockets
from testbed.run.executor import FAILED, Burst, TaskResult
from testbed.run.remote import BURST, GATE, pass_gate

PLAYBOOK = f"""
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.copy: {{dest: "{{{{ inventory_dir }}}}/waits", content: ""}}
    - ansible.builtin.shell: 'head -c 1 "${GATE}" >/dev/null'
    - ansible.builtin.command: cat {{{{ inventory_dir }}}}/late
"""


@pytest.fixture
def bursts(tmp_path: Path) -> AnsibleBursts:
    """Bursts whose START waits at its gate in a task; the next task reads a file that nobody has written yet."""
    (tmp_path / "inventory.json").write_text(
        '{"all": {"hosts": {"n-0": {"ansible_connection": "local",'
        f' "ansible_python_interpreter": "{sys.executable}"}}}}}}}}'
    )
    (tmp_path / "testbed-start.yml").write_text(PLAYBOOK)
    return AnsibleBursts(tmp_path, tmp_path / "inventory.json", tmp_path / "logs", tmp_path, {}, 1)


def left(tmp_path: Path) -> list[process.Process]:
    """What still runs of the bursts."""
    return [p for p in process.find((), (f"{BURST}={tmp_path}/001-start".encode(),)) if p.pid != os.getpid()]


def test_it_waits_until_it_is_asked_for(bursts: AnsibleBursts, tmp_path: Path) -> None:
    """What is written before `run` is there for the tasks behind the gate, and their results come home."""
    burst = Burst(1, START, ("n-0",))
    bursts.foresee(burst)
    (tmp_path / "late").write_text("so late")
    told: list[TaskResult] = []
    outcome = bursts.run(burst, told.append, threading.Event())
    bursts.close()
    assert outcome.exit_code == 0
    assert told[-1].result["stdout"] == "so late"
    assert not (tmp_path / "gate").exists()


def test_another_burst_is_done_meanwhile(bursts: AnsibleBursts, tmp_path: Path) -> None:
    """A burst that was not foreseen does not take the place of the one that was."""
    (tmp_path / "late").write_text("so late")
    (tmp_path / "testbed-collect.yml").write_text("- {hosts: all, gather_facts: false, tasks: [{ping: }]}\n")
    burst = Burst(1, START, ("n-0",))
    bursts.foresee(burst)
    assert bursts.run(Burst(2, "collect", ("n-0",)), lambda _: None, threading.Event()).exit_code == 0
    assert bursts.run(burst, lambda _: None, threading.Event()).exit_code == 0
    bursts.close()


def test_cancelled_at_the_gate(bursts: AnsibleBursts, tmp_path: Path) -> None:
    """Who cancels it after asking for it is told so, and nothing goes on running."""
    burst = Burst(1, START, ("n-0",))
    bursts.foresee(burst)
    cancelled = threading.Event()
    cancelled.set()
    assert bursts.run(burst, lambda _: None, cancelled).cancelled
    bursts.close()
    assert left(tmp_path) == []


def test_never_asked_for(bursts: AnsibleBursts, tmp_path: Path) -> None:
    """Closing ends what was foreseen in vain; it has done nothing, and no process of it is left."""
    bursts.foresee(Burst(1, START, ("n-0",)))
    bursts.close()
    assert left(tmp_path) == []
    assert not (tmp_path / "gate").exists()


def test_a_connection_that_hangs_holds_nothing_up(bursts: AnsibleBursts, tmp_path: Path) -> None:
    """A kept connection that does not answer is left to its own end: what closes it raises nothing and goes on."""
    sockets = (tmp_path / "sockets").readlink()
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(sockets / "deaf"))
        deaf.listen()
        bursts.close()
    assert not sockets.exists()


AHEAD = """
import sys
from pathlib import Path
from testbed.run.bursts import AnsibleBursts, remove_sockets
from testbed.run.executor import Burst
here = Path(sys.argv[1])
AnsibleBursts(here, here / "inventory.json", here / "logs", here, {}, 1).foresee(Burst(1, "start", ("n-0",)))
"""


def test_killed_before_it_asked(bursts: AnsibleBursts, tmp_path: Path) -> None:
    """Where the controller is killed meanwhile, what waits at the gate of the shipped START ends too."""
    bursts.close()  # another has the folder
    shutil.copytree(playbooks(), tmp_path, dirs_exist_ok=True)
    os.mkfifo(tmp_path / "near")
    (tmp_path / "testbed-start.yml").write_text(
        "- hosts: all\n  gather_facts: false\n  tasks:\n"
        f"    - ansible.builtin.shell: echo > {tmp_path}/near\n    - testbed_start:\n"
    )
    near = os.open(tmp_path / "near", os.O_RDWR)
    controller = subprocess.Popen([sys.executable, "-c", AHEAD, str(tmp_path)])
    ended = os.pidfd_open(controller.pid)
    assert select.select([near, ended], [], [], 60)[0] == [near]
    waiting = [(p, os.pidfd_open(p.pid)) for p in left(tmp_path)]
    assert any("ansible" in p.command for p, _ in waiting)
    controller.kill()
    controller.wait()
    for found, handle in waiting:
        assert select.select([handle], [], [], 60)[0], found
        os.close(handle)
    os.close(near)
    os.close(ended)
    remove_sockets(tmp_path)


def test_gate_that_nobody_holds(tmp_path: Path) -> None:
    """Who comes to the gate after its controller's end does not wait there."""
    os.mkfifo(tmp_path / "gate")
    assert not pass_gate(str(tmp_path / "gate"))


def test_ansible_that_fails_ahead(bursts: AnsibleBursts, tmp_path: Path) -> None:
    """A failure before the gate is told to who asks, as if it had come then."""
    (tmp_path / "testbed-start.yml").write_text("- hosts: all\n  tasks: [{no_such_action: }]\n")
    burst = Burst(1, START, ("n-0",))
    bursts.foresee(burst)
    told: list[TaskResult] = []
    outcome = bursts.run(burst, told.append, threading.Event())
    bursts.close()
    assert outcome.exit_code != 0
    assert all(task.outcome == FAILED for task in told)
