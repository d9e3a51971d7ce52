"""What is done to a workspace from outside: stop its agent, bring its results home, remove it."""

from __future__ import annotations

import base64
import os
import signal
from contextlib import suppress
from typing import Any, Dict, List

from testbed.agent import process
from testbed.agent.answer import BUSY, Trouble, say, trouble_of, write_all
from testbed.agent.environment import run_marks
from testbed.agent.pack import is_full, pack, pack_in_memory
from testbed.agent.workspace import Workspace, delete, is_held, read_marker, read_packed, read_pid, wait_free


def stop(workspace: Workspace) -> Dict[str, Any]:
    """End the workspace's agent, which finalises and is killed if it takes too long, and all of the run's processes."""
    marker = read_marker(workspace)
    killed = _end_agent(workspace, marker)
    left = process.stop(lambda: process.find((), run_marks(marker["run"], marker["node"])), marker["grace"])
    return {"ok": True, "killed": killed, "processes": left}


def _end_agent(workspace: Workspace, marker: Dict[str, Any]) -> bool:
    """Have the agent end; whether it had to be killed. Its number is its own for as long as it holds the workspace."""
    for sent, patience in ((signal.SIGTERM, marker["end"]), (signal.SIGKILL, process.KILL_PATIENCE)):
        if not is_held(workspace):
            return sent == signal.SIGKILL
        pid = read_pid(workspace)
        if pid is None:
            raise Trouble(BUSY, f"an agent is just being started in {workspace.path}", "try again")
        with suppress(ProcessLookupError):
            os.kill(pid, sent)
        if wait_free(workspace, patience):
            return sent == signal.SIGKILL
    raise Trouble(BUSY, f"the agent (process {read_pid(workspace)}) in {workspace.path} cannot be killed")


def collect(workspace: Workspace, offset: int, length: int, wait: bool) -> None:
    """Print the answer, then ``length`` bytes of the results from ``offset`` on in base64.

    With ``wait`` an agent that still lives may come to its end first; else it is made to end. Where an agent could not
    pack its results, that is done now.
    """
    summary = read_packed(workspace)
    if summary is None:
        marker = read_marker(workspace)
        if wait:
            wait_free(workspace, marker["outage"] + marker["end"])
        stop(workspace)
        summary = read_packed(workspace)  # the agent may have done it meanwhile
    if summary is not None:
        with open(workspace.results, "rb") as file:
            file.seek(offset)
            data = file.read(length)
    else:
        summary, data = _pack_now(workspace, offset, length)
    say({"ok": True, **summary, "offset": offset, "length": len(data)})
    for start in range(0, len(data), 57 * 1024):
        write_all(1, base64.encodebytes(data[start : start + 57 * 1024]))


def _pack_now(workspace: Workspace, offset: int, length: int) -> Any:
    try:
        summary = pack(workspace)
    except OSError as error:
        if not is_full(error):
            raise trouble_of(error, "cannot pack the results") from error
        summary, whole = pack_in_memory(workspace)
        return summary, whole[offset : offset + length]
    with open(workspace.results, "rb") as file:
        file.seek(offset)
        return summary, file.read(length)


def remove(workspace: Workspace) -> Dict[str, Any]:
    """Stop what lives there, then delete the workspace and the empty folders made for it."""
    made: List[str] = read_marker(workspace)["made"]
    answer = stop(workspace)
    os.chdir("/")
    delete(workspace, made)
    return {**answer, "removed": workspace.path}
