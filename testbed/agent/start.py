"""The start of an agent: it reads its plan and files off stdin, detaches, and says over stdout whether it is up."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any, Dict, List, Optional, cast

from testbed.agent.answer import BUG, ETCD, PERMISSION, Trouble, trouble_of, write_all
from testbed.agent.plan import Plan, from_json, longest_end
from testbed.agent.workspace import Workspace, delete, hold, note_made, read_marker, write_file

PATIENCE = 15.0
"""Seconds that etcd may take to be reached at the start."""

ANSWER_PATIENCE = 60.0
"""Seconds until an agent must have said how its start went; it does by itself long before."""


@dataclass(frozen=True)
class Header:
    """What the first stage passes on: the workspace, the folders it made for it, and the bytes still on stdin."""

    workspace: str
    made: List[str]
    plan: int
    files: int


class Supply(io.RawIOBase):
    """Standard input as far as it is ours: exactly so many bytes."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd, self.left = fd, size

    def readable(self) -> bool:
        """It is there to be read."""
        return True

    def read(self, size: int = -1) -> bytes:
        """All of ``size`` bytes, fewer only at the end; raises Trouble where the connection ends before."""
        wanted = self.left if size < 0 else min(size, self.left)
        pieces = []
        while wanted:
            piece = os.read(self._fd, min(wanted, 1 << 20))
            if not piece:
                raise Trouble(BUG, "the connection ended before everything had come")
            pieces.append(piece)
            wanted -= len(piece)
            self.left -= len(piece)
        return b"".join(pieces)

    def drain(self) -> None:
        """Read what is left, so that nobody up the connection fails on a closed pipe."""
        while self.left:
            piece = os.read(self._fd, min(self.left, 1 << 16))
            if not piece:
                return
            self.left -= len(piece)


def start(header: Header, archive: str) -> Dict[str, Any]:
    """Start the agent of ``archive`` and give its answer; raises Trouble, and leaves nothing behind then."""
    workspace = Workspace(header.workspace)
    supply = Supply(0, header.plan + header.files)
    fresh = not os.path.exists(workspace.marker)
    held: Optional[int] = None
    try:
        os.chdir(workspace.path)
        held = hold(workspace)
        if os.statvfs(".").f_flag & os.ST_NOEXEC:
            reason = f"no program may be started in {workspace.path}, not even `testbed`: it is mounted noexec"
            raise Trouble(PERMISSION, reason, "mount it for that, or let testbed_root name a folder elsewhere")
        plan = _read_plan(supply.read(header.plan))
        _prepare(workspace, plan, header.made)
        return _detach(plan, workspace, archive, supply, held)
    except OSError as error:
        raise _given_back(workspace, header, fresh, trouble_of(error, f"cannot set up {workspace.path}")) from error
    except Trouble as trouble:
        if held is None:
            raise  # somebody lives there
        raise _given_back(workspace, header, fresh, trouble) from trouble
    finally:
        supply.drain()


def _read_plan(raw: bytes) -> Plan:
    try:
        return from_json(raw.decode())
    except (ValueError, TypeError, KeyError) as error:  # the text holds secrets: name the kind of error only
        raise Trouble(BUG, f"the plan cannot be read ({type(error).__name__})") from None


def _prepare(workspace: Workspace, plan: Plan, made: List[str]) -> None:
    """Mark the folder as a workspace, and note what was made for it."""
    before = read_marker(workspace)["made"] if os.path.exists(workspace.marker) else []
    marker = {
        "run": plan.run,
        "node": plan.node,
        "made": list(dict.fromkeys([*before, *made])),
        "grace": plan.grace,
        "end": longest_end(plan.steps, plan.finalise_timeout, plan.grace) + plan.packing,
        "outage": plan.outage,
    }
    write_file(workspace.marker, json.dumps(marker))
    note_made(workspace, made)


