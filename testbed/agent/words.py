"""The words of the command ``testbed`` that coordinate: what they are called with, do over a scope, and answer.

The same on a node, where its agent does them, and on the controller. To add a word: a function from `Asked` to `Reply`
and a line in `WORDS`.
"""

from __future__ import annotations

import getopt
import re
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Callable, ContextManager, Dict, List, Optional, Sequence, Tuple

from testbed.coord.scope import Aborted, BadKey, Cancelled, Scope, WaitTimeout
from testbed.coord.store import StoreError, TooLarge
from testbed.events import ABORT, FINALISE

OK, NOT_SET, USAGE, NO_ETCD, TIMED_OUT, ABORTED, GONE = 0, 1, 2, 3, 4, 5, 130
"""Exit codes."""

Blocking = Callable[[str, List[str], Optional[float]], ContextManager[Any]]
"""Enters a wait for (what, names, seconds or None); gives what ends the wait early, None if nothing does."""


@dataclass(frozen=True)
class Reply:
    """What a word answers: exit code, output, errors."""

    code: int = OK
    out: bytes = b""
    err: bytes = b""


@dataclass(frozen=True)
class Asked:
    """A word as it was called; ``options`` by their long name."""

    operands: List[str]
    options: Dict[str, str]
    data: bytes
    scope: Scope
    by: str
    blocking: Blocking

    def timeout(self) -> Optional[float]:
        """The time that ``--timeout`` gives, in seconds."""
        text = self.options.get("timeout")
        return None if text is None else seconds(text)


class Usage(Exception):
    """The words make no sense."""


@dataclass(frozen=True)
class Word:
    """A word: how it is called, what for, and what does it; ``counts`` bounds its operands."""

    synopsis: str
    summary: str
    do: Callable[[Asked], Reply]
    counts: Tuple[int, int]
    short: str = ""
    long: Tuple[str, ...] = ()
    aliases: Tuple[Tuple[str, str], ...] = ()
    help: str = ""
    anywhere: bool = True  # whether options may follow operands; not where an operand may look like one


def run(
    arguments: Sequence[str], scope: Scope, by: str, data: bytes = b"", blocking: Blocking = lambda *_: nullcontext()
) -> Reply:
    """Do the word that ``arguments`` begin with for the member ``by``; ``data`` is what ``-`` stands for.

    Never raises for what a user or etcd did wrong.
    """
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        text = overview()
        return Reply(out=text.encode()) if arguments else Reply(USAGE, err=text.encode())
    name = arguments[0]
    word = WORDS.get(name)
    if word is None:
        return _failed(USAGE, "testbed", f"no such word: {name!r}; one of {', '.join(WORDS)}, or --help")
    try:
        operands, options = _parse(word, arguments[1:])
        if "help" in options:
            return Reply(out=f"usage: testbed {word.synopsis}\n\n{word.summary}.\n{word.help}".encode())
        return word.do(Asked(operands, options, data, scope, by, blocking))
    except (Usage, BadKey) as error:
        return _failed(USAGE, f"testbed {name}", f"{error}\nusage: testbed {word.synopsis}")
    except TooLarge as error:
        return _failed(USAGE, f"testbed {name}", str(error))
    except WaitTimeout as error:
        return _failed(TIMED_OUT, f"testbed {name}", str(error))
    except Aborted as error:
        return _failed(ABORTED, f"testbed {name}", str(error))
    except Cancelled as error:
        return _failed(GONE, f"testbed {name}", str(error))
    except StoreError as error:
        return _failed(NO_ETCD, f"testbed {name}", f"the run's etcd cannot be asked: {error}")


