"""The kernel tells when a file or a folder changes: one wait for many paths, without looking again and again."""

from __future__ import annotations

import ctypes
import os
import select
import threading
from pathlib import Path

_MODIFY, _CLOSE_WRITE, _MOVED, _CREATE, _DELETE, _DELETE_SELF = 0x2, 0x8, 0xC0, 0x100, 0x200, 0x400
_WANTED = _MODIFY | _CLOSE_WRITE | _MOVED | _CREATE | _DELETE | _DELETE_SELF


class Changes:
    """Watches paths; `wait` from one thread, the rest from any. Its two descriptors are given back by `close`."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._kernel = self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._kernel < 0:
            raise self._refused("inotify")
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._closed = False
        self._lock = threading.Lock()
        self._poll = select.poll()
        self._poll.register(self._kernel, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)

    def watch(self, path: Path) -> None:
        """Wait for changes of the file, or of what lies in the folder, too; raises OSError where it is not there."""
        if self._libc.inotify_add_watch(self._kernel, os.fsencode(path), ctypes.c_uint32(_WANTED)) < 0:
            raise self._refused(str(path))

    def wait(self, timeout: float | None = None) -> bool:
        """Block until something has changed, somebody called `wake`, or ``timeout`` seconds have passed (False)."""
        ready = self._poll.poll(None if timeout is None else timeout * 1000)
        for descriptor, _ in ready:
            if descriptor == self._wake:
                os.eventfd_read(self._wake)
            else:
                os.read(self._kernel, 65536)  # which of them it was does not matter: the reader looks at all
        return bool(ready)

    def wake(self) -> None:
        """Let `wait` return."""
        with self._lock:
            if not self._closed:
                os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """Give the descriptors back; not while another thread waits."""
        with self._lock:
            if not self._closed:
                self._closed = True
                os.close(self._kernel)
                os.close(self._wake)

    def _refused(self, what: str) -> OSError:
        number = ctypes.get_errno()
        return OSError(number, os.strerror(number), what)
