"""The short way for large values: over gRPC, where the server lets it; all else goes through its JSON gateway."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Optional

from testbed.coord.store import Put
from testbed.coord.wire import Client

if TYPE_CHECKING:  # loaded with the first large value
    from testbed.coord.http2 import Direct

LARGE = 16 * 1024
"""Bytes from which a value counts as large: as JSON they cost the server ten times as much as all else about them."""

_FAILURES = 3  # in a row of new connections, after which the short way is taken for closed: by a proxy, say


class Bulk:
    """Puts large values for a ``client``; may be called from any thread."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._lock = threading.Lock()  # guards all below
        self._direct: Optional[Direct] = None
        self._works = False  # this connection has
        self._failures = 0

    def put(self, operation: Put) -> Optional[int]:
        """Set the key and give the store's revision; None where it may not have been done: ask through the gateway."""
        if len(operation.value) < LARGE or not self._lock.acquire(blocking=False):
            return None
        try:
            token = self._client.token
            if token is None or self._failures >= _FAILURES or self._client.closed:
                return None
            revision = self._connected().put(operation.key.encode(), operation.value, operation.lease, token)
            self._works, self._failures = True, 0
            return revision
        except OSError as error:  # what it means, the gateway tells
            self._failures += not self._works and not isinstance(error, ConnectionRefusedError)
            self._drop()
            return None
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the connection; a put that is under way finds it lost. The client was closed before."""
        direct = self._direct
        if direct is not None:
            direct.cut()
        with self._lock:
            self._drop()

    def _connected(self) -> Direct:
        from testbed.coord.http2 import Direct

        endpoint = self._client.endpoint
        if self._direct is not None and self._direct.endpoint != endpoint:
            self._drop()
        if self._direct is None:
            self._direct = Direct(endpoint, self._client.secured("h2"), self._client.answer)
        return self._direct

    def _drop(self) -> None:
        direct, self._direct, self._works = self._direct, None, False
        if direct is not None:
            direct.close()