def overview() -> str:
    """What ``testbed --help`` says on a node."""
    width = max(len(word.synopsis) for word in WORDS.values())
    lines = [f"  {word.synopsis.ljust(width)}  {word.summary}\n" for word in WORDS.values()]
    return (
        "usage: testbed WORD ...\n\nCoordinate with the other nodes of the run:\n"
        + "".join(lines)
        + "\nTimes are seconds, or like 500ms, 60s, 10m, 1h30m. `testbed WORD --help` says more.\n"
        "Exit codes: 0 done, 1 not set, 2 usage, 3 etcd cannot be reached, 4 time-out, 5 the run was aborted.\n"
    )


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def seconds(text: str) -> float:
    """The seconds that ``text`` (``90``, ``1.5``, ``500ms``, ``60s``, ``1h30m``) means; raises Usage."""
    if re.fullmatch(r"\d+(\.\d+)?", text, re.ASCII):
        return float(text)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", text, re.ASCII)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise Usage(f"not a time: {text!r}; like 60s, 10m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def _parse(word: Word, arguments: Sequence[str]) -> Tuple[List[str], Dict[str, str]]:
    parse = getopt.gnu_getopt if word.anywhere else getopt.getopt
    try:
        found, operands = parse(list(arguments), "h" + word.short, ["help", *word.long])
    except getopt.GetoptError as error:
        raise Usage(error.msg) from None
    aliases = {"-h": "help", **dict(word.aliases)}
    options = {aliases.get(name, name[2:]): value for name, value in found}
    least, most = word.counts
    if "help" not in options and not least <= len(operands) <= most:
        raise Usage("too few arguments" if len(operands) < least else f"too many arguments: {operands[most]!r}")
    return operands, options


def _failed(code: int, who: str, why: str) -> Reply:
    return Reply(code, err=f"{who}: {why}\n".encode("utf-8", "backslashreplace"))


def _set(asked: Asked) -> Reply:
    key, value = asked.operands
    asked.scope.set(key, asked.data if value == "-" else value.encode("utf-8", "surrogateescape"))
    return Reply()


def _get(asked: Asked) -> Reply:
    (key,) = asked.operands
    timeout = asked.timeout()
    if timeout is not None and "block" not in asked.options:
        raise Usage("--timeout goes with --block")
    value = asked.scope.get(key)
    if value is None and "block" in asked.options:
        with asked.blocking("get", [key], timeout) as cancelled:
            value = asked.scope.wait(key, timeout, cancelled)
    if value is None:
        return _failed(NOT_SET, "testbed get", f"{key} is not set")
    return Reply(out=value if value.endswith(b"\n") else value + b"\n")


def _abort(asked: Asked) -> Reply:
    return _raise(asked, ABORT, asked.options.get("reason") or f"`testbed abort` on {asked.by}")


def _finalise(asked: Asked) -> Reply:
    return _raise(asked, FINALISE, f"`testbed finalise` on {asked.by}")


def _raise(asked: Asked, name: str, why: str) -> Reply:
    flag = asked.scope.raise_flag(name, why)
    if (flag.by, flag.why) == (asked.by, why):
        return Reply()
    return Reply(err=f"testbed {name}: {flag.by} was first: {flag.why}\n".encode("utf-8", "backslashreplace"))


def _wait(asked: Asked) -> Reply:
    (what,) = asked.operands
    if what != FINALISE:
        raise Usage(f"cannot wait for {what!r}; only for {FINALISE}")
    timeout = asked.timeout()
    if asked.scope.flag(FINALISE) is None:
        with asked.blocking("wait", [FINALISE], timeout) as cancelled:
            asked.scope.wait_flag(FINALISE, timeout, cancelled)
    return Reply()


WORDS: Dict[str, Word] = {
    "set": Word(
        "set KEY VALUE|-",
        "set a value for all nodes; `-` takes it from standard input",
        _set,
        (2, 2),
        help="A value is any bytes, at most 1 MiB. What was set before is replaced.\n",
        anywhere=False,
    ),
    "get": Word(
        "get [-b|--block [-t|--timeout TIME]] KEY",
        "print a value; with --block wait until it is set",
        _get,
        (1, 1),
        "bt:",
        ("block", "timeout="),
        (("-b", "block"), ("-t", "timeout")),
        "Prints the value's bytes, and a line end if they do not end with one. Exit code 1 if it is not set.\n"
        "A wait ends with exit code 4 at its time-out and with 5 when the run is aborted.\n",
    ),
    "abort": Word(
        "abort [--reason TEXT]",
        "stop all nodes now; they finalise",
        _abort,
        (0, 0),
        long=("reason=",),
    ),
    "finalise": Word(
        "finalise",
        "let all nodes end what they are at, then finalise",
        _finalise,
        (0, 0),
    ),
    "wait": Word(
        "wait finalise [-t|--timeout TIME]",
        "wait until the run finalises",
        _wait,
        (1, 1),
        "t:",
        ("timeout=",),
        (("-t", "timeout"),),
    ),
}
"""Every word, in the order of the overview."""
