"""A relay between a client and its server that loses the answer to a request which the server has done."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Relay:
    """Listens on a port of its own for connections to ``port`` on loopback."""

    def __init__(self, port: int) -> None:
        self.lost = threading.Event()
        self._port = port
        self._marker = b""
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()

    def lose(self, marker: bytes) -> None:
        """Lose the answer to the next request that holds these bytes, and the connection with it."""
        self.lost.clear()
        self._marker = marker

    def close(self) -> None:
        """Cut all connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for end in self._sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            self._sockets += [client, server]
            doomed = threading.Event()
            threading.Thread(target=self._pass_requests, args=(client, server, doomed), daemon=True).start()
            threading.Thread(target=self._pass_answers, args=(client, server, doomed), daemon=True).start()

    def _pass_requests(self, client: socket.socket, server: socket.socket, doomed: threading.Event) -> None:
        seen = b""
        with suppress(OSError):
            while piece := client.recv(65536):
                with self._lock:
                    seen = seen[-len(self._marker) :] + piece
                    if self._marker and self._marker in seen:
                        self._marker = b""
                        doomed.set()
                server.sendall(piece)
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)

    def _pass_answers(self, client: socket.socket, server: socket.socket, doomed: threading.Event) -> None:
        with suppress(OSError):
            while piece := server.recv(65536):
                if doomed.is_set():
                    self.lost.set()
                    break
                client.sendall(piece)
        for end in (client, server):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
