"""Threads as Ansible's workers: what a START works with, under real Ansible with an action like its own."""

from __future__ import annotations

import json
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testbed.events import START
from testbed.resources import playbooks
from testbed.run.bursts import AnsibleBursts
from testbed.run.executor import FAILED, OK, UNREACHABLE, Burst, BurstOutcome, TaskResult

NAMES = tuple(f"n-{i}" for i in range(12))
PROBE = '''
"""Does a command on its host; `dies` names one at which it ends in a way that no action may."""
import importlib.util, os
from pathlib import Path
from ansible import context
from ansible.plugins.action import ActionBase

spec = importlib.util.spec_from_file_location("testbed_threads", Path(__file__).with_name("testbed_threads.py"))
threads = importlib.util.module_from_spec(spec)
spec.loader.exec_module(threads)
threads.install(int(os.environ["TESTBED_THREADS"]))
MAIN = os.getpid()


class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        if task_vars["inventory_hostname"] == self._task.args.get("dies"):
            raise SystemExit(3)
        with threads.waiting():
            done = self._low_level_execute_command(self._task.args["does"])
        forks = context.CLIARGS["forks"] if os.getpid() != MAIN else 0
        return {"failed": done["rc"] != 0, "stdout": done["stdout"].strip(), "forks": forks}
'''

Play = Callable[..., tuple[BurstOutcome, dict[str, TaskResult]]]


@pytest.fixture
def play(tmp_path: Path) -> Play:
    """Have the action done on all hosts in a START: how it ended, and each host's result."""

    def do(arguments: dict[str, str], hosts: dict[str, Any] | None = None, **environment: str) -> Any:
        shutil.copytree(playbooks(), tmp_path, dirs_exist_ok=True)
        (tmp_path / "action_plugins" / "probe.py").write_text(PROBE)
        own = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        all_hosts = {name: {**own, "word": f"word of {name}", **(hosts or {}).get(name, {})} for name in NAMES}
        inventory = tmp_path / "inventory.json"
        inventory.write_text(json.dumps({"all": {"hosts": all_hosts}}))
        play = {"hosts": "all", "gather_facts": False, "strategy": "free", "tasks": [{"probe": arguments}]}
        (tmp_path / "testbed-start.yml").write_text(json.dumps([play]))
        bursts = AnsibleBursts(tmp_path, inventory, tmp_path / "logs", tmp_path, environment, 2)
        told: list[TaskResult] = []
        outcome = bursts.run(Burst(1, START, NAMES), told.append, threading.Event())
        bursts.close()
        assert len({r.node for r in told}) == len(told)
        return outcome, {r.node: r for r in told}

    return do


def test_each_host_has_its_own(play: Play) -> None:
    """A task's words are each host's, and the variables of hosts that are done stay readable for the others."""
    known = "{{ groups['all'] | map('extract', hostvars, 'word') | join(',') }}"
    outcome, told = play({"does": f"echo {{{{ inventory_hostname }}}} knows '{known}'"})
    words = ",".join(f"word of {name}" for name in NAMES)
    assert outcome.exit_code == 0, Path(outcome.log).read_text()
    assert {n: r.result["stdout"] for n, r in told.items()} == {n: f"{n} knows {words}" for n in NAMES}
    assert not any(r.result["forks"] for r in told.values())


def test_hosts_wait_beside_each_other(play: Play, tmp_path: Path) -> None:
    """As many hosts as there are places work at a time: each of eight waits for a word of the one before it."""
    for number in range(8):
        os.mkfifo(tmp_path / f"word-{number}")
    script = (
        "i={{ inventory_hostname[2:] }}; "
        f"if [ $i -lt 8 ]; then echo word > {tmp_path}/word-$(( (i + 1) % 8 )) & cat {tmp_path}/word-$i; fi"
    )
    outcome, told = play({"does": script})
    assert outcome.exit_code == 0, Path(outcome.log).read_text()
    assert [told[name].result["stdout"] for name in NAMES[:8]] == ["word"] * 8


def test_failures_are_their_hosts_own(play: Play) -> None:
    """A host that fails, and one that cannot be reached, are told as such, and take nobody with them."""
    away = {"ansible_connection": "ssh", "ansible_host": "127.0.0.1", "ansible_port": 1}
    outcome, told = play({"does": "test {{ inventory_hostname }} != n-3"}, {"n-5": away})
    assert outcome.exit_code != 0
    wanted = {**dict.fromkeys(NAMES, OK), "n-3": FAILED, "n-5": UNREACHABLE}
    assert {n: r.outcome for n, r in told.items()} == wanted, Path(outcome.log).read_text()


def test_time_limits_are_kept(play: Play) -> None:
    """Where Ansible is told of a time limit for tasks, which a thread cannot have, it forks, as few as ever."""
    outcome, told = play({"does": "test {{ inventory_hostname }} != n-3 || sleep 600"}, ANSIBLE_TASK_TIMEOUT="8")
    assert outcome.exit_code != 0
    assert {n: r.outcome for n, r in told.items()} == {**dict.fromkeys(NAMES, OK), "n-3": FAILED}
    assert {r.result["forks"] for n, r in told.items() if n != "n-3"} == {2}


def test_worker_that_dies(play: Play) -> None:
    """A worker that a bug ends without a result ends the play, and nobody waits for it."""
    outcome, told = play({"does": "true", "dies": "n-3"})
    assert outcome.exit_code != 0
    assert "the worker for n-3 died" in Path(outcome.log).read_text()
    assert {r.outcome for n, r in told.items() if n != "n-3"} <= {OK}
