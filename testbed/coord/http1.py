"""Just enough HTTP/1.1 for etcd's JSON gateway, over one plain or TLS socket.

``http.client`` would bring in the e-mail package, which costs every agent more than all of this.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Iterator

CONNECT_TIMEOUT = 5.0
"""Seconds until an endpoint must have accepted a connection."""

_KEEPALIVE = (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3))
_UNANSWERED = 11_000  # milliseconds that sent data, probes included, may stay without acknowledgement
_HEAD_LINES = 100


class Broken(OSError):
    """The peer ended the connection, or does not speak HTTP."""


@dataclass(frozen=True)
class Endpoint:
    """Where an etcd server listens for clients."""

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


def parse_endpoint(url: str) -> Endpoint:
    """Read the endpoint that ``url`` (``https://host:port``, IPv6 in brackets) names; raises ValueError."""
    scheme, found, rest = url.strip().partition("://")
    if not found:
        scheme, rest = "http", url.strip()
    rest = rest.rstrip("/")
    if rest.startswith("["):
        host, found, port = rest[1:].partition("]")
        port = port[1:] if port.startswith(":") else "2379" if not port else "?"
        found = found and "]"
    else:
        host, found, port = rest.partition(":")
        port, found = port if found else "2379", "]"
    if scheme not in ("http", "https") or not found or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"not an etcd endpoint: {url!r} (want http://HOST:PORT or https://HOST:PORT)")
    return Endpoint(host, int(port), scheme == "https")


def tls_context(ca: str, certificate: str, key: str) -> Any:
    """Make an ``ssl.SSLContext`` that trusts ``ca`` (the system's authorities where empty); all are PEM texts.

    Raises ValueError where one of them is no PEM.
    """
    import ssl

    try:
        context = ssl.create_default_context(cadata=ca) if ca else ssl.create_default_context()
        if certificate:
            _load_chain(context, certificate, key)
    except ssl.SSLError as error:
        raise ValueError(f"the certificates for etcd cannot be used: {error}") from error
    return context


def _load_chain(context: Any, certificate: str, key: str) -> None:
    text = certificate.rstrip("\n") + "\n" + key
    try:
        handle = os.memfd_create("testbed")  # OpenSSL reads files only; this one is on no disk
    except (AttributeError, OSError):
        _load_from_disk(context, text)
        return
    with os.fdopen(handle, "w") as file:
        file.write(text)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{handle}")


def _load_from_disk(context: Any, text: str) -> None:
    """Where the system knows no files in memory."""
    import tempfile  # costs more than a TLS handshake

    handle, path = tempfile.mkstemp(prefix="testbed-")  # mkstemp makes it 0600
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        context.load_cert_chain(path)
    finally:
        os.unlink(path)


class Connection:
    """One connection to one endpoint; used by one thread at a time, but `cut` by any."""

    def __init__(self, endpoint: Endpoint, tls: Any) -> None:
        self.endpoint = endpoint
        self.reused = False
        self._socket = dial(endpoint, tls)
        self._file = self._socket.makefile("rb")
        self._headers: dict[str, str] = {}

    def post(self, path: str, body: bytes, token: str, timeout: float, last: bool = False) -> int:
        """Send a request and read the answer's head; gives the status. Raises OSError.

        ``last`` tells the server that no other request follows. Go's server then lets its handler read the body while
        it answers; otherwise it throws away, as soon as the answer begins, what of the body was not read by then.
        """
        self._socket.settimeout(timeout)
        host = str(self.endpoint).partition("://")[2]
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body)}\r\n"
        if last:
            head += "Connection: close\r\n"
        if token:
            head += f"Authorization: {token}\r\n"
        self._socket.sendall(head.encode("latin-1") + b"\r\n" + body)
        return self._read_head()

    def _read_head(self) -> int:
        while True:
            first = self._file.readline(65536)
            if not first:
                hint = "" if self.endpoint.tls else " (does it want https?)"
                raise Broken(f"the connection was closed without an answer{hint}")
            parts = first.split(None, 2)
            if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
                raise Broken("the answer is no HTTP")
            headers: dict[str, str] = {"version": parts[0].decode("latin-1")}
            for _ in range(_HEAD_LINES):
                line = self._line()
                if not line:
                    break
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.strip().lower()] = value.strip()
            else:
                raise Broken("the answer's head does not end")
            if int(parts[1]) >= 200:  # an interim answer says nothing
                self._headers = headers
                return int(parts[1])

    def _line(self) -> bytes:
        line = self._file.readline(65536)
        if not line.endswith(b"\n"):
            raise Broken("the connection was closed")
        return line.rstrip(b"\r\n")

    def read(self) -> bytes:
        """Give the whole body of the answer."""
        return b"".join(self.pieces())

    def pieces(self) -> Iterator[bytes]:
        """Give the body of the answer, piece by piece as it comes."""
        if self._headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunks()
        elif "content-length" in self._headers:
            yield self._exactly(_number(self._headers["content-length"], 10))
        else:  # until the peer closes
            while True:
                piece = self._file.read1(65536)
                if not piece:
                    return
                yield piece

    def _chunks(self) -> Iterator[bytes]:
        while True:
            size = _number(self._line().partition(b";")[0].decode("latin-1"), 16)
            if not size:
                while self._line():  # trailers
                    pass
                return
            piece = self._exactly(size)
            if self._line():
                raise Broken("the answer's chunks are garbled")
            yield piece

    def _exactly(self, size: int) -> bytes:
        piece: bytes = self._file.read(size)
        if len(piece) < size:
            raise Broken("the connection was closed")
        return piece

    @property
    def lasting(self) -> bool:
        """Whether the next request may use this connection, once the body was read."""
        headers = self._headers
        framed = "content-length" in headers or headers.get("transfer-encoding", "").lower() == "chunked"
        return framed and headers.get("version") == "HTTP/1.1" and headers.get("connection", "").lower() != "close"

    def patient(self, timeout: float | None) -> None:
        """From now on let reading wait that many seconds, or for ever."""
        self._socket.settimeout(timeout)

    def cut(self) -> None:
        """End the connection from any thread: whoever reads from it comes to its end."""
        with suppress(OSError):  # it may have ended already
            # not SSLSocket's own shutdown: that would pull the TLS state from under the reading thread
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the socket back; only by the thread that uses it."""
        try:
            self._file.close()
        finally:
            self._socket.close()


def dial(endpoint: Endpoint, tls: Any) -> socket.socket:
    """A socket to the endpoint, over TLS where it wants that; ``tls`` is the `tls_context`. Raises OSError."""
    plain = socket.create_connection((endpoint.host, endpoint.port), CONNECT_TIMEOUT)
    try:
        _tune(plain)
        return _secure(plain, tls, endpoint.host.partition("%")[0]) if endpoint.tls else plain
    except BaseException:
        plain.close()
        raise


def _secure(plain: socket.socket, tls: Any, host: str) -> socket.socket:
    try:
        secured: socket.socket = tls.wrap_socket(plain, server_hostname=host)
    except OSError as error:
        if isinstance(error, ConnectionResetError) or "EOF" in str(error):
            raise Broken("the connection was closed in the TLS handshake (does it want http?)") from error
        raise
    return secured


def _tune(plain: socket.socket) -> None:
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEPALIVE:
        if hasattr(socket, name):
            plain.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNANSWERED)


def _number(text: str, base: int) -> int:
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if number < 0:
        raise Broken("the answer's length is garbled")
    return number
