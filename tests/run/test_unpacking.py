"""A node's archive is hostile until checked: nothing of it leaves its folder, and it has bounds."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from testbed.errors import LabError
from testbed.run import results
from testbed.run.results import unpack_results


def pack(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    """A tar.gz of these."""
    with tarfile.open(path, "w:gz") as packed:
        for member, data in members:
            member.size = len(data) if member.isreg() else member.size
            packed.addfile(member, io.BytesIO(data) if member.isreg() else None)
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    """A member."""
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.mode, made.mtime = kind, link, mode, 1_000_000_000
    return made


def tree(folder: Path) -> set[str]:
    """All that is below."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}


def test_good_archive(tmp_path: Path) -> None:
    """Logs, reports and events come home with plain permissions and their time; the archive goes."""
    archive = pack(
        tmp_path / "a.tar.gz",
        (member("logs", tarfile.DIRTYPE, mode=0o777), b""),
        (member("logs/c.test.main.out", mode=0o6777), b"hello\n"),
        (member("reports/deep/na me\n"), b"x"),
        (member("events.jsonl"), b""),
    )
    home = tmp_path / "n"
    assert unpack_results(archive, home) == 4
    assert not archive.exists()
    log = home / "logs" / "c.test.main.out"
    assert log.read_bytes() == b"hello\n"
    assert log.stat().st_mode & 0o7022 == 0
    assert log.stat().st_mtime == 1_000_000_000
    assert (home / "reports" / "deep" / "na me\n").exists()


