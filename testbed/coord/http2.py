"""Just enough gRPC over HTTP/2 to put a large value as it is: the JSON gateway reads each byte several times.

Whatever is not plain success is an OSError here. The caller then asks through the gateway, which can tell why.
"""

from __future__ import annotations

import socket
from struct import pack, unpack
from typing import Any, Dict, Tuple

from testbed.coord.http1 import Endpoint, dial

_DATA, _HEADERS, _RESET, _SETTINGS, _PING, _GO_AWAY, _WINDOW = 0, 1, 3, 4, 6, 7, 8
_END_STREAM = _ACK = 1
_END_HEADERS, _PADDED, _PRIORITY = 4, 8, 0x20
_TABLE_SIZE, _NO_PUSH, _INITIAL_WINDOW, _FRAME_SIZE = 1, 2, 4, 5

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_LARGEST_FRAME = 1 << 14  # that the server may send: what HTTP/2 says where nobody says otherwise
_LARGEST_ANSWER = 4096
_LAST_STREAM = 1 << 30  # then a new connection is due
_OK = b"\x88"  # ``:status: 200``, by its number in HPACK's own table
_NO_TABLE = b"\x20"  # says that there will be no table of the connection's own
_METHOD_POST, _SCHEME_HTTP, _SCHEME_HTTPS = b"\x83", b"\x86", b"\x87"
_AUTHORITY, _PATH = b"\x01", b"\x04"
_CONTENT_TYPE = b"\x0f\x10"
_NEW_NAME = b"\x00"


class Unlike(OSError):
    """The peer is no gRPC server, or did not do what was asked."""


