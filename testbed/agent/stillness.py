"""Whether a node could go on if nobody else did anything: what its processes sleep for, as far as the system tells.

A process is still when each of its threads waits in `testbed`, for a child, or for a pipe. Whatever else it does, or if
that cannot be told, it is taken to be able to go on. Services answer others, and are passed over.
"""

from __future__ import annotations

import hashlib
import os
from typing import Collection, Dict, List, Mapping, Tuple

from testbed.agent import process

_SLEEPS = ("do_wait", "pipe_read", "anon_pipe_read", "pipe_wait")
"""Where the kernel lets a process sleep until a child ends, or a pipe is written to."""

_SHELLS = (b"sh", b"dash", b"ash", b"bash", b"ksh", b"mksh")
"""Who waits for children by sleeping until any signal comes; a signal of a timer's is not among what shells do."""

_OF_SERVICE = b"TESTBED_TARGET=service"


def look(
    waiting: Mapping[int, int], steps: Collection[int], services: Collection[int], marks: Collection[bytes]
) -> Tuple[Dict[int, str], str]:
    """The processes that are not still, number to command line, and a mark that is another once any of them has run.

    ``waiting`` says how many waits each process has open; ``steps`` and ``services`` are the sessions of their main
    processes, ``marks`` what the environment of each of the node's processes holds.
    """
    able: Dict[int, str] = {}
    ran = hashlib.sha256()
    for found in sorted(process.find(steps, marks), key=lambda p: p.pid):
        pid = str(found.pid)
        if process.session_of(pid) in services or process.has_marks(pid, (*marks, _OF_SERVICE)):
            continue
        threads = _threads(pid)
        ran.update(repr((pid, [runs for _, runs in threads])).encode())
        comm = process.read(pid, "comm").strip()
        if sum(not _sleeps(place, comm) for place, _ in threads) > waiting.get(found.pid, 0):
            able[found.pid] = found.command
    return able, ran.hexdigest()


def _sleeps(place: str, comm: bytes) -> bool:
    name = place.partition(".")[0]
    return name in _SLEEPS or (name == "sigsuspend" and comm in _SHELLS)


def _threads(pid: str) -> List[Tuple[str, str]]:
    """Of each thread, where it sleeps, and how often it has run."""
    try:
        names = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return [("gone", "")]
    found = []
    for name in names:
        status = process.read(pid, f"task/{name}/status").decode("ascii", "replace")
        runs = [line.partition(":")[2].strip() for line in status.split("\n") if "_ctxt_switches" in line]
        found.append((process.read(pid, f"task/{name}/wchan").decode("ascii", "replace"), " ".join([name, *runs])))
    return found
