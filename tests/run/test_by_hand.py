"""A node's playbook, run by hand with ansible-playbook, does what the controller would have done."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

CASE = Path(__file__).parent.parent / "cases" / "runs" / "by-hand.yml"


def test_playbooks_by_hand(start: Callable[..., Any]) -> None:
    """The commands that the run names start the nodes and do their Ansible steps; verdicts and events are the same."""
    run = start(CASE, "--by-hand")
    run.await_line("start it by hand: ", 2)
    commands = [line.partition("start it by hand: ")[2] for line in run.lines if "start it by hand: " in line]
    plays = [
        subprocess.Popen(shlex.split(c), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) for c in commands
    ]
    said = [play.communicate(timeout=90)[0] for play in plays]
    code, out = run.end()
    assert [play.returncode for play in plays] == [0, 0], said
    assert code == 1, [*run.lines, out]
    nodes = {node["name"]: node["verdict"] for node in run.report()["nodes"]}
    assert nodes == {"one": "passed", "two": "failed"}
    assert run.log("one", "worker.test.main.out") == "one"
    ended = [e for e in run.events() if e["event"] == "step_ended" and e["node"] == "two" and e["target"] == "test"]
    assert [(e["verdict"], e["reason"]) for e in ended] == [("failed", "Break: broken on purpose")]
    run.check_nothing_left()
