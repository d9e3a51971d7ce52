"""How a machine is spoken to over an Ansible connection: one command line out, one marked JSON line back (pure)."""

from __future__ import annotations

import json
import os
import random
import re
import select
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

COMMON = "-common.json"
"""What all nodes' plans share; no node's name begins with a dash."""

MARK = "TESTBED: "
"""What the line begins with that carries an answer; all else on stdout is noise (banners, become's chatter)."""

BURST = "TESTBED_BURST"
"""The environment variable that all processes of a burst on this machine have, but for what is the agent's own: it is
not stopped with Ansible."""

GATE = "TESTBED_GATE"
"""The environment variable that names the pipe from which a START reads before it starts anything; often not set."""

THREADS = "TESTBED_THREADS"
"""The environment variable that tells how many machines a START works on at once if it need not fork; often not set."""

_SERIES = ("2.19.", "2.20.", "2.21.")


def is_known(ansible: str) -> bool:
    """Whether the inner parts of that version of ansible-core have been tried with what our plugins do to them."""
    return ansible.startswith(_SERIES)


def pass_gate(gate: str) -> bool:
    """Wait until the controller writes into the named pipe ``gate``; False where it holds that open no more.

    Opening does not wait: of a controller that was killed before, nobody would ever come. Nor is an end of file that
    came before the opening told by `select` (Linux, fifo(7)): so it is read first.
    """
    pipe = os.open(gate, os.O_RDONLY | os.O_NONBLOCK)
    try:
        try:
            return bool(os.read(pipe, 1))
        except BlockingIOError:
            select.select([pipe], [], [])
            return bool(os.read(pipe, 1))
    finally:
        os.close(pipe)


_TURNED_AWAY = re.compile(r"(?:kex|ssh)_exchange_identification|Data could not be sent .* can be reached over SSH\b")
_BEYOND = re.compile(r"open failed|stdio forwarding failed|refused|timed out|[nN]o route|unreachable")


def turned_away(said: str) -> bool:
    """Whether a server ended the connection before it said who it is, as one does that has too many; or may have.

    (sshd_config(5), MaxStartups.) Nothing was done then. Behind a jump host it can also be that the machine itself is
    out of reach; then there is more in what ``ssh`` tells. Where ``ssh`` is about to end, and what it tells has not
    come yet, Ansible knows only that it takes no more data: so what was sent is not whole, and is not used.
    """
    return bool(_TURNED_AWAY.search(said)) and not _BEYOND.search(said)


def pauses() -> Iterator[float]:
    """Seconds between attempts, about half a minute in all; no two who were turned away come back together."""
    for longest in (0.25, 0.5, 1.0, 2.0, *(4.0,) * 8):
        yield random.uniform(longest / 2, longest)  # noqa: S311  no secret


def persist(do: Callable[[], T], failure: type[Exception], waits: Callable[[], Iterator[float]] = pauses) -> T:
    """Do what needs a connection; again after a while where it raises ``failure`` as the server turned it away."""
    for pause in waits():
        try:
            return do()
        except failure as error:
            if not turned_away(str(error)):
                raise
        time.sleep(pause)  # a server tells nobody when it has room again
    return do()


INTERPRETERS = (
    "python3",
    *(f"python3.{minor}" for minor in range(15, 7, -1)),
    "/usr/bin/python3",
    "/usr/local/bin/python3",
    "/usr/libexec/platform-python",
)
"""Where a Python is looked for when the inventory names none."""

_UNMARK = f"unset TESTBED_RUN TESTBED_NODE {BURST}; "
# Processes of a run are known by these two, and what is started here belongs to nobody's step, even if one starts it.


def _no_python(named: str) -> str:
    reason = f"{named} is no Python 3.8 or newer, or not there" if named else "no Python 3.8 or newer was found"
    return MARK + json.dumps({"ok": False, "cause": "no_python", "reason": reason})


