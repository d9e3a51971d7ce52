"""A node's folder on its machine: where things are in it, who holds it, and its removal."""

from __future__ import annotations

import fcntl
import json
import os
import signal
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional, Set

from testbed.agent.answer import BUSY, PERMISSION, Trouble, trouble_of

OWN = ".testbed"
"""The folder inside a workspace that is the agent's; everything beside it is the users'."""

_MADE = ".made"
"""The note in a run's folder of those above it that were made for it; no node is called so."""


@dataclass(frozen=True)
class Workspace:
    """Where everything of a node is; ``path`` is absolute."""

    path: str

    def own(self, *names: str) -> str:
        """A path inside the agent's own folder."""
        return os.path.join(self.path, OWN, *names)

    @property
    def marker(self) -> str:
        """Says that this is a workspace, of which node, and what it may be asked: JSON."""
        return self.own("workspace.json")

    @property
    def pid(self) -> str:
        """The agent's process id; locked for as long as the agent lives."""
        return self.own("agent.pid")

    @property
    def log(self) -> str:
        """What the agent says of itself."""
        return self.own("agent.log")

    @property
    def journal(self) -> str:
        """Every event of the node, one line each."""
        return self.own("events.jsonl")

    @property
    def logs(self) -> str:
        """The folder of the steps' output."""
        return self.own("logs")

    @property
    def reports(self) -> str:
        """The folder that commands know as ``$TESTBED_REPORTS``."""
        return self.own("reports")

    @property
    def topology(self) -> str:
        """The run's nodes as JSON, for commands."""
        return self.own("topology.json")

    @property
    def results(self) -> str:
        """Logs, reports and events, packed."""
        return self.own("results.tar.gz")

    @property
    def summary(self) -> str:
        """Size and checksum of the results; there only when they are whole."""
        return self.own("results.json")


def of_archive(archive: str) -> Workspace:
    """The workspace in which the agent's ``archive`` lies; raises Trouble where it lies elsewhere."""
    own = os.path.dirname(os.path.abspath(archive))
    workspace = Workspace(os.path.dirname(own))
    if os.path.basename(own) != OWN or not os.path.isfile(workspace.marker):
        raise Trouble(PERMISSION, f"{workspace.path} is no workspace of testbed (no {workspace.marker})")
    return workspace


def read_marker(workspace: Workspace) -> Dict[str, Any]:
    """What the marker says; raises Trouble where it cannot be read."""
    try:
        with open(workspace.marker, encoding="utf-8") as file:
            return dict(json.load(file))
    except OSError as error:
        raise trouble_of(error, f"cannot read {workspace.marker}") from error
    except (ValueError, TypeError) as error:
        raise Trouble(PERMISSION, f"{workspace.marker} is damaged: {error}") from error


def read_packed(workspace: Workspace) -> Optional[Dict[str, Any]]:
    """The summary of results that were packed whole, None where they were not."""
    try:
        with open(workspace.summary, encoding="utf-8") as file:
            return dict(json.load(file))
    except (FileNotFoundError, ValueError):
        return None


def write_file(path: str, text: str, mode: int = 0o600) -> None:
    """Write a file whole or not at all."""
    partial = f"{path}.{os.getpid()}"
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as out:
            out.write(text)
        os.replace(partial, path)
    except OSError:
        with suppress(FileNotFoundError):
            os.unlink(partial)
        raise


