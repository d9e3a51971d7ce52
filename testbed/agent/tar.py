"""A tar.gz as it is written: as much of the format (POSIX.1-2001, pax) as results need.

The standard library's ``tarfile`` reads it, but is not loaded to write it: with all that it brings along, its import
costs an agent more than all of its packing.
"""

from __future__ import annotations

import zlib
from typing import BinaryIO, Optional, Protocol

BLOCK = 512
_PIECE = 1 << 16
_SHORT, _SMALL = 100, 8**11  # what a plain header has room for: bytes of a name, bytes of a file

FILE, FOLDER, _PAX = b"0", b"5", b"x"


class Content(Protocol):
    """What gives a member's bytes."""

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; none at the end."""


class TarGz:
    """Members written to ``out`` one after the other, and `close` at the end; the same members to the same bytes."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._zip = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)  # 16: as gzip does, without time and name

    def add_folder(self, name: str, mtime: int) -> None:
        """Add a folder; ``mtime`` in Unix seconds."""
        self._write(_header(name + "/", 0, mtime, FOLDER))

    def add_file(self, name: str, size: int, mtime: int, content: Content) -> None:
        """Add a file of ``size`` bytes, which ``content`` must give."""
        self._write(_header(name, size, mtime, FILE))
        left = size
        while left:
            piece = content.read(min(left, _PIECE))
            if not piece:
                raise ValueError(f"{name} ended {left} bytes before its end")
            self._write(piece)
            left -= len(piece)
        self._write(_padding(size))

    def close(self) -> None:
        """Write the end of the archive."""
        self._write(bytes(2 * BLOCK))
        self._out.write(self._zip.flush())

    def _write(self, data: bytes) -> None:
        zipped = self._zip.compress(data)
        if zipped:
            self._out.write(zipped)


def _header(name: str, size: int, mtime: int, kind: bytes) -> bytes:
    """A member's header, with one of pax before it for what a plain one has no room for."""
    raw = name.encode("utf-8", "surrogateescape")
    if len(raw) <= _SHORT and size < _SMALL and name.isascii():
        return _block(raw, size, mtime, kind)
    records = b""
    if _encoded(name) is None:  # bytes that are no text
        records += _record(b"hdrcharset", b"BINARY")
    records += _record(b"path", raw)
    if size >= _SMALL:
        records += _record(b"size", b"%d" % size)
    before = _block(b"././@PaxHeader", len(records), 0, _PAX) + records + _padding(len(records))
    return before + _block(raw[:_SHORT], size if size < _SMALL else 0, mtime, kind)


def _encoded(name: str) -> Optional[bytes]:
    try:
        return name.encode()
    except UnicodeEncodeError:
        return None


def _record(key: bytes, value: bytes) -> bytes:
    """A line of a pax header, which begins with its own length."""
    rest = b" %b=%b\n" % (key, value)
    length = len(rest) + 1
    while len(rest) + len(str(length)) != length:
        length = len(rest) + len(str(length))
    return b"%d%b" % (length, rest)


def _block(name: bytes, size: int, mtime: int, kind: bytes) -> bytes:
    mode = b"0000755" if kind == FOLDER else b"0000644"
    nobody = b"0000000\0"
    times = b"%011o\0" % max(0, min(mtime, _SMALL - 1))
    fields = (name.ljust(_SHORT, b"\0"), mode, b"\0", nobody, nobody, b"%011o\0" % size, times)
    end = b"".join((kind, bytes(100), b"ustar\x0000", bytes(64), nobody, nobody, bytes(167)))
    start = b"".join(fields)
    checksum = sum(start) + sum(end) + 8 * ord(" ")
    return start + b"%06o\0 " % checksum + end


def _padding(size: int) -> bytes:
    return bytes(-size % BLOCK)
