"""What a node hears first: the abort before the end of a step that comes of it."""

from __future__ import annotations

import queue
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.agent.endpoint import Call
from testbed.agent.messages import Flagged
from testbed.agent.node import Node
from testbed.agent.words import ABORTED
from testbed.agent.workspace import Workspace
from tests.agent.machine import Machine, step


@pytest.fixture
def inbox() -> queue.SimpleQueue[Any]:
    """What the node's lifecycle is told."""
    return queue.SimpleQueue()


@pytest.fixture
def deaf(machine: Machine, inbox: queue.SimpleQueue[Any]) -> Iterator[Node]:
    """A node that has not joined: it has no watch that would tell it of flags."""
    workspace = Workspace(str(machine.root / "deaf"))
    Path(workspace.logs).mkdir(parents=True)
    node = Node(machine.plan(step("test", "main", "true")), workspace, "", inbox)
    yield node
    node.leave()


def test_the_abort_is_heeded_before_a_command_is_told(
    machine: Machine, deaf: Node, inbox: queue.SimpleQueue[Any]
) -> None:
    """A command that finds the run aborted is answered only when its node knows it, however late the watch may be."""
    machine.scope.raise_flag("abort", "enough")
    here, there = socket.socketpair()
    with here, there:
        reply = deaf._answer(Call(["get", "--block", "never"], b"", there))
    assert reply.code == ABORTED
    assert inbox.get_nowait() == Flagged("abort", "controller", "enough")


def test_other_answers_stop_nobody(machine: Machine, deaf: Node, inbox: queue.SimpleQueue[Any]) -> None:
    """A command that fails for its own reasons does not stop its node."""
    here, there = socket.socketpair()
    with here, there:
        assert deaf._answer(Call(["get", "never"], b"", there)).code == 1
    assert inbox.empty()
    assert machine.scope.flag("abort") is None
