"""What a node does right now, told when somebody asks: its step, its waits, and the last line of the step's log."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import Any, Callable, Dict, Optional, Tuple, Type

from testbed.agent.outbox import Outbox
from testbed.agent.waits import Waits
from testbed.agent.workspace import Workspace
from testbed.coord.keys import RunKeys
from testbed.coord.store import Put
from testbed.events import Event, StepEnded, StepStarted

_TAIL = 2048  # bytes of a log in which its last line is looked for
_LINE = 200  # characters of that line that are told


STILL = "still "
"""How a question begins whose answer says more, see docs/coordination.md."""


class Doing:
    """Follows the node's own events, and answers whoever asks over the outbox."""

    def __init__(self, workspace: Workspace, waits: Waits, outbox: Outbox, keys: RunKeys, node: str) -> None:
        self._workspace, self._waits, self._outbox, self._key = workspace, waits, outbox, keys.doing(node)
        self._step: Optional[Tuple[float, Dict[str, Any]]] = None
        self.still: Optional[Callable[[], Dict[str, Any]]] = None
        self.shown: Callable[[], int] = lambda: 0
        outbox.listen(self._hear)

    def answer(self, question: str) -> None:
        """Tell what the node does, as the answer to that question; after `STILL` also whether it could go on."""
        told: Dict[str, Any] = {"asked": question, "waits": self._waits.now()}
        if question.startswith(STILL) and self.still is not None:
            told.update(self.still())
            told["ran"] += f" {self.shown()}"  # nobody's output is cut short while somebody is still being shown it
        step = self._step
        if step is not None:
            began, fields = step
            told.update({name: fields[name] for name in ("configuration", "target", "step")})
            told["for"] = round(time.monotonic() - began, 1)
            told["line"] = self._last_line("{configuration}.{target}.{step}".format(**fields))
        self._outbox.send(Put(self._key, json.dumps(told).encode()))

    def _hear(self, kind: Type[Event], fields: Dict[str, Any]) -> None:
        if kind is StepStarted:
            self._step = (time.monotonic(), fields)
        elif kind is StepEnded:
            self._step = None

    def _last_line(self, name: str) -> str:
        """The last line that the step wrote, to whichever of its two logs it wrote last; empty where there is none."""
        found = []
        for suffix in (".out", ".err"):
            with suppress(OSError), open(os.path.join(self._workspace.logs, name + suffix), "rb") as log:
                state = os.fstat(log.fileno())
                log.seek(max(0, state.st_size - _TAIL))
                lines = log.read(_TAIL).split(b"\n")
                last = next((line for line in reversed(lines) if line.strip()), b"")
                found.append((bool(last), state.st_mtime_ns, last))
        return max(found)[2].decode("utf-8", "replace")[-_LINE:] if found else ""
