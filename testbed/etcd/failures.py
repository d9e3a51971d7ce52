"""Why a server did not start or is gone, told from how it ended and what it logged last."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Sequence
from pathlib import Path

_TAIL = 5

PORT_TAKEN = "its port is taken"
"""The cause that another attempt on another port may cure."""

_CAUSES: tuple[tuple[str, str, str], ...] = (
    (
        "address already in use",
        PORT_TAKEN,
        "See what holds it with `ss -ltnp`, or let testbed choose the port.",
    ),
    (
        "cannot assign requested address",
        "it was told to listen on an address that is not this machine's",
        "See this machine's addresses with `ip address`, and choose with --etcd-advertise.",
    ),
    (
        "no space left on device",
        "the disk is full",
        "It needs 130 MB under the run directory: make room, or choose another one with --run-dir.",
    ),
    ("disk quota exceeded", "the disk quota is used up", "Make room, or choose another directory with --run-dir."),
    ("read-only file system", "the run directory cannot be written", "Choose another one with --run-dir."),
    ("permission denied", "this user may not do what it needs", "Choose a directory of your own with --run-dir."),
    ("exec format error", "the program is not for this kind of machine", "Name another one with TESTBED_ETCD_BINARY."),
    (
        "unsupported platform",
        "this etcd is not supported on this kind of machine",
        "Use etcd 3.5 or newer, or set ETCD_UNSUPPORTED_ARCH as etcd's documentation says.",
    ),
)


def ending(exit_code: int) -> str:
    """Say how a process ended; ``exit_code`` is negative for a signal."""
    if exit_code >= 0:
        return f"ended with exit code {exit_code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-exit_code).name}"
    return f"was ended by signal {-exit_code}"


def tail(log: Path, begin: int) -> list[str]:
    """Read the last lines that were written to ``log`` from the byte ``begin`` on, for people."""
    try:
        with log.open("rb") as file:
            file.seek(max(begin, log.stat().st_size - 65536))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return [f"(no log: {error})"]
    said = text.partition("\ngoroutine ")[0]  # where a Go program panics, its stacks follow, and tell nobody anything
    return [_plain(line) for line in said.splitlines() if line.strip()][-_TAIL:]


def _plain(line: str) -> str:
    # message and error of a structured line, others as they are
    with contextlib.suppress(ValueError, AttributeError):
        raw = json.loads(line)
        parts = (raw.get("level"), raw.get("msg"), raw.get("error"))
        return ": ".join(str(p) for p in parts if p)[:500]
    return line[:500]


def explain(said: Sequence[str], otherwise: str) -> tuple[str, str]:
    """Find the cause in what was said, and the advice for it; ``otherwise`` and no advice where none is known."""
    text = "\n".join(said).lower()
    for pattern, cause, advice in _CAUSES:
        if pattern in text:
            return cause, advice
    return otherwise, ""


def with_log(message: str, said: Sequence[str]) -> str:
    """Put the last lines of etcd's log under the message."""
    return "\n".join((message, *(f"  etcd: {line}" for line in said)))
