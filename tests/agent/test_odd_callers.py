"""The command `testbed` where its streams or its folder are not as usual: closed, full, not blocking, removed."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.agent.machine import Machine, step

BIG = b"x" * (1 << 20)


@pytest.fixture
def node(machine: Machine) -> Machine:
    """A node whose test goes on until the run finalises; `big` holds 1 MiB and `small` a word."""
    assert machine.start(machine.plan(step("test", "main", "testbed wait finalise")))["ok"]
    machine.await_line("wait_started wait finalise")
    machine.scope.set("big", BIG)
    machine.scope.set("small", b"word")
    return machine


CASES = {
    "output closed": ("testbed get big >&-", 0, ""),
    "errors closed": ("testbed get unset 2>&-", 1, ""),
    "input closed": ("testbed set small - <&-; test -z $(testbed get small)", 0, ""),
    "output full": ("testbed get small >/dev/full", 3, "testbed: cannot write the output: No space left on device\n"),
    "errors full": ("testbed get 2>/dev/full", 2, ""),
    "input only to be written": (
        "testbed set small - 0>/dev/null",
        3,
        "testbed: cannot read standard input: Bad file descriptor\n",
    ),
    "folder removed": ('cd "$(mktemp -d)" && rmdir "$PWD" && testbed get small && testbed lock l -- true', 0, ""),
    "all closed for a lock's command": ("testbed lock l -- sh -c 'cat; echo; echo >&2' <&- >&- 2>&-", 0, ""),
}


@pytest.mark.parametrize("case", CASES)
def test_odd_streams_and_folders(node: Machine, case: str) -> None:
    """A word is done or says in one line why not, whatever it was called with; nothing of that is laid on the agent."""
    script, code, says = CASES[case]
    path = os.pathsep.join((node.workspace.own("bin"), os.environ["PATH"]))
    done = subprocess.run(
        ["sh", "-c", script], env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (code, says)


def test_output_that_does_not_block(node: Machine) -> None:
    """A pipe that another program made not to block takes all of a value."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    waiting = subprocess.Popen([node.workspace.own("bin", "testbed"), "get", "big"], stdout=write)
    os.close(write)
    with os.fdopen(read, "rb") as output:
        assert output.read() == BIG + b"\n"
    assert waiting.wait(60) == 0
