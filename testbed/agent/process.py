"""Processes of steps: started in sessions of their own, found again with all they left behind, and stopped."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Callable, Collection, Dict, List, Mapping, Optional, Sequence, Tuple

KILL_PATIENCE = 5.0
"""Seconds that killed processes get to vanish; one that hangs in the kernel takes longer and is left to it."""

_PIECE = 65536
_DEAD = -1
_PIDFD_OPEN = 434  # the system call's number, the same on all of Linux; Python knows it from 3.9 on


@dataclass(frozen=True)
class Process:
    """A living process and the command line it shows."""

    pid: int
    command: str


def launch(
    argv: Sequence[str], cwd: str, env: Mapping[str, str], out: str, err: str, ended: Callable[[int, int], None]
) -> subprocess.Popen[bytes]:
    """Start a step's main process as leader of a new session, its output appended to the files ``out`` and ``err``.

    ``ended`` is called once on another thread with its number and exit code (negative: the signal that killed it).
    The process stays unreaped until its ``poll`` is called, so that its number, its session's too, is nobody else's.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    out_fd = os.open(out, flags, 0o600)
    try:
        err_fd = os.open(err, flags, 0o600)
        try:
            main = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=out_fd, stderr=err_fd, cwd=cwd, env=env, start_new_session=True
            )
        finally:
            os.close(err_fd)
    finally:
        os.close(out_fd)
    threading.Thread(target=lambda: ended(main.pid, _await_end(main.pid)), name=f"step-{main.pid}", daemon=True).start()
    return main


def _await_end(pid: int) -> int:
    """Block until the child has ended, leave it to be reaped, and give its exit code."""
    told = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert told is not None  # noqa: S101  None comes with WNOHANG only
    return told.si_status if told.si_code == os.CLD_EXITED else -told.si_status


def find(sessions: Collection[int], marks: Collection[bytes] = (), since: int = 0) -> List[Process]:
    """The living processes in one of the ``sessions``, or with all ``marks`` (``NAME=value``) in their environment.

    The asking process's own session is passed over, and where only marks tell, what was `born` before ``since``.
    """
    own = os.getsid(0)
    found = []
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        session, birth = _stat(name)
        if session in (_DEAD, own):
            continue
        if session in sessions or (marks and birth >= since and has_marks(name, marks)):
            found.append(Process(int(name), _command(name)))
    return found


def find_below(leader: int) -> List[Process]:
    """The leader of a session, and all below it that live in its session; quick however many processes there are.

    Those whose parents have ended are not among them, and none but the leader where the kernel names no children.
    """
    found, todo = [], [str(leader)]
    while todo:
        name = todo.pop()
        if session_of(name) == leader:
            found.append(Process(int(name), _command(name)))
        for thread in _threads(name):
            todo += read(name, f"task/{thread}/children").decode().split()
    return found


def _threads(pid: str) -> List[str]:
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def lives(pid: int) -> bool:
    """Whether there is such a process that has not ended."""
    return session_of(str(pid)) is not None


def session_of(pid: str) -> Optional[int]:
    """The session of a process; None if it is dead."""
    session = _stat(pid)[0]
    return None if session == _DEAD else session


def born(pid: int) -> int:
    """When a living process was started, in ticks of the system's clock; 0 if it is dead."""
    return _stat(str(pid))[1]


def _stat(pid: str) -> Tuple[int, int]:
    """Session and birth of a process; `_DEAD` and 0 if it is dead."""
    fields = read(pid, "stat").rpartition(b")")[2].split()
    if len(fields) < 20 or fields[0] in (b"Z", b"X"):
        return _DEAD, 0
    return int(fields[3]), int(fields[19])


def has_marks(pid: str, marks: Collection[bytes]) -> bool:
    """Whether the environment that a process was started with holds all ``marks``."""
    environment = read(pid, "environ")
    return bool(environment) and set(marks) <= set(environment.split(b"\0"))


def _command(pid: str) -> str:
    """The command line as harmless text of at most 200 characters; its name where it shows none."""
    raw = read(pid, "cmdline").rstrip(b"\0") or b"[" + read(pid, "comm").strip() + b"]"
    text = raw[:800].replace(b"\0", b" ").decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "?" for c in text)[:200]


def read(pid: str, name: str) -> bytes:
    """A file of ``/proc``; empty where the process is gone or another user's."""
    try:
        fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY)  # a file object would cost twice as much, for each process
    except OSError:
        return b""
    try:
        pieces = [os.read(fd, _PIECE)]
        while pieces[-1]:
            pieces.append(os.read(fd, _PIECE))
    except OSError:
        return b""
    finally:
        os.close(fd)
    return b"".join(pieces)


def stop_session(leader: int, grace: float) -> List[Dict[str, Any]]:
    """`stop` a main process and its session: at once what is below it, then what else there is."""
    first = [find_below(leader)]
    return stop(lambda: (first.pop() if first else []) or find((leader,)), grace)


def stop(look: Callable[[], List[Process]], grace: float) -> List[Dict[str, Any]]:
    """Stop all that ``look`` finds: TERM, up to ``grace`` seconds, then KILL; what they start meanwhile included.

    Gives ``{pid, command, signal}`` for each, ``signal`` being the last one sent.
    """
    stopped: Dict[int, Dict[str, Any]] = {}
    for sent, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, KILL_PATIENCE)):
        until = time.monotonic() + patience
        told: set[int] = set()
        while True:
            living = look()
            for process in living:
                if process.pid not in told:
                    told.add(process.pid)
                    _send(process.pid, sent)
                    stopped[process.pid] = {"pid": process.pid, "command": process.command, "signal": sent.name}
            if not living:
                return list(stopped.values())
            if not _wait_gone(living, until - time.monotonic()):
                break
    return list(stopped.values())


def _send(pid: int, sent: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.kill(pid, sent)
        if sent != signal.SIGKILL:
            os.kill(pid, signal.SIGCONT)  # a stopped process does not see it before it goes on


def _wait_gone(processes: Collection[Process], seconds: float) -> bool:
    """Block until all processes have ended; False if one has not after so many seconds."""
    until = time.monotonic() + seconds
    poll = select.poll()
    watched = set()
    try:
        for process in processes:
            try:
                fd = _pidfd(process.pid)
            except ProcessLookupError:
                continue
            except OSError:  # a kernel that cannot tell: give them all the time there is
                select.select([], [], [], max(0.0, seconds))
                return False
            watched.add(fd)
            poll.register(fd, select.POLLIN)
        left = set(watched)
        while left:
            ready = poll.poll(max(0, int((until - time.monotonic()) * 1000)))
            if not ready:
                return False
            for fd, _ in ready:
                poll.unregister(fd)
                left.discard(fd)
        return True
    finally:
        for fd in watched:
            os.close(fd)


def _pidfd(pid: int) -> int:
    """A descriptor that can be read when the process has ended; raises OSError."""
    if hasattr(os, "pidfd_open"):
        return os.pidfd_open(pid)
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(libc.syscall(_PIDFD_OPEN, pid, 0))
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return fd
