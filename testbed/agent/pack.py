"""A node's results as one archive: logs, reports, events, the agent's own log, and what had to be left out."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import stat
from contextlib import suppress
from typing import Any, BinaryIO, Dict, Iterator, List, Tuple

from testbed.agent.tar import TarGz
from testbed.agent.workspace import Workspace, write_file

LIMIT = 16 * 1024**3
"""Bytes of files that an archive takes; what comes after them is left out, and said to be."""


def pack(workspace: Workspace) -> Dict[str, Any]:
    """Write the results into the workspace and give their summary: size (bytes), sha256, left_out (texts).

    Raises OSError; then nothing is left of the attempt.
    """
    partial = workspace.results + ".partial"
    try:
        with open(partial, "wb", opener=lambda p, f: os.open(p, f, 0o600)) as out:
            left_out = write_archive(workspace, out)
        digest, size = hashlib.sha256(), 0
        with open(partial, "rb") as file:
            for piece in iter(lambda: file.read(1 << 20), b""):
                digest.update(piece)
                size += len(piece)
        os.replace(partial, workspace.results)
        summary = {"size": size, "sha256": digest.hexdigest(), "left_out": left_out}
        write_file(workspace.summary, json.dumps(summary))
    except OSError:
        with suppress(FileNotFoundError):
            os.unlink(partial)
        raise
    return summary


def pack_in_memory(workspace: Workspace) -> Tuple[Dict[str, Any], bytes]:
    """Summary and bytes of the results, for a machine whose disk takes nothing more; the same at every call."""
    out = io.BytesIO()
    left_out = write_archive(workspace, out)
    data = out.getvalue()
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "left_out": left_out}, data


def is_full(error: OSError) -> bool:
    """Whether the disk takes nothing more."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def write_archive(workspace: Workspace, out: BinaryIO) -> List[str]:
    """Write the tar.gz to ``out``, the same files to the same bytes; gives what was left out, each with its reason."""
    left_out: List[str] = []
    total = 0
    archive = TarGz(out)
    for name, path in _entries(workspace, left_out):
        try:
            total += _add(archive, name, path, workspace, LIMIT - total)
        except _LeftOut as reason:
            left_out.append(f"{name}: {reason}")
    if left_out:
        notes = json.dumps({"left_out": left_out}, indent=1).encode()
        archive.add_file("notes.json", len(notes), 0, io.BytesIO(notes))
    archive.close()
    return left_out


class _LeftOut(Exception):
    pass


def _entries(workspace: Workspace, left_out: List[str]) -> Iterator[Tuple[str, str]]:
    """Name in the archive and path of everything to be packed, folders before what is in them."""
    for name in ("events.jsonl", "agent.log"):
        if os.path.exists(workspace.own(name)):
            yield name, workspace.own(name)
    for top in ("logs", "reports"):
        root = workspace.own(top)

        def note(error: OSError, root: str = root, top: str = top) -> None:
            name = os.path.relpath(os.fsdecode(error.filename or root), root)
            left_out.append(f"{os.path.normpath(os.path.join(top, name))}: {error.strerror}")

        for folder, folders, files in os.walk(root, onerror=note):
            folders.sort()
            inside = os.path.normpath(os.path.join(top, os.path.relpath(folder, root)))
            yield inside, folder
            links = [f for f in folders if os.path.islink(os.path.join(folder, f))]
            for name in sorted(files + links):
                yield os.path.join(inside, name), os.path.join(folder, name)


def _add(archive: TarGz, name: str, path: str, workspace: Workspace, room: int) -> int:
    """Add a file or folder, a link as the file it leads to; gives its bytes. Raises _LeftOut with the reason."""
    real = path
    if os.path.islink(path):
        real = os.path.realpath(path)
        if os.path.commonpath((real, os.path.realpath(workspace.path))) != os.path.realpath(workspace.path):
            raise _LeftOut(f"a link to {os.readlink(path)!r}, outside of the workspace")
    try:
        # a pipe put here would block without O_NONBLOCK
        fd = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise _LeftOut(str(error.strerror)) from error
    try:
        found = os.fstat(fd)
        if stat.S_ISDIR(found.st_mode):
            if real != path:
                raise _LeftOut("a link to a folder")
            archive.add_folder(name, int(found.st_mtime))
            return 0
        if not stat.S_ISREG(found.st_mode):
            raise _LeftOut("neither file nor folder")
        if found.st_size > room:
            raise _LeftOut(f"{found.st_size} bytes are beyond the archive's limit of {LIMIT}")
        content = _Exactly(fd, found.st_size)
        archive.add_file(name, found.st_size, int(found.st_mtime), content)
    finally:
        os.close(fd)
    if content.missing:
        raise _LeftOut(f"the last {content.missing} of {found.st_size} bytes could not be read; NULs stand for them")
    return found.st_size


class _Exactly(io.RawIOBase):
    """Exactly ``size`` bytes of ``fd``, whatever happens to the file meanwhile: cut, or filled up with NULs."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd, self._left = fd, size
        self.missing = 0

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        piece = b""
        while len(piece) < wanted and not self.missing:
            try:
                more = os.read(self._fd, wanted - len(piece))
            except OSError:
                more = b""
            if not more:
                break
            piece += more
        self.missing += wanted - len(piece)
        self._left -= wanted
        return piece + bytes(wanted - len(piece))