def hold(workspace: Workspace) -> int:
    """Take the workspace for an agent and give the descriptor that holds it; raises Trouble where one lives there.

    The hold is a lock, which the kernel drops with the last process that has the descriptor, however it dies.
    """
    fd = os.open(workspace.pid, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        found = read_pid(workspace)
        advice = "wait for the run it belongs to, or end it with `testbed abort` or `testbed clean`"
        raise Trouble(BUSY, f"an agent (process {found}) lives in {workspace.path}", advice) from None
    return fd


def read_pid(workspace: Workspace) -> Optional[int]:
    """The process id that the last agent wrote; alive only if the workspace is held."""
    try:
        with open(workspace.pid, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def is_held(workspace: Workspace) -> bool:
    """Whether an agent lives in the workspace."""
    return not wait_free(workspace, 0)


def wait_free(workspace: Workspace, seconds: float) -> bool:
    """Wait until no agent lives in the workspace; False if one still does after so many seconds.

    Blocks in the lock, with an alarm for the limit: for the main thread of a command that has no other alarm.
    """
    try:
        fd = os.open(workspace.pid, os.O_RDWR)
    except FileNotFoundError:
        return True
    try:
        with _alarm(seconds):
            fcntl.flock(fd, fcntl.LOCK_EX if seconds > 0 else fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except (BlockingIOError, _Alarm):
        return False
    finally:
        os.close(fd)


class _Alarm(Exception):
    pass


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(*_: object) -> None:
        raise _Alarm

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def delete(workspace: Workspace, made: List[str]) -> None:
    """Delete all of the workspace and the empty folders among those ``made`` for it; raises Trouble.

    The folders above it that bear the run's and our own name are ours whoever made them, and so are those that
    `note_made` was told of: of several nodes on a machine it need not be the first to come that is the last to leave.
    What is mounted below it is not ours and is not touched: then nothing is deleted.
    """
    import shutil

    inside = _mounts_below(os.path.realpath(workspace.path))
    if inside:
        raise Trouble(PERMISSION, f"{inside[0]} is mounted inside the workspace", f"umount {inside[0]}, then try again")
    failed: List[OSError] = []

    def note(_function: Any, _path: str, info: Any) -> None:
        if not isinstance(info[1], FileNotFoundError):
            failed.append(info[1])

    def retry(_function: Any, path: str, _info: Any) -> None:
        try:  # a folder without write permission keeps what is in it
            os.chmod(os.path.dirname(path), 0o700)
            if os.path.isdir(path) and not os.path.islink(path):
                _open_up(path)
                shutil.rmtree(path, onerror=note)
            else:
                os.unlink(path)
        except FileNotFoundError:
            return
        except OSError as error:
            failed.append(error)

    for name in sorted(os.listdir(workspace.path), key=lambda n: n == OWN):  # the marker goes last
        path = os.path.join(workspace.path, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, onerror=retry)
        else:
            os.unlink(path)
        if failed:
            raise trouble_of(failed[0], f"cannot delete all of {workspace.path}")
    run = os.path.dirname(workspace.path)
    root = os.path.dirname(run)
    ours = [root, run] if os.path.basename(root) == OWN else [run]
    _remove_empty({*made, *ours})
    _remove_empty({*ours, *_noted(run)})


def _open_up(folder: str) -> None:
    """Let the owner into the folder and all below it."""
    os.chmod(folder, 0o700)
    for above, folders, _ in os.walk(folder):  # goes into a folder only after it was let in
        for name in folders:
            path = os.path.join(above, name)
            if not os.path.islink(path):
                os.chmod(path, 0o700)


def note_made(workspace: Workspace, made: List[str]) -> None:
    """Note for whoever of the run is the last to leave this machine which of ``made`` lie above the run's folder."""
    run = os.path.dirname(workspace.path)
    above = [folder for folder in made if run.startswith(folder + os.sep)]
    if above:
        write_file(os.path.join(run, _MADE), json.dumps(above))


def _noted(run: str) -> List[str]:
    """What was noted, once nothing else is left in the run's folder; the note is gone then."""
    note = os.path.join(run, _MADE)
    with suppress(OSError, ValueError, TypeError):  # nothing was; or another node is the last, at this moment
        if os.listdir(run) == [_MADE]:
            with open(note, encoding="utf-8") as file:
                above = [str(folder) for folder in json.load(file)]
            os.unlink(note)
            return [folder for folder in above if run.startswith(folder + os.sep)]
    return []


def _remove_empty(folders: Set[str]) -> None:
    for folder in sorted(folders, key=len, reverse=True):
        with suppress(OSError):  # other nodes of the machine may live beside this one
            os.rmdir(folder)


def _mounts_below(path: str) -> List[str]:
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            points = [line.split()[4].replace("\\040", " ") for line in file]
    except OSError:
        return []  # no Linux: no such list
    return [p for p in points if p.startswith(path + "/")]
