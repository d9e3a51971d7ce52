"""What is written as tar.gz is what the standard library and others read."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from testbed.agent import tar
from testbed.agent.tar import TarGz

NAMES = ["a", "a b/c", "n" * 100, "n" * 101, "long/" * 60 + "end", "ä", "日本/" * 40 + "x", "bytes-\udcff", "1" * 91]


def written(name: str, content: bytes, mtime: int = 1_700_000_000) -> bytes:
    """An archive of a folder and a file in it."""
    out = io.BytesIO()
    archive = TarGz(out)
    archive.add_folder("top", mtime)
    archive.add_file("top/" + name, len(content), mtime, io.BytesIO(content))
    archive.close()
    return out.getvalue()


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 200_000])
def test_members_come_back_as_they_were(name: str, size: int) -> None:
    """Names of any length and bytes, contents of any size, times and modes are read again."""
    content = bytes(range(256)) * (size // 256) + bytes(size % 256)
    with tarfile.open(fileobj=io.BytesIO(written(name, content)), mode="r:gz") as archive:
        folder, file = archive.getmembers()
        found = archive.extractfile(file)
        assert found is not None
        assert found.read() == content
    assert (folder.name, folder.isdir(), folder.mode) == ("top", True, 0o755)
    assert (file.name, file.isreg(), file.mode, file.mtime) == ("top/" + name, True, 0o644, 1_700_000_000)


def test_the_same_members_give_the_same_bytes() -> None:
    """Nothing of when or where it was written is in it."""
    assert written("a", b"x") == written("a", b"x")


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_other_programs_read_it(tmp_path: Path, name: str) -> None:
    """The program tar unpacks it."""
    data = written(name, b"content")
    subprocess.run(["tar", "xzf", "-"], input=data, cwd=tmp_path, check=True)
    assert (tmp_path / "top" / name).read_bytes() == b"content"


def test_sizes_that_a_plain_header_cannot_tell() -> None:
    """A file of 8 GiB and more is announced with its whole size."""
    header = tar._header("big", 9 * 1024**3, 0, tar.FILE)
    stream = io.BytesIO(header)
    with tarfile.open(fileobj=stream, mode="r:") as archive:
        member = archive.next()
    assert member is not None
    assert (member.name, member.size) == ("big", 9 * 1024**3)


def test_content_that_ends_early_is_an_error() -> None:
    """No archive claims bytes that it does not hold."""
    with pytest.raises(ValueError, match="before its end"):
        TarGz(io.BytesIO()).add_file("a", 10, 0, io.BytesIO(b"short"))
