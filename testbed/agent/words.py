"""The command ``testbed`` as far as it coordinates: its words are done over a scope, and what goes wrong is answered.

The same on a node, where its agent does them, and on the controller.
"""

from __future__ import annotations

import getopt
from typing import Dict, List, Sequence, Tuple

from testbed.agent.vocabulary import WORDS
from testbed.agent.word import (
    ABORTED,
    GONE,
    NO_ETCD,
    NOBODY,
    NOT_SET,
    OK,
    TIMED_OUT,
    USAGE,
    Asked,
    Caller,
    Reply,
    Usage,
    Word,
    failed,
    seconds,
)
from testbed.coord.scope import Aborted, BadKey, Broken, Cancelled, Scope, WaitTimeout
from testbed.coord.store import Denied, StoreError, TooLarge

_CODES: Tuple[Tuple[type, int], ...] = (
    (TooLarge, USAGE),
    (Broken, NOT_SET),
    (WaitTimeout, TIMED_OUT),
    (Aborted, ABORTED),
    (Cancelled, GONE),
)


def run(arguments: Sequence[str], scope: Scope, caller: Caller = NOBODY) -> Reply:
    """Do the word that ``arguments`` begin with; never raises for what a user or etcd did wrong."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        text = overview()
        return Reply(out=text.encode()) if arguments else Reply(USAGE, err=text.encode())
    name = arguments[0]
    word = WORDS.get(name)
    if word is None:
        return failed(USAGE, "testbed", f"no such word: {name!r}; one of {', '.join(WORDS)}, or --help")
    try:
        operands, options = _parse(word, arguments[1:])
        if "help" in options:
            return Reply(out=f"usage: testbed {word.synopsis}\n\n{word.summary}.\n{word.help}".encode())
        return word.do(Asked(operands, options, scope, caller))
    except (Usage, BadKey) as error:
        return failed(USAGE, f"testbed {name}", f"{error}\nusage: testbed {word.synopsis}")
    except ValueError as error:  # what the members of a run disagree about
        return failed(USAGE, f"testbed {name}", str(error))
    except (TooLarge, Broken, WaitTimeout, Aborted, Cancelled) as error:
        code = next(code for kind, code in _CODES if isinstance(error, kind))
        return failed(code, f"testbed {name}", str(error))
    except Denied as error:
        return failed(NO_ETCD, f"testbed {name}", f"the run has shut this member out, or is over: {error}")
    except StoreError as error:
        return failed(NO_ETCD, f"testbed {name}", f"the run's etcd cannot be asked: {error}")


def overview() -> str:
    """What ``testbed --help`` says on a node."""
    lines = [f"  {word.synopsis}\n      {word.summary}\n" for word in WORDS.values()]
    return (
        "usage: testbed WORD ...\n\nCoordinate with the other nodes of the run:\n"
        + "".join(lines)
        + "\nTimes are seconds, or like 500ms, 60s, 10m, 1h30m. `testbed WORD --help` says more.\n"
        "Exit codes: 0 done, 1 not so, 2 usage, 3 etcd cannot be reached, 4 time-out, 5 the run was aborted.\n"
    )


def _parse(word: Word, arguments: Sequence[str]) -> Tuple[List[str], Dict[str, str]]:
    parse = getopt.gnu_getopt if word.anywhere else getopt.getopt
    try:
        found, operands = parse(list(arguments), "h" + word.short, ["help", *word.long])
    except getopt.GetoptError as error:
        raise Usage(error.msg) from None
    aliases = {"-h": "help", **dict(word.aliases)}
    options = {aliases.get(name, name[2:]): value for name, value in found}
    least, most = word.counts
    if "help" not in options and len(operands) < least:
        raise Usage("too few arguments")
    if "help" not in options and 0 <= most < len(operands):
        raise Usage(f"too many arguments: {operands[most]!r}")
    return operands, options


__all__ = [
    "ABORTED", "GONE", "NOT_SET", "NO_ETCD", "OK", "TIMED_OUT", "USAGE", "WORDS", "Caller", "Reply", "Usage", "Word",
    "overview", "run", "seconds",
]  # fmt: skip