@pytest.mark.parametrize(
    "bad",
    [
        member("/etc/evil"),
        member("../evil"),
        member("logs/../../evil"),
        member("evil"),
        member("results.tar.gz"),
        member("logs/link", tarfile.SYMTYPE, "/etc/passwd"),
        member("logs/link", tarfile.SYMTYPE, "../../.."),
        member("logs/hard", tarfile.LNKTYPE, "/etc/passwd"),
        member("logs/device", tarfile.CHRTYPE),
        member("logs/block", tarfile.BLKTYPE),
        member("logs/pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda m: f"{m.name}-{m.type.decode()}",
)
def test_bad_member(bad: tarfile.TarInfo, tmp_path: Path) -> None:
    """A member that leads out, or is neither file nor folder, is refused by name; the good ones come home."""
    archive = pack(tmp_path / "a.tar.gz", (member("logs/good"), b"1"), (bad, b"evil"), (member("reports/too"), b"2"))
    before = tree(tmp_path) | {"n"}
    with pytest.raises(LabError, match="no agent packs") as caught:
        unpack_results(archive, tmp_path / "n")
    assert bad.name in caught.value.message
    assert archive.exists()
    assert tree(tmp_path) - before == {"n/logs", "n/logs/good", "n/reports", "n/reports/too"}


def test_link_first_then_through_it(tmp_path: Path) -> None:
    """A link that later members lead through does not carry them out."""
    (tmp_path / "outside").mkdir()
    archive = pack(
        tmp_path / "a.tar.gz",
        (member("logs", tarfile.SYMTYPE, str(tmp_path / "outside")), b""),
        (member("logs/evil"), b"evil"),
    )
    with pytest.raises(LabError):
        unpack_results(archive, tmp_path / "n")
    assert tree(tmp_path / "outside") == set()


def test_link_that_stood_there_before(tmp_path: Path) -> None:
    """A link in the folder at home, however it came there, is not written through."""
    (tmp_path / "outside").write_text("mine")
    (tmp_path / "n" / "logs").mkdir(parents=True)
    (tmp_path / "n" / "logs" / "x").symlink_to(tmp_path / "outside")
    archive = pack(tmp_path / "a.tar.gz", (member("logs/x"), b"evil"))
    unpack_results(archive, tmp_path / "n")
    assert (tmp_path / "outside").read_text() == "mine"
    assert (tmp_path / "n" / "logs" / "x").read_bytes() == b"evil"


@pytest.mark.parametrize("name", ["logs/a", "logs"])
def test_file_and_folder_of_one_name(name: str, tmp_path: Path) -> None:
    """A name that is a file and a folder is an archive that cannot be unpacked, told in words."""
    archive = pack(tmp_path / "a.tar.gz", (member(name), b"file"), (member(f"{name}/below"), b"folder"))
    with pytest.raises(LabError, match="cannot be unpacked"):
        unpack_results(archive, tmp_path / "n")


@pytest.mark.parametrize("cut", [0, 1, 10, 200, -20])
def test_truncated(cut: int, tmp_path: Path) -> None:
    """An archive that ends too early is told as one that cannot be unpacked."""
    archive = pack(tmp_path / "a.tar.gz", (member("logs/x"), os.urandom(5000)))
    archive.write_bytes(archive.read_bytes()[:cut])
    with pytest.raises(LabError, match="cannot be unpacked"):
        unpack_results(archive, tmp_path / "n")


@pytest.mark.parametrize(
    "raw", [b"no gzip at all", gzip.compress(b"no tar at all" * 100), b"\x1f\x8b\x08" + b"\0" * 50]
)
def test_other_formats(raw: bytes, tmp_path: Path) -> None:
    """What is no tar.gz is told as an archive that cannot be unpacked."""
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(raw)
    with pytest.raises(LabError, match="cannot be unpacked"):
        unpack_results(archive, tmp_path / "n")


def test_checksum_of_the_packing(tmp_path: Path) -> None:
    """A flipped byte in the packed data is found."""
    archive = pack(tmp_path / "a.tar.gz", (member("logs/x"), os.urandom(5000)))
    raw = bytearray(archive.read_bytes())
    raw[2000] ^= 0xFF
    archive.write_bytes(raw)
    with pytest.raises(LabError, match="cannot be unpacked"):
        unpack_results(archive, tmp_path / "n")


def test_size_bound(tmp_path: Path) -> None:
    """A member that claims more bytes than an archive may unpack to is refused before any is written."""
    bomb = member("logs/bomb")
    bomb.size = results.MAX_BYTES + 1
    raw = bomb.tobuf() + b"\0" * 1024
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(raw))
    with pytest.raises(LabError, match="larger than"):
        unpack_results(archive, tmp_path / "n")
    assert not (tmp_path / "n" / "logs" / "bomb").exists()


def test_count_bound(tmp_path: Path) -> None:
    """More members than an archive may have are refused."""
    entry = member("logs/x", tarfile.FIFOTYPE).tobuf()  # passed over without work for the file system
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(entry * (results.MAX_MEMBERS + 1), compresslevel=1))
    with pytest.raises(LabError, match="larger than"):
        unpack_results(archive, tmp_path / "n")


@pytest.mark.parametrize("moment", ["1e300", "inf", "-1e30", "nan"])
def test_impossible_time(moment: str, tmp_path: Path) -> None:
    """A time that no clock can show makes an archive that cannot be unpacked, told in words."""
    odd = member("logs/x")
    odd.pax_headers = {"mtime": moment}
    archive = pack(tmp_path / "a.tar.gz", (odd, b"x"))
    with pytest.raises(LabError, match="cannot be unpacked"):
        unpack_results(archive, tmp_path / "n")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_headers_before_headers(kind: bytes, tmp_path: Path) -> None:
    """Headers that only announce further headers, without end, are told as an archive that cannot be unpacked."""
    header = member("x", kind)
    header.size = 12
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress((header.tobuf() + b"12 path=abc\n".ljust(512, b"\0")) * 3000))
    with pytest.raises(LabError, match="cannot be unpacked"):
        unpack_results(archive, tmp_path / "n")


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK])
def test_header_bound(kind: bytes, tmp_path: Path) -> None:
    """A header that would be held in memory is refused by the size that it claims."""
    header = member("x", kind)
    header.size = results.MAX_HEADER + 1
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + b"a" * header.size))
    with pytest.raises(LabError, match=f"a header of {header.size} bytes"):
        unpack_results(archive, tmp_path / "n")
