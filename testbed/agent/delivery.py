"""A node's results on their way home: packed, sent through etcd where they are small, and the workspace removed.

What does not go this way stays in the workspace until the controller comes for it over Ansible.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import time
from contextlib import suppress
from typing import Any, Dict, Optional

from testbed.agent import process
from testbed.agent.answer import Trouble
from testbed.agent.messages import Home, Lost, Message, Told
from testbed.agent.outbox import Outbox
from testbed.agent.plan import Plan
from testbed.agent.workspace import Workspace, delete, read_marker, read_packed
from testbed.coord.gateway import GatewayStore
from testbed.coord.keys import RunKeys
from testbed.coord.store import Delete, Put, Unavailable
from testbed.events import Notice

PACK_PATIENCE = 600.0
"""Seconds that packing the results may take; after that they are left to be packed when they are collected."""

LAST_WORD = 2.0
"""Seconds that the agent tries to say that it has gone."""

_FEW, _SMALL = 500, 1024 * 1024
"""Files and bytes up to which the agent packs by itself: a process of its own costs more than all of its work."""


class Delivery:
    """The end of one agent's work; its methods are called once each, in their order, by the agent's main thread."""

    def __init__(
        self,
        plan: Plan,
        workspace: Workspace,
        archive: str,
        store: GatewayStore,
        outbox: Outbox,
        inbox: queue.SimpleQueue[Message],
    ) -> None:
        self._plan, self._workspace, self._archive = plan, workspace, archive
        self._store, self._outbox, self._inbox = store, outbox, inbox
        self._keys = RunKeys(plan.run)

    def pack(self) -> Optional[Dict[str, Any]]:
        """Pack the results and give their summary; None where that failed, which is told."""
        why = "see the agent's log"
        try:
            summary = self._pack_here() if _is_small(self._workspace) else self._pack_apart()
        except (OSError, Trouble) as error:
            with suppress(OSError):  # the disk with the log on it may be what is full
                print(f"packing: {error}", file=sys.stderr, flush=True)  # noqa: T201  the agent's log
            summary, why = None, getattr(error, "strerror", None) or str(error)
        if summary is None:
            told = f"the results are not packed ({why}); collecting will try again"
            self._outbox.say(Notice, level="warning", message=told)
        elif summary["left_out"]:
            named = "; ".join(summary["left_out"][:5])
            count = len(summary["left_out"])
            self._outbox.say(Notice, level="warning", message=f"{count} files are not among the results: {named}")
        return summary

    def send(self, summary: Optional[Dict[str, Any]]) -> bool:
        """Send the results if they are small enough; whether they are."""
        if summary is None or summary["size"] > self._plan.delivery:
            return False
        with open(self._workspace.results, "rb") as file:
            self._outbox.send(Put(self._keys.results(self._plan.node), file.read()))
        return True

    def await_home(self) -> bool:
        """Wait until the controller has the results; False where it will come and fetch them, or cannot be heard."""
        until = time.monotonic() + self._plan.outage
        while True:
            try:
                message = self._inbox.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return False
            if isinstance(message, (Home, Told, Lost)):
                return isinstance(message, Home)

    def clear(self) -> None:
        """Remove the workspace and say so, the node's last word; raises Trouble where something stays."""
        made = read_marker(self._workspace)["made"]
        os.chdir("/")
        delete(self._workspace, made)
        self._store.client.patience = LAST_WORD
        node = self._plan.node
        with suppress(Unavailable):  # the controller may have heard it, and ended etcd before it could be answered
            self._store.commit([Put(self._keys.left(node), b""), Delete(self._keys.alive(node))])

    def _pack_here(self) -> Dict[str, Any]:
        from testbed.agent.pack import pack

        return pack(self._workspace)

    def _pack_apart(self) -> Optional[Dict[str, Any]]:
        """Pack by a process of its own, which takes its memory along when it ends."""
        ended: queue.SimpleQueue[int] = queue.SimpleQueue()
        command = [sys.executable, "-I", "-S", self._archive, "pack"]
        log = self._workspace.log
        main = process.launch(command, "/", os.environ, log, log, lambda _, code: ended.put(code))
        try:
            code = ended.get(timeout=PACK_PATIENCE)
        except queue.Empty:
            process.stop(lambda: process.find((main.pid,)), 0)
            code = -signal.SIGKILL
        main.poll()
        return None if code else read_packed(self._workspace)


def _is_small(workspace: Workspace) -> bool:
    """Whether logs and reports are few and small; links count as much, for what they lead to may be large."""
    count = size = 0
    for top in (workspace.logs, workspace.reports):
        for folder, folders, files in os.walk(top):
            for name in files + folders:
                found = os.lstat(os.path.join(folder, name))
                count += 1
                size += found.st_size if found.st_mode & 0o170000 != 0o120000 else _SMALL
            if count > _FEW or size > _SMALL:
                return False
    return True
