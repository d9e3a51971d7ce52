"""The files that a node was sent, unpacked into its workspace; nothing of them leads out of it."""

from __future__ import annotations

import os
import tarfile
from typing import IO

from testbed.agent.answer import BUG, Trouble
from testbed.agent.workspace import OWN


def unpack(stream: IO[bytes], folder: str) -> int:
    """Unpack a tar.gz of files, folders and links inside it below ``folder``; permissions are kept. Gives the number.

    Raises Trouble for anything that is not inside, not of these kinds, or in the agent's own folder.
    """
    count = 0
    root = os.path.realpath(folder)
    try:
        with tarfile.open(fileobj=stream, mode="r|gz") as archive:
            for member in archive:
                _unpack_member(archive, member, root)
                count += 1
    except (tarfile.TarError, EOFError) as error:
        raise Trouble(BUG, f"the staged files came damaged: {error}") from error
    return count


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, root: str) -> None:
    name = os.path.normpath(member.name)
    if os.path.isabs(name) or name.split(os.sep)[0] in (os.pardir, OWN):
        raise _refused(member, "leads out of the workspace")
    target = os.path.join(root, name)
    parent = os.path.dirname(target) if name != os.curdir else root
    if os.path.realpath(parent) != parent:  # a link unpacked before stands in the way
        raise _refused(member, "leads through a link")
    os.makedirs(parent, exist_ok=True)
    mode = member.mode & 0o777 | 0o600
    if member.isdir():
        os.makedirs(target, exist_ok=True)
        os.chmod(target, mode | 0o700, follow_symlinks=True)
    elif member.issym():
        if not _inside(os.path.normpath(os.path.join(os.path.dirname(name), member.linkname))):
            raise _refused(member, f"is a link to {member.linkname!r}, which is not among the files")
        _make_way(target)
        os.symlink(member.linkname, target)
        if os.path.commonpath((root, os.path.realpath(target))) != root:  # by way of another link
            os.unlink(target)
            raise _refused(member, "is a link that leads out of the workspace")
    elif member.isreg():
        _make_way(target)
        _copy(archive, member, target, mode)
    else:
        raise _refused(member, "is neither file, folder nor link")


def _inside(path: str) -> bool:
    return not os.path.isabs(path) and path.split(os.sep)[0] not in (os.pardir, OWN)


def _make_way(target: str) -> None:
    if os.path.lexists(target) and (os.path.islink(target) or not os.path.isdir(target)):
        os.unlink(target)


def _copy(archive: tarfile.TarFile, member: tarfile.TarInfo, target: str, mode: int) -> None:
    source = archive.extractfile(member)
    assert source is not None  # noqa: S101  a regular file has content
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
    with os.fdopen(fd, "wb") as out:
        while True:
            piece = source.read(1 << 18)
            if not piece:
                break
            out.write(piece)
        os.fchmod(out.fileno(), mode)
    os.utime(target, (member.mtime, member.mtime))


def _refused(member: tarfile.TarInfo, why: str) -> Trouble:
    return Trouble(BUG, f"among the staged files, {member.name[:200]!r} {why}")
