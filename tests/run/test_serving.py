"""Ansible steps of several nodes in one SERVE, under real Ansible: none of them has a part in another's."""

from __future__ import annotations

import json
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from testbed.events import SERVE
from testbed.resources import playbooks
from testbed.run.bursts import AnsibleBursts
from testbed.run.executor import OK, Burst, TaskResult
from testbed.run.phases import STEP_DONE, STEP_FAILED

Serve = Callable[..., list[TaskResult]]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Do tasks of a node ``a`` and of a node ``b``; those of ``b`` begin when ``gate`` is heard of ``a``."""

    def do(a: list[Any], b: list[Any], gate: Callable[[TaskResult], bool]) -> list[TaskResult]:
        shutil.copytree(playbooks(), tmp_path, dirs_exist_ok=True)
        opened = tmp_path / "gate"
        wait = {"ansible.builtin.wait_for": {"path": str(opened), "timeout": 100}}
        for node, tasks in (("a", a), ("b", [wait, *b])):
            (tmp_path / node).mkdir()
            (tmp_path / node / "step.yml").write_text(json.dumps([{"block": tasks}]))
        own = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        hosts = {node: {**own, "testbed": {"run": "none", "node": node}} for node in ("a", "b")}
        inventory = tmp_path / "inventory.json"
        inventory.write_text(json.dumps({"all": {"hosts": hosts}}))
        told: list[TaskResult] = []

        def hear(task: TaskResult) -> None:
            told.append(task)
            if task.node == "a" and gate(task):
                opened.touch()

        bursts = AnsibleBursts(tmp_path, inventory, tmp_path / "logs", tmp_path, {}, 2)
        bursts.run(Burst(1, SERVE, ("a", "b"), {"a": "step", "b": "step"}), hear, threading.Event())
        bursts.close()
        return told

    return do


def tasks_of(told: list[TaskResult], node: str) -> list[str]:
    """The names of the tasks that a node came to."""
    return [task.task for task in told if task.node == node]


@pytest.mark.parametrize("end", ["end_host", "end_play", "end_batch"])
def test_an_end_is_one_nodes_own(serve: Serve, end: str) -> None:
    """What ends a play, in whichever word, ends the step of the node that comes to it, and is told; others go on."""
    never = {"name": "never", "ansible.builtin.debug": {}}
    told = serve([{"name": "the end", "meta": end}, never], [], lambda task: task.task == "the end")
    assert [(t.task, t.action.rpartition(".")[2], t.outcome) for t in told if t.node == "a"][1:] == [
        ("the end", "meta", OK)
    ]
    assert tasks_of(told, "b")[-1] == STEP_DONE


def test_an_end_that_is_not_meant(serve: Serve) -> None:
    """Where the condition of an end does not hold, the step goes on."""
    told = serve([{"name": "no end", "meta": "end_play", "when": False}], [], lambda task: task.task == STEP_DONE)
    assert [t.outcome for t in told if t.task == "no end"] == ["skipped"]
    assert tasks_of(told, "b")[-1] == STEP_DONE


def test_a_failed_step_is_told_at_once(serve: Serve) -> None:
    """A failure does not wait for the other nodes' tasks, and no word of theirs takes it back."""
    failing = {"name": "breaks", "ansible.builtin.fail": {}}
    told = serve([failing], [{"meta": "clear_host_errors"}], lambda task: task.task == STEP_FAILED)
    assert tasks_of(told, "a")[1:] == ["breaks", STEP_FAILED]
    assert tasks_of(told, "b")[-1] == STEP_DONE


def test_actions_for_all_hosts_at_once(serve: Serve) -> None:
    """`pause`, with nobody there to answer, and `add_host` are done for the node; Ansible does them for all hosts."""
    added = {"ansible.builtin.add_host": {"name": "new", "word": "heard"}}
    heard = {"name": "heard", "ansible.builtin.assert": {"that": ["hostvars.new.word == 'heard'"]}}
    pauses = [{"name": "time", "ansible.builtin.pause": {"seconds": 1}}, {"name": "person", "pause": {"prompt": "?"}}]
    told = serve([*pauses, added, heard], [], lambda task: task.task == STEP_DONE)
    assert tasks_of(told, "a")[1:] == ["time", "person", "ansible.builtin.add_host", "heard", STEP_DONE]
    assert tasks_of(told, "b")[-1] == STEP_DONE


def test_what_comes_before_a_result_is_kept(serve: Serve, tmp_path: Path) -> None:
    """Items of a loop and attempts stand in their own node's task's text, with what they failed at."""
    items = {
        "name": "items",
        "ansible.builtin.command": "{{ item }}",
        "loop": ["true", "false"],
        "ignore_errors": True,
    }
    mark = tmp_path / "tried"
    again = {
        "name": "again",
        "ansible.builtin.shell": f"test -e {mark} || ! touch {mark}",
        "register": "tried",
        "until": "tried is succeeded",
        "retries": 3,
        "delay": 0,
    }
    told = serve([items, again], [again], lambda task: task.task == STEP_DONE)
    text = {(t.node, t.task): t.output for t in told}
    assert "changed: [a] => (item=true)" in text["a", "items"]
    assert "failed: [a] (item=false)" in text["a", "items"]
    assert "RETRYING: [a]" in text["a", "again"]
    assert "RETRYING" not in text["b", "again"]