class Direct:
    """One connection to etcd's gRPC service; used by one thread at a time, but `cut` by any. Raises OSError.

    ``timeout`` in seconds, for each step of an exchange.
    """

    def __init__(self, endpoint: Endpoint, tls: Any, timeout: float) -> None:
        self.endpoint = endpoint
        self._socket = dial(endpoint, tls)
        try:
            self._socket.settimeout(timeout)
            self._file = self._socket.makefile("rb")
            self._stream = -1
            self._room = self._first_room = 65535  # bytes that the server takes on the connection, and on a new stream
            self._stream_room = 0
            self._frame_size = _LARGEST_FRAME
            settings = pack(">HIHI", _TABLE_SIZE, 0, _NO_PUSH, 0)
            self._socket.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, settings))
        except BaseException:
            self._socket.close()
            raise

    def put(self, key: bytes, value: bytes, lease: int, token: str) -> int:
        """Set the key, on a lease where ``lease`` is not 0; gives the store's revision."""
        self._stream += 2
        if self._stream > _LAST_STREAM:
            raise Unlike("the connection is used up")
        self._stream_room = self._first_room
        message = _field(1, key) + _field(2, value) + (b"\x18" + _number(lease) if lease else b"")
        self._send(self._head("/etcdserverpb.KV/Put", token), b"\0" + pack(">I", len(message)) + message)
        return self._answer()

    def cut(self) -> None:
        """End the connection from any thread: whoever uses it finds it lost."""
        try:
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            return  # it has ended already

    def close(self) -> None:
        """Give the socket back; only by the thread that uses it."""
        try:
            self._file.close()
        finally:
            self._socket.close()

    # --- what is sent -------------------------------------------------------------------------------------------

    def _head(self, path: str, token: str) -> bytes:
        scheme = _SCHEME_HTTPS if self.endpoint.tls else _SCHEME_HTTP
        host = str(self.endpoint).partition("://")[2]
        block = _METHOD_POST + scheme + _PATH + _text(path) + _AUTHORITY + _text(host)
        block += _CONTENT_TYPE + _text("application/grpc") + _NEW_NAME + _text("te") + _text("trailers")
        if token:
            block += _NEW_NAME + _text("token") + _text(token)
        return _frame(_HEADERS, _END_HEADERS, self._stream, block)

    def _send(self, head: bytes, body: bytes) -> None:
        """Send as the server makes room."""
        at, before = 0, head
        while at < len(body):
            size = min(self._room, self._stream_room, self._frame_size, len(body) - at)
            if size <= 0:
                if before:
                    self._socket.sendall(before)
                    before = b""
                self._take(*self._read())
                continue
            flags = _END_STREAM if at + size == len(body) else 0
            self._socket.sendall(before + _frame(_DATA, flags, self._stream, body[at : at + size]))
            before = b""
            at += size
            self._room -= size
            self._stream_room -= size

    # --- what comes ---------------------------------------------------------------------------------------------

    def _answer(self) -> int:
        """The revision that the answer to the request under way tells of."""
        seen, message = False, b""
        while True:
            kind, flags, stream, body = self._read()
            if stream != self._stream or kind not in (_DATA, _HEADERS):
                self._take(kind, flags, stream, body)
                continue
            body = _bare(kind, flags, body)
            if kind == _DATA:
                message += body
                if len(message) > _LARGEST_ANSWER:
                    raise Unlike("the answer is too long")
                if flags & _END_STREAM:
                    raise Unlike("an answer without a status")
            elif not seen:
                seen = True
                if flags & _END_STREAM or body.lstrip(_NO_TABLE)[:1] != _OK:
                    raise Unlike("the request was refused")
            if kind == _HEADERS and flags & _END_STREAM:
                break
        if message:
            self._socket.sendall(_frame(_WINDOW, 0, 0, pack(">I", len(message))))
        return _revision(message)

    def _read(self) -> Tuple[int, int, int, bytes]:
        """The next frame: kind, flags, stream, body."""
        head = self._exactly(9)
        size = int.from_bytes(head[:3], "big")
        if size > _LARGEST_FRAME:
            raise Unlike("the peer speaks no HTTP/2")
        return head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF, self._exactly(size)

    def _exactly(self, size: int) -> bytes:
        piece: bytes = self._file.read(size)
        if len(piece) < size:
            raise Unlike("the connection was closed")
        return piece

    def _take(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        """Take in a frame that is no answer."""
        if kind == _SETTINGS and not flags & _ACK:
            for at in range(0, len(body) - 5, 6):
                name, value = unpack(">HI", body[at : at + 6])
                if name == _INITIAL_WINDOW:
                    self._stream_room += value - self._first_room
                    self._first_room = value
                elif name == _FRAME_SIZE:
                    self._frame_size = value
            self._socket.sendall(_frame(_SETTINGS, _ACK, 0, b""))
        elif kind == _PING and not flags & _ACK:
            self._socket.sendall(_frame(_PING, _ACK, 0, body))
        elif kind == _WINDOW:
            more = int.from_bytes(body, "big")
            if not stream:
                self._room += more
            elif stream == self._stream:
                self._stream_room += more
        elif kind == _GO_AWAY or (stream == self._stream and kind in (_RESET, _HEADERS, _DATA)):
            raise Unlike("the server has ended the exchange")


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def _bare(kind: int, flags: int, body: bytes) -> bytes:
    """What a frame holds beside padding and priority."""
    if flags & _PADDED:
        body = body[1 : len(body) - body[0]] if body else b""
    return body[5:] if kind == _HEADERS and flags & _PRIORITY else body


def _text(text: str) -> bytes:
    """A string as HPACK has it, not squeezed."""
    raw = text.encode("latin-1")
    return (bytes([len(raw)]) if len(raw) < 127 else b"\x7f" + _number(len(raw) - 127)) + raw


def _number(value: int) -> bytes:
    """A number as protobuf has it (and HPACK, after a prefix that is full)."""
    found = b""
    while value > 127:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])


def _field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _number(len(value)) + value


def _revision(message: bytes) -> int:
    """The revision in the header of a gRPC message that is a PutResponse."""
    if len(message) < 5 or message[0] or unpack(">I", message[1:5])[0] != len(message) - 5:
        raise Unlike("the answer is no gRPC")
    header = _fields(message[5:]).get(1)
    revision = _fields(header).get(3) if isinstance(header, bytes) else None
    if not isinstance(revision, int):
        raise Unlike("the answer tells no revision")
    return revision


def _fields(message: bytes) -> Dict[int, Any]:
    """The numbers and strings of a protobuf message, by their fields' numbers."""
    found: Dict[int, Any] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value, at = _varint(message, at)
        if tag & 7 == 2:
            value, at = message[at : at + value], at + value  # type: ignore[assignment]
        elif tag & 7:
            raise Unlike("the answer is no PutResponse")
        found[tag >> 3] = value
    return found


def _varint(message: bytes, at: int) -> Tuple[int, int]:
    value = shift = 0
    while at < len(message) and shift < 70:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return value, at
    raise Unlike("the answer ends within a number")
