"""The agent's own commands, given to its archive: start, stop, collect, remove, pack; each answers in one line."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Dict, List, Optional

from testbed.agent.answer import BUG, Trouble, say, trouble_of
from testbed.agent.workspace import Workspace, of_archive


def main() -> int:
    """Do the command that the arguments name; its answer goes to stdout, the exit code is 0 or 1."""
    archive, *words = sys.argv
    try:
        answer = _do(os.path.abspath(archive), words)
    except Trouble as trouble:
        answer = trouble.as_answer()
    except OSError as error:
        answer = trouble_of(error, f"cannot {words[0]}").as_answer()
    except Exception as error:  # noqa: BLE001  the far end reads one line, not a traceback
        import traceback

        traceback.print_exc()
        answer = Trouble(BUG, f"{type(error).__name__}: {error}").as_answer()
    if answer is None:
        return 0
    say(answer)
    return 0 if answer["ok"] else 1


def _do(archive: str, words: List[str]) -> Optional[Dict[str, Any]]:
    command, arguments = (words[0], words[1:]) if words else ("", [])
    if command == "start":
        from testbed.agent.start import Header, start

        return {"ok": True, **start(Header(**json.loads(arguments[0])), archive)}
    if command == "pack":
        from testbed.agent.pack import pack

        return {"ok": True, **pack(of_archive(archive))}
    if command in ("stop", "collect", "remove"):
        return _do_after(command, arguments, of_archive(archive))
    raise Trouble(BUG, f"no such command: {command!r}")


def _do_after(command: str, arguments: List[str], workspace: Workspace) -> Optional[Dict[str, Any]]:
    from testbed.agent import after

    if command == "collect":
        wait = arguments[0] == "--wait"
        offset, length = (int(a) for a in arguments[1 if wait else 0 :])
        after.collect(workspace, offset, length, wait)
        return None
    return after.stop(workspace) if command == "stop" else after.remove(workspace)


if __name__ == "__main__":
    raise SystemExit(main())
