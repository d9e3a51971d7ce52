"""What a word of the command ``testbed`` is, how it is asked for, and what it answers."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Tuple, TypeVar

from testbed.coord.scope import Cancel, Scope
from testbed.coord.waiting import Bound

T = TypeVar("T")

OK, NOT_SET, USAGE, NO_ETCD, TIMED_OUT, ABORTED, GONE = 0, 1, 2, 3, 4, 5, 130
"""Exit codes."""


class Usage(Exception):
    """The words make no sense."""


@dataclass(frozen=True)
class Reply:
    """What a word answers: exit code, output, errors."""

    code: int = OK
    out: bytes = b""
    err: bytes = b""


RunHeld = Callable[[List[str], int], int]
"""Runs a command while a lock is held whose token is given; its exit code."""


@dataclass(frozen=True)
class Caller:
    """Who asks: ``data`` is what ``-`` stands for, ``cancelled`` fires when nobody waits for the answer any more.

    ``emit`` takes output that comes before the end, ``run_held`` runs the command of a lock; None: not possible.
    """

    data: bytes = b""
    cancelled: Optional[Cancel] = None
    emit: Optional[Callable[[bytes], None]] = None
    run_held: Optional[RunHeld] = None


NOBODY = Caller()
"""A caller that gives nothing and waits for as long as it takes."""


@dataclass(frozen=True)
class Asked:
    """A word as it was called; ``options`` by their long name."""

    operands: List[str]
    options: Dict[str, str]
    scope: Scope
    caller: Caller

    def timeout(self) -> Optional[float]:
        """The time that ``--timeout`` gives, in seconds."""
        text = self.options.get("timeout")
        return None if text is None else seconds(text)

    def bounded(self, do: Callable[[], T], phrase: str, missed: str) -> T:
        """Do what etcd has to answer, within the time that ``--timeout`` gives; raises WaitTimeout in those words."""
        return Bound(phrase, missed, self.timeout()).ask(do)

    def number(self, name: str, least: int, most: int) -> Optional[int]:
        """The whole number that an option gives; raises Usage."""
        text = self.options.get(name)
        if text is None:
            return None
        if not re.fullmatch(r"\d{1,9}", text, re.ASCII) or not least <= int(text) <= most:
            raise Usage(f"--{name} {text}: not a number from {least} to {most}")
        return int(text)

    def value(self, place: int) -> bytes:
        """The value that stands at that operand; empty where there is none."""
        if len(self.operands) <= place:
            return b""
        text = self.operands[place]
        return self.caller.data if text == "-" else text.encode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Word:
    """A word: how it is called, what for, and what does it; ``counts`` bounds its operands (most -1: any number)."""

    synopsis: str
    summary: str
    do: Callable[[Asked], Reply]
    counts: Tuple[int, int]
    short: str = ""
    long: Tuple[str, ...] = ()
    aliases: Tuple[Tuple[str, str], ...] = ()
    help: str = ""
    anywhere: bool = True  # whether options may follow operands; not where an operand may look like one


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str) -> float:
    """The seconds that ``text`` (``90``, ``1.5``, ``500ms``, ``60s``, ``1h30m``) means; raises Usage."""
    if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text, re.ASCII)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise Usage(f"not a time: {text!r}; like 60s, 10m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def failed(code: int, who: str, why: str) -> Reply:
    """A reply that says on stderr what went wrong, with nothing in it that a terminal would obey."""
    text = f"{who}: {why}\n".encode("utf-8", "backslashreplace").decode()
    return Reply(code, err="".join(c if c.isprintable() or c == "\n" else " " for c in text).encode())


def line(value: bytes) -> bytes:
    """A value as it is printed: with a line end if it has none."""
    return value if value.endswith(b"\n") else value + b"\n"


def as_json(value: Any) -> bytes:
    """Data as one line of JSON."""
    return line(json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace"))
