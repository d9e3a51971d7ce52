"""How a command of the agent answers over a connection: one marked line of JSON, and failures in plain words."""

from __future__ import annotations

import errno
import json
import os
from typing import Any, Dict

MARK = "TESTBED: "
"""What the answer's line begins with; all else on stdout is noise."""

ETCD, DISK_FULL, READ_ONLY, PERMISSION, BUSY, BUG = "etcd", "disk_full", "read_only", "permission", "busy", "bug"
"""Why a command could not do its work (beside ``no_python``, which is found out earlier)."""

_CAUSES = {errno.ENOSPC: DISK_FULL, errno.EDQUOT: DISK_FULL, errno.EROFS: READ_ONLY}
_ADVICE = {
    DISK_FULL: "make room on that file system",
    READ_ONLY: "mount that file system for writing, or let testbed_root name a folder on another one",
    PERMISSION: "let the login user write there, or let testbed_root name a folder of its own",
}


class Trouble(Exception):
    """A command could not do its work: by which cause, why, and what a person can do."""

    def __init__(self, cause: str, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.cause, self.reason, self.advice = cause, reason, advice

    def as_answer(self) -> Dict[str, Any]:
        """The answer that tells it."""
        return {"ok": False, "cause": self.cause, "reason": self.reason, "advice": self.advice}


def trouble_of(error: OSError, doing: str) -> Trouble:
    """What an error of the operating system means while ``doing`` (``cannot write X``)."""
    cause = _CAUSES.get(error.errno or 0, PERMISSION)
    place = f" ({os.fsdecode(error.filename)})" if error.filename and str(error.filename) not in doing else ""
    return Trouble(cause, f"{doing}{place}: {error.strerror or error}", _ADVICE[cause])


def say(answer: Dict[str, Any]) -> None:
    """Print the answer; a banner or prompt before it keeps its own line."""
    write_all(1, f"\n{MARK}{json.dumps(answer)}\n".encode())


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``; a write to a pipe may take only a part."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
