"""Where the commands of a node reach its agent: a Unix socket, one thread for all connections, one per call."""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Optional, Tuple

from testbed.agent.word import Reply
from testbed.coord.store import MAX_VALUE

NAME = "agent.sock"

REQUEST_LIMIT = MAX_VALUE + 4 * 1024 * 1024
"""Bytes of the largest request that is read: input and arguments."""


class Garbled(ValueError):
    """What came is no request."""


class Call:
    """One command that asks: its arguments, its input, and whether it still is there to hear the answer.

    ``caller`` is the process that asks.
    """

    def __init__(self, arguments: List[str], data: bytes, asking: socket.socket) -> None:
        self.arguments, self.data = arguments, data
        self._asking = asking
        self.caller: int = struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        self.let_go = False  # it has become another command, and hears no answer
        self._lock = threading.Lock()
        self._gone = False
        self._listeners: List[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> None:
        """Have ``listener`` called when the command is gone, at once if it is already."""
        with self._lock:
            self._listeners.append(listener)
            gone = self._gone
        if gone:
            listener()

    def emit(self, data: bytes) -> None:
        """Pass on output that comes before the end; where the command is gone, nobody hears it."""
        self._send(_frame(1, data))

    def let_run(self, token: int) -> None:
        """Have the command run what it was told to, and return when that has ended: the connection ends with it."""
        ended = threading.Event()
        self.let_go = True
        self.listen(ended.set)
        self._send(b"r %d\n" % token)
        ended.wait()

    def finish(self, reply: Reply) -> None:
        """Give the answer."""
        frames = [_frame(fd, data) for fd, data in ((1, reply.out), (2, reply.err)) if data]
        self._send(b"".join(frames) + b"x %d\n" % reply.code)
        with suppress(OSError):
            self._asking.shutdown(socket.SHUT_RDWR)  # wakes the serving thread, which closes it

    def _send(self, data: bytes) -> None:
        with suppress(OSError):  # the command is gone; nobody wants to hear it
            self._asking.sendall(data)

    def hang_up(self) -> None:
        """Tell whoever works for the call that nobody waits for it."""
        with self._lock:
            self._gone = True
            listeners = list(self._listeners)
        for listener in listeners:
            listener()


@dataclass
class _Connection:
    socket: socket.socket
    received: bytearray = field(default_factory=bytearray)
    call: Optional[Call] = None


class Endpoint:
    """Listens on ``directory``/agent.sock; ``answer`` is called on a thread of its own for every call.

    ``directory`` must be the working directory while this is made: a socket's path may have 107 bytes at most.
    """

    def __init__(self, answer: Callable[[Call], Reply]) -> None:
        self._answer = answer
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with suppress(FileNotFoundError):
            os.unlink(NAME)
        self._listener.bind(NAME)
        self._listener.listen(128)
        self._connections: Dict[int, _Connection] = {}
        self._full = False
        self._poll = select.poll()
        self._poll.register(self._listener, select.POLLIN)
        self._end_read, self._end_write = os.pipe()
        self._poll.register(self._end_read, select.POLLIN)
        self._thread = threading.Thread(target=self._serve, name="endpoint", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Hang up on everybody and end."""
        os.write(self._end_write, b"e")
        self._thread.join()

    def _serve(self) -> None:
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._end_read:
                    self._end()
                    return
                if fd == self._listener.fileno():
                    self._accept()
                else:
                    self._hear(fd)

    def _end(self) -> None:
        for fd in list(self._connections):
            self._drop(fd)
        self._listener.close()

    def _accept(self) -> None:
        try:
            accepted, _ = self._listener.accept()
        except ConnectionAbortedError:
            return
        except OSError as error:  # no descriptor is free: whoever knocks waits until another call ends
            print(f"cannot take one more command: {error}", file=sys.stderr)  # noqa: T201  the agent's log
            self._poll.unregister(self._listener)
            self._full = True
            return
        self._connections[accepted.fileno()] = _Connection(accepted)
        self._poll.register(accepted, select.POLLIN)

    def _hear(self, fd: int) -> None:
        """Take in what a connection sent; its end is the end of its call."""
        connection = self._connections[fd]
        try:
            piece = connection.socket.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        if not piece or connection.call is not None:  # nobody sends anything after the request
            self._drop(fd)
            return
        connection.received += piece
        try:
            request = _parse(connection.received)
        except (ValueError, IndexError):
            self._drop(fd)
            return
        if request is not None:
            connection.received = bytearray()
            connection.call = Call(*request, connection.socket)
            threading.Thread(target=self._work, args=(connection.call,), daemon=True).start()

    def _work(self, call: Call) -> None:
        call.finish(self._answer(call))

    def _drop(self, fd: int) -> None:
        self._poll.unregister(fd)
        connection = self._connections.pop(fd)
        if connection.call is not None:
            connection.call.hang_up()
        connection.socket.close()
        if self._full:
            self._full = False
            self._poll.register(self._listener, select.POLLIN)


def _frame(fd: int, data: bytes) -> bytes:
    return b"%d %d\n%b" % (fd, len(data), data)


def _parse(raw: bytearray) -> Optional[Tuple[List[str], bytes]]:
    """Arguments and input once the request has come whole; None before; raises ValueError for anything else."""
    if len(raw) > REQUEST_LIMIT:
        raise Garbled("too large")
    head, whole, at = _line(raw, 0)
    if not whole:
        return None
    count, size = (int(n) for n in head.split())
    arguments = []
    for _ in range(count):
        length, whole, at = _line(raw, at)
        end = at + int(length or 0)
        if not whole or len(raw) < end:
            return None
        arguments.append(raw[at:end].decode("utf-8", "surrogateescape"))
        at = end
    if size < 0 or len(raw) < at + size:
        return None
    return arguments, bytes(raw[at : at + size])


def _line(raw: bytearray, at: int) -> Tuple[bytes, bool, int]:
    end = raw.find(b"\n", at, at + 64)
    if end < 0 and len(raw) - at >= 64:
        raise Garbled("no line")
    return (bytes(raw[at:end]), True, end + 1) if end >= 0 else (b"", False, at)
