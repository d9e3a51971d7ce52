"""The standard streams as whoever calls left them: closed, not blocking, or with nobody at the other end."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from testbed.agent import client


class _Talk(io.FileIO):
    """Standard error: what nobody can hear any more is passed over, as nothing that goes on may end for want of it."""

    def write(self, data: Any, /) -> int:
        """Write ``data``; where that fails it is gone."""
        try:
            return super().write(data)
        except OSError:
            return len(data)


def take_streams() -> None:
    """Make the three streams fit to use, Python's objects for them too; what stderr does not take is passed over."""
    client.take_streams()
    sys.stdin = sys.stdin or open(0, closefd=False, encoding="utf-8")  # noqa: SIM115  for as long as the program
    sys.stdout = sys.stdout or open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115  the same
    encoding = sys.stderr.encoding if sys.stderr else "utf-8"
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(_Talk(2, "w", closefd=False)), encoding, "backslashreplace", line_buffering=True
    )


def forget_stdout() -> None:
    """Let what is written to stdout go nowhere from now on, the interpreter's last flush too: its reader is gone."""
    void = os.open(os.devnull, os.O_WRONLY)
    os.dup2(void, sys.stdout.fileno())
    os.close(void)
