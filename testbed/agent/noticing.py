"""The kernel tells when files of a folder grow: no looking again and again."""

from __future__ import annotations

import ctypes
import os

BLIND_PACE = 0.5
"""Seconds between two looks at files where the kernel can't tell that they grow."""

_MODIFY, _CREATE, _MOVED_TO = 0x2, 0x100, 0x80


class Noticing:
    """Watches paths from now on; its descriptor can be read when one of them, or what is in one, has grown.

    Raises OSError where the kernel has no such service, or none left for this user.
    """

    def __init__(self, *paths: str) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            self.descriptor = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        except AttributeError:
            raise OSError("this system has no inotify") from None
        if self.descriptor < 0:
            raise _refused("inotify")
        for path in paths:
            mask = ctypes.c_uint32(_MODIFY | _CREATE | _MOVED_TO)
            if libc.inotify_add_watch(self.descriptor, os.fsencode(path), mask) < 0:
                error = _refused(path)
                self.close()
                raise error

    def clear(self) -> None:
        """Take note: the descriptor can be read again when something more happens."""
        try:
            while os.read(self.descriptor, 65536):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        """Watch no longer."""
        os.close(self.descriptor)


def _refused(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)