def _given_back(workspace: Workspace, header: Header, fresh: bool, trouble: Trouble) -> Trouble:
    """Remove a workspace that was made in vain; what could not be removed is said too."""
    if not fresh:
        return trouble
    try:
        os.chdir("/")
        delete(workspace, header.made)
    except (Trouble, OSError) as error:
        reason = f"{trouble.reason}; and {workspace.path} could not be removed: {error}"
        return Trouble(trouble.cause, reason, trouble.advice)
    return trouble


def _detach(plan: Plan, workspace: Workspace, archive: str, supply: Supply, held: int) -> Dict[str, Any]:
    """Fork the agent, unpack the files while it looks for etcd, let it go ahead, and hear how it went.

    The agent is forked first: what unpacking needs in memory is not kept by a process that lives for hours.
    """
    go_read, go_write = os.pipe()
    told_read, told_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go_write)
        os.close(told_read)
        _become_agent(plan, workspace, archive, held, go_read, os.fdopen(told_write, "wb", 0))
    os.close(go_read)
    os.close(told_write)
    os.close(held)
    write_file_in_place(workspace.pid, f"{pid}\n")
    try:
        if supply.left:
            from testbed.agent.staging import unpack

            unpack(cast("IO[bytes]", supply), workspace.path)
        write_all(go_write, b"g")
    except BrokenPipeError:
        pass  # it has ended already, and has said why
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(go_write)
    answer = _hear(told_read, pid)
    if not answer.pop("ok"):
        os.waitpid(pid, 0)
        raise Trouble(answer["cause"], answer["reason"], answer["advice"])
    return answer


def write_file_in_place(path: str, text: str) -> None:
    """Write a file without making a new one of its name: it is locked."""
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _hear(fd: int, pid: int) -> Dict[str, Any]:
    """What the agent says of its start."""
    raw = b""
    while True:
        if not select.select([fd], [], [], ANSWER_PATIENCE)[0]:
            os.kill(pid, signal.SIGKILL)
            return Trouble(BUG, f"the agent did not say within {ANSWER_PATIENCE:g} s whether it is up").as_answer()
        piece = os.read(fd, 65536)
        if not piece:
            break
        raw += piece
    if not raw:
        return Trouble(BUG, "the agent died while it started", "see agent.log in the workspace").as_answer()
    return dict(json.loads(raw))


def _become_agent(plan: Plan, workspace: Workspace, archive: str, held: int, go: int, told: IO[bytes]) -> None:
    """In the child: leave the connection behind, be the agent, never return."""
    code = 70
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        log = os.open(workspace.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for fd, to in ((null, 0), (log, 1), (log, 2)):
            os.dup2(fd, to)
        for fd in (int(name) for name in os.listdir("/proc/self/fd")):
            if fd > 2 and fd not in (held, go, told.fileno()):
                with suppress(OSError):  # the descriptor of the listing itself
                    os.close(fd)  # an open end of the connection would keep it from closing
        from testbed.agent.node import serve

        code = serve(plan, workspace, archive, go, told)
    except Trouble as trouble:
        _tell(told, trouble)
        code = 1
    except OSError as error:
        _tell(told, trouble_of(error, "the agent could not start"))
    except BaseException as error:  # noqa: BLE001  the last line of defence: it is told, logged, and ends the process
        import traceback

        traceback.print_exc()
        _tell(told, Trouble(BUG, f"the agent failed: {type(error).__name__}: {error}"))
    finally:
        with suppress(OSError):  # the disk with the log on it is full
            sys.stderr.flush()
        os._exit(code)


def _tell(told: IO[bytes], trouble: Trouble) -> None:
    """Say what went wrong to whoever started the agent, and to the log."""
    print(f"{trouble.cause}: {trouble.reason}", file=sys.stderr)  # noqa: T201  the agent's log
    if not told.closed:
        with suppress(BrokenPipeError):
            told.write(json.dumps(trouble.as_answer()).encode())


__all__ = ["ETCD", "PATIENCE", "Header", "Supply", "start"]
