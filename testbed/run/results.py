"""A node's archive becomes files in the run directory; what a node sends is hostile until checked."""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from pathlib import Path, PurePosixPath
from typing import Self

from testbed.errors import LabError

MAX_MEMBERS = 100_000
"""Entries that an archive may have."""

MAX_BYTES = 64 * 1024**3
"""Bytes that an archive may unpack to."""

MAX_TRAILER = 16 * 1024**2
"""Bytes that may follow the last entry; tar fills up to 10 KiB."""

MAX_HEADER = 1024**2
"""Bytes that a header may have which tells more of the entry after it (a long name, say); it is held in memory."""

_TOP = frozenset({"logs", "reports", "events.jsonl", "agent.log", "notes.json"})
"""What an agent packs; anything else is not its work."""


class _Member(tarfile.TarInfo):
    """An entry whose header may not make the reader hold whatever a node likes."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """See `tarfile.TarInfo.frombuf`; raises `tarfile.ReadError` for a header that is too large."""
        found = super().frombuf(buf, encoding, errors)
        if not found.isreg() and found.size > MAX_HEADER:
            raise tarfile.ReadError(f"a header of {found.size} bytes")
        return found


def unpack_results(archive: Path, folder: Path) -> int:
    """Unpack ``archive`` into ``folder``, remove the archive, and return how many files came.

    Only regular files and folders below the names that an agent packs are taken; nothing leads out of ``folder``,
    nothing is executable or writable for others, and the bounds above hold. Raises `LabError` for an archive that
    breaks a rule; the archive is kept then, what was good of it is unpacked.
    """
    count = total = 0
    refused: list[str] = []
    try:
        with gzip.open(archive) as whole, tarfile.open(fileobj=whole, mode="r|", tarinfo=_Member) as packed:
            for member in packed:
                count += 1
                total += member.size
                if count > MAX_MEMBERS or total > MAX_BYTES:
                    raise LabError(f"the archive {archive} is larger than {MAX_MEMBERS} files or {MAX_BYTES} bytes")
                path = PurePosixPath(member.name)
                if not _is_ours(path) or not (member.isreg() or member.isdir()):
                    refused.append(member.name)
                    continue
                _unpack_member(packed, member, folder / path)
            _read_out(whole)
    except (tarfile.TarError, zlib.error, OSError, EOFError, ValueError, OverflowError, RecursionError) as error:
        # `tarfile` lets headers before headers recurse, and a time may be more than any clock can show.
        raise LabError(f"the archive {archive} cannot be unpacked: {error}") from error
    if refused:
        names = ", ".join(ascii(name) for name in refused[:5])
        raise LabError(f"the archive {archive} holds {len(refused)} entries that no agent packs: {names}")
    archive.unlink()
    return count


def _read_out(whole: gzip.GzipFile) -> None:
    """Read what follows the last member: only at its end does gzip tell that all of it came undamaged."""
    left = MAX_TRAILER
    while piece := whole.read(1 << 20):
        left -= len(piece)
        if left < 0:
            raise tarfile.ReadError(f"more than {MAX_TRAILER} bytes follow the last entry")


def _is_ours(path: PurePosixPath) -> bool:
    """Whether the member lies where an agent packs and leads nowhere else."""
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts and path.parts[0] in _TOP


def _unpack_member(packed: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    """One file or folder, in pieces, with plain permissions and its time."""
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source = packed.extractfile(member)
    if source is None:
        return
    if target.is_symlink():
        target.unlink()
    with source, target.open("wb") as out:
        while piece := source.read(1 << 20):
            out.write(piece)
    os.utime(target, (member.mtime, member.mtime))
