"""The way to a server, which can be cut: a TCP forwarder on loopback that knows what went through it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress


class Forwarder:
    """Forwards connections to a port of loopback; ``refuses`` is told how each begins, and may end it there."""

    def __init__(self, port: int, refuses: Callable[[bytes], bool] = lambda _: False) -> None:
        self.upward = 0
        """Bytes that went to the server."""
        self.refused = 0
        self._target, self._refuses = port, refuses
        self._lock = threading.Lock()  # guards all below and above
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener: socket.socket | None = None
        self.port = 0
        self.restore()

    def restore(self) -> None:
        """Let connections through (again)."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._begin(self._accept, self._listener)

    def cut(self) -> None:
        """End all connections, and refuse new ones; returns when that is so."""
        assert self._listener is not None
        with self._lock:
            listener, self._listener = self._listener, None
            threads, self._threads = self._threads, []
            for one in [listener, *self._sockets]:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()
        listener.close()

    def close(self) -> None:
        """Leave nothing."""
        if self._listener is not None:
            self.cut()

    def _begin(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                if listener is not self._listener:
                    near.close()
                    return
                self._sockets.add(near)
                thread = threading.Thread(target=self._forward, args=(near,), daemon=True)
                self._threads.append(thread)
            thread.start()

    def _forward(self, near: socket.socket) -> None:
        with near:
            try:
                first = near.recv(65536)
                if first and not self._refuses(first):
                    self._join(near, first)
                elif first:
                    self.refused += 1
            except OSError:
                pass  # cut, or the server is away: who wanted it finds the connection ended
            finally:
                with self._lock:
                    self._sockets.discard(near)

    def _join(self, near: socket.socket, first: bytes) -> None:
        with socket.create_connection(("127.0.0.1", self._target)) as far:
            with self._lock:
                self._sockets.add(far)
                if self._listener is None:
                    self._sockets.discard(far)
                    return
            back = threading.Thread(target=_pump, args=(far, near), daemon=True)
            back.start()
            try:
                self._count(first)
                far.sendall(first)
                while piece := near.recv(65536):
                    self._count(piece)
                    far.sendall(piece)
            finally:
                for one in (near, far):
                    with suppress(OSError):
                        one.shutdown(socket.SHUT_RDWR)
                back.join()
                with self._lock:
                    self._sockets.discard(far)

    def _count(self, piece: bytes) -> None:
        with self._lock:
            self.upward += len(piece)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)