def python_command(arguments: str, interpreter: str = "") -> str:
    """A shell command that runs the machine's Python with ``arguments`` (quoted already).

    ``interpreter`` is the inventory's ``ansible_python_interpreter``; where it is empty or one of Ansible's ``auto``
    words the usual names are tried in turn. A machine without Python answers with cause ``no_python``. A Python that
    shows a version that will do in its file's name is not started just to be asked for it.
    """
    named = "" if interpreter.startswith("auto") else interpreter
    candidates = (named,) if named else INTERPRETERS
    words = " ".join(shlex.quote(c) for c in candidates)
    check = shlex.quote("import sys; sys.exit(sys.version_info < (3, 8))")
    return (
        f"{_UNMARK}p=; for c in {words}; do "
        f'f=$(command -v "$c") && [ -x "$f" ] || continue; '
        f'case $(readlink -f "$f" 2>/dev/null) in *python3.[89]|*python3.1[0-9]) p="$c"; break;; esac; '
        f'if "$c" -ISc {check} 2>/dev/null; then p="$c"; break; fi; done; '
        f'if [ -z "$p" ]; then echo {shlex.quote(_no_python(named))}; exit 1; fi; exec "$p" -I -S {arguments}'
    )


def agent_command(workspace: str, words: str, interpreter: str = "") -> str:
    """A shell command that runs the agent's archive in ``workspace`` with ``words`` (quoted already)."""
    folder = quote_path(workspace)
    gone = shlex.quote(MARK + json.dumps({"ok": False, "cause": "gone", "reason": f"no agent in {workspace}"}))
    return (
        f"a=; for f in {folder}/.testbed/agent-*.pyz; do a=$f; done; "
        f'if [ ! -f "$a" ]; then echo {gone}; exit 1; fi; ' + python_command(f'"$a" {words}', interpreter)
    )


def quote_path(path: str) -> str:
    """``path`` for a shell, a leading ``~`` left for the shell to expand."""
    if path == "~":
        return path
    if path.startswith("~/"):  # quoted, the slash would keep the shell from expanding what stands before it
        return "~/" + shlex.quote(path[2:])
    return shlex.quote(path)


def parse_answer(stdout: str) -> tuple[dict[str, Any], str] | None:
    """The marked JSON object in ``stdout`` and what follows its line; None where there is none."""
    start = stdout.find(MARK)
    if start < 0:
        return None
    line, _, rest = stdout[start + len(MARK) :].partition("\n")
    try:
        answer = json.loads(line)
    except ValueError:
        return None
    return (answer, rest) if isinstance(answer, dict) else None


def read_start(private: Path, node: str) -> tuple[str, str, bytes]:
    """What ``node`` is sent at its start: its plan as JSON, its workspace, its staged files as a tar.gz or nothing.

    ``private`` is the run's private folder, as `testbed.run.freeze.write_starts` left it.
    """
    common = json.loads((private / "starts" / COMMON).read_text(encoding="utf-8"))
    start = json.loads((private / "starts" / f"{node}.json").read_text(encoding="utf-8"))
    files = (private / "files" / f"{start['files']}.tar.gz").read_bytes() if start["files"] else b""
    return json.dumps({**common, **start["plan"]}), start["workspace"], files


_CHECK = """
import os, shutil, socket, sys
told = {"ok": True, "python": sys.version.split()[0]}
folder = os.path.join(os.path.expanduser("~"), os.path.expanduser(asked["root"]))
while not os.path.isdir(folder):
    folder = os.path.dirname(folder)
told["folder"] = folder
told["free"] = shutil.disk_usage(folder).free
told["writable"] = os.access(folder, os.W_OK)
told["noexec"] = bool(os.statvfs(folder).f_flag & os.ST_NOEXEC)
try:
    socket.create_connection(asked["endpoint"], 10).close()
    told["etcd"] = ""
except OSError as error:
    told["etcd"] = str(error)
print("TESTBED: " + json.dumps(told))
"""


def check(root: str, endpoint: Sequence[Any]) -> bytes:
    """What a machine is asked by ``testbed doctor``: its Python, the room in ``root``, the way to etcd (host, port).

    A program for a Python's stdin: what a START sends goes there too, and a C shell takes no lines in a command.
    """
    asked = json.dumps({"root": root, "endpoint": list(endpoint)})
    return f"import json\nasked = json.loads({asked!r}){_CHECK}".encode()
