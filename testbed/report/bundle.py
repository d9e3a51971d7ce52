"""All results of a run in one archive."""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

from testbed.report.files import open_regular

CONTENTS = ("spec.yml", "plan.json", "playbooks", "events.jsonl", "report.json", "junit.xml", "nodes")
"""What goes into the archive, in this order; nothing private ever does."""


def write(path: Path, directory: Path, name: str) -> None:
    """Write the results in the run directory as ``path`` (tar.gz), all below a folder ``name``.

    The same files give the same bytes. Links and special files are left out. Raises OSError.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with (
            scratch.open("wb") as raw,
            gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for file in _files(directory):
                _add(archive, file, f"{name}/{file.relative_to(directory)}")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _files(directory: Path) -> Iterator[Path]:
    for content in CONTENTS:
        top = directory / content
        if top.is_symlink():
            continue
        if top.is_file():
            yield top
        for folder, folders, names in os.walk(top):
            folders.sort()
            for name in sorted(names):
                file = Path(folder) / name
                if stat.S_ISREG(file.lstat().st_mode):
                    yield file


def _add(archive: tarfile.TarFile, file: Path, name: str) -> None:
    descriptor = open_regular(file)
    with os.fdopen(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        entry = tarfile.TarInfo(name)
        entry.size, entry.mtime = found.st_size, int(found.st_mtime)
        entry.mode = 0o755 if found.st_mode & 0o100 else 0o644
        archive.addfile(entry, stream)
