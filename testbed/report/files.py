"""Files that came from nodes, read with care, and files of the report, written whole."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
"""What a node, configuration, target or step may be called where it becomes a part of a path."""


def open_regular(path: Path) -> int:
    """A file descriptor for reading; raises OSError unless ``path`` is a regular file and no link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no regular file")
    return descriptor


def read_tail(path: Path, size: int) -> str:
    """The last ``size`` bytes of a regular file as text, whole lines where there are any; empty if there is none."""
    try:
        descriptor = open_regular(path)
    except OSError:
        return ""
    with os.fdopen(descriptor, "rb") as stream:
        length = os.fstat(descriptor).st_size
        stream.seek(max(0, length - size))
        raw = stream.read(size)
    if length > size:
        raw = raw[raw.find(b"\n") + 1 :]
    return raw.decode("utf-8", "replace")


def step_log(logs: Path, configuration: str, target: str, step: str, stream: str) -> Path | None:
    """Where a step's ``out`` or ``err`` lies below a node's ``logs``; None where the names are none."""
    if all(NAME.fullmatch(name) for name in (configuration, target, step)):
        return logs / f"{configuration}.{target}.{step}.{stream}"
    return None


def step_tail(nodes: Path, node: str, step: tuple[str, str, str], lines: int = 20, size: int = 16384) -> str:
    """The last lines of a step's log, stderr after stdout; ``step`` is configuration, target, step.

    ``nodes`` is the run's directory of nodes; ``size`` in bytes bounds what is read of each of the two files.
    """
    if not NAME.fullmatch(node):
        return ""
    found = []
    for stream in ("out", "err"):
        path = step_log(nodes / node / "logs", *step, stream)
        text = read_tail(path, size) if path else ""
        found.extend(text.splitlines()[-lines:])
    return "\n".join(found)


def write_whole(path: Path, data: bytes) -> None:
    """Put ``data`` into the file so that a reader sees the old or the new content, never a part."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        scratch.write_bytes(data)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
