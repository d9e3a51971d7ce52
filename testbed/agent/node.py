"""An agent from its first word to etcd to its last: everything a node needs is made here, joined, and taken down."""

from __future__ import annotations

import gc
import json
import os
import queue
import signal
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import IO, TYPE_CHECKING, Any, Callable, Dict, List, Optional, Sequence

from testbed.agent import environment
from testbed.agent.answer import BUSY, ETCD, Trouble
from testbed.agent.delivery import Delivery
from testbed.agent.doing import Doing
from testbed.agent.endpoint import NAME as ENDPOINT
from testbed.agent.endpoint import Call, Endpoint
from testbed.agent.lifecycle import Lifecycle
from testbed.agent.messages import Flagged, Home, Lost, Message, Served, Told
from testbed.agent.outbox import Outbox
from testbed.agent.plan import Plan
from testbed.agent.start import PATIENCE
from testbed.agent.waits import Waits
from testbed.agent.word import ABORTED, Caller, Reply
from testbed.agent.workspace import Workspace
from testbed.coord.feed import Feed
from testbed.coord.gateway import GatewayStore
from testbed.coord.keys import RunKeys, end_of
from testbed.coord.scope import Cancel, Scope, read_flag
from testbed.coord.session import Session
from testbed.coord.store import Change, Lease, Put, Span, Store, StoreError, Unchanged
from testbed.coord.wire import Client
from testbed.events import ABORT, FINALISE, UNREADABLE, NodeEnded, NodeStarted, Notice, ValueSet

if TYPE_CHECKING:  # loaded when somebody peeks for the first time
    from testbed.agent.peek import Peeks

LAST_WORDS = 5.0
"""Seconds that etcd may take for the last words of an agent that was told to end."""

LAST_LOOK = 1.0
"""Seconds that the end of a node may wait for what those who peek at it have still to be shown."""


def serve(plan: Plan, workspace: Workspace, archive: str, go: int, told: IO[bytes]) -> int:
    """Be the node's agent: join the run, say so on ``told``, live, and end; gives the process's exit code.

    Nothing of the run begins before a byte comes on ``go``; when that closes without one the agent ends. Raises Trouble
    where the run cannot be joined.
    """
    started = time.monotonic()
    inbox: queue.SimpleQueue[Message] = queue.SimpleQueue()
    node = Node(plan, workspace, archive, inbox)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda n, _: node.tell(signal.Signals(n).name))
    environment.furnish(plan, workspace)
    try:
        try:
            joined = node.join(go)
        except StoreError as error:
            places = ", ".join(plan.access.endpoints)
            advice = f"let this machine reach {places}: mind firewalls, or name another address with --etcd-advertise"
            raise Trouble(ETCD, str(error), advice) from error
        if joined:
            told.write(json.dumps({"ok": True, **node.identity}).encode())
            told.close()
            gc.enable()
            node.live(started)
    finally:
        node.leave()
    return 0 if joined else 1


class _Telling(Scope):
    """The node's scope; that it set a value is an event, so that others can tell who released whom."""

    def __init__(
        self, store: Store, plan: Plan, feed: Feed, outbox: Outbox, lease: Callable[[], int], waits: Waits
    ) -> None:
        super().__init__(store, plan.run, plan.node, feed, nodes=plan.peers, lease=lease, board=waits)
        self._outbox = outbox

    def set(self, key: str, value: bytes) -> None:
        super().set(key, value)
        self._outbox.say(ValueSet, key=key, size=len(value))


class _Hurried(Exception):
    """A signal has come while the last words are on their way."""


class Node:
    """The parts of an agent and how they are joined."""

    def __init__(self, plan: Plan, workspace: Workspace, archive: str, inbox: queue.SimpleQueue[Message]) -> None:
        self._plan, self._workspace, self._archive, self._inbox = plan, workspace, archive, inbox
        self._keys = RunKeys(plan.run)
        access = plan.access
        self._client = Client(
            access.endpoints, access.user, access.password, access.ca, access.certificate, access.key,
            patience=min(PATIENCE, plan.outage),
        )  # fmt: skip
        self._store = GatewayStore(self._client)
        self._feed = Feed(self._store)
        self._outbox = Outbox(
            self._store, self._keys, plan.node, workspace.journal, lambda why: inbox.put(Lost(why)), workspace.logs
        )
        self._waits = Waits(self._outbox, self._keys, plan.node)
        self._doing = Doing(workspace, self._waits, self._outbox, self._keys, plan.node)
        self._scope = _Telling(self._store, plan, self._feed, self._outbox, self._lease, self._waits)
        self._session: Optional[Session] = None
        self._peeks: Optional[Peeks] = None
        self._learning = threading.Lock()  # older Pythons give one thread what another has half imported from a zip
        self._told = self._patient = False
        self._cleared = False
        self.identity: Dict[str, Any] = {
            "host": os.uname().nodename,
            "pid": os.getpid(),
            "workspace": workspace.path,
            "python": "{}.{}.{}".format(*sys.version_info),
        }

    def join(self, go: int) -> bool:
        """Reach etcd, wait for the word to go, and take the node's place in the run; False if the word does not come.

        Raises StoreError, and Trouble where another agent has taken the place.
        """
        self._session = Session(self._store, self._plan.liveness, self._lose, self._renew)
        if not os.read(go, 1):
            return False
        os.close(go)
        first = self._keys.event(self._plan.node, 0)
        if self._store.range(first).entries:
            raise self._taken()
        flags = self._store.range(self._keys.flags, end_of(self._keys.flags))
        for entry in flags.entries:
            self._hear_flags((Change(entry.key, entry.value, entry.revision),))
        began = self._outbox.record(NodeStarted, **self.identity)
        host = Put(self._keys.value(f"host_{self._plan.index}"), self._address().encode())
        committed = self._store.commit([host, self._alive(), began], [Unchanged(first)])
        if not committed.succeeded and committed.found[0].value != began.value:
            raise self._taken()
        self._client.patience = self._plan.outage
        told, since = self._keys.told(self._plan.node), flags.revision + 1
        wanted = (
            (Span(self._keys.flags, end_of(self._keys.flags), since), self._hear_flags),
            (Span(told, end_of(told), since), self._hear_told),
        )
        self._feed.follow_all(wanted, self._lose)
        return True

    def live(self, started: float) -> None:
        """Go through the plan, pack the results, and tell the end; ``started`` is the agent's monotonic beginning."""
        for name in (self._workspace.results, self._workspace.summary):  # of an agent that lived here before
            with suppress(FileNotFoundError):
                os.unlink(name)
        self._outbox.start()
        os.chdir(self._workspace.own())
        endpoint = Endpoint(self._answer)
        os.chdir(self._workspace.path)
        endpoint.start()
        env = environment.common(self._plan, self._workspace, self._archive)
        lifecycle = Lifecycle(
            self._plan, self._workspace, env, self._inbox, self._outbox, self._waits, self._raise_flag,
            lambda key, cancel: self._scope.wait(key, None, cancel), started,
        )  # fmt: skip
        self._doing.still = lifecycle.stillness
        verdict, reason = lifecycle.run()
        endpoint.close()
        os.unlink(self._workspace.own(ENDPOINT))
        self._waits.end_all("gone")
        gone = json.dumps({"why": f"has ended ({verdict})", "excused": False})
        self._outbox.send(Put(self._keys.gone + self._plan.node, gone.encode()))
        ended = self._outbox.record(NodeEnded, verdict=verdict, reason=reason)
        delivery = Delivery(self._plan, self._workspace, self._archive, self._store, self._outbox, self._inbox)
        packed = delivery.pack()
        if self._peeks is not None:
            self._peeks.finish(LAST_LOOK)
        sent = lifecycle.heard and delivery.send(packed)
        self._outbox.send(ended)
        if not self._say_last_words():
            self._store.close()  # all of it is in the results, for which somebody waits
        elif sent and delivery.await_home():
            delivery.clear()
            self._cleared = True

    def tell(self, sent: str) -> None:
        """Somebody on the machine wants the agent to end; ``sent`` is the signal's name. Called by its handler."""
        self._told = True
        self._inbox.put(Told(sent))
        if self._patient:
            raise _Hurried

    def _say_last_words(self) -> bool:
        """Send what is still to be sent: patiently, but for a moment only once somebody waits for the agent's end."""
        try:
            self._patient = True
            if not self._told:
                return self._outbox.close()
        except _Hurried:
            pass
        finally:
            self._patient = False
        return self._outbox.close(LAST_WORDS)

    def leave(self) -> None:
        """Give up the node's lease and all connections."""
        if self._session is not None:
            self._session.close(revoke=not self._cleared)
        self._feed.close()
        self._store.close()

    def _address(self) -> str:
        return next((p.address for p in self._plan.peers if p.index == self._plan.index), "")

    def _alive(self) -> Put:
        assert self._session is not None  # noqa: S101  made first
        value = json.dumps({"host": self.identity["host"], "pid": self.identity["pid"]})
        return Put(self._keys.alive(self._plan.node), value.encode(), self._session.lease.id)

    def _lease(self) -> int:
        assert self._session is not None  # noqa: S101  made first
        return self._session.lease.id

    def _renew(self, lease: Lease) -> None:
        self._store.commit([replace(self._alive(), lease=lease.id)])

    def _taken(self) -> Trouble:
        reason = f"node {self._plan.node} of run {self._plan.run} was started before"
        return Trouble(BUSY, reason, "a node can be started once in a run; start a new run")

    def _lose(self, error: StoreError) -> None:
        self._inbox.put(Lost(error))

    def _hear_flags(self, changes: Sequence[Change]) -> None:
        for change in changes:
            name = change.key[len(self._keys.flags) :]
            if change.value is not None and name in (ABORT, FINALISE):
                flag = read_flag(name, change.value)
                self._inbox.put(Flagged(name, flag.by, flag.why))

    def _hear_told(self, changes: Sequence[Change]) -> None:
        asks = self._keys.asks(self._plan.node)
        asked = [change for change in changes if change.key.startswith(asks)]
        if asked:
            self._show(asked)
        for change in changes:
            if change.key == self._keys.home(self._plan.node):
                self._inbox.put(Home())
            elif change.key == self._keys.asked(self._plan.node) and change.value is not None:
                self._doing.answer(change.value.decode("ascii", "replace"))
            elif change.key == self._keys.served(self._plan.node) and change.value is not None:
                try:
                    told = json.loads(change.value)
                    self._inbox.put(Served(int(told["serial"]), str(told["verdict"]), str(told["reason"])))
                except UNREADABLE as error:
                    print(f"passed over {change.key}: {error!r}", file=sys.stderr)  # noqa: T201  the agent's log

    def _show(self, asked: Sequence[Change]) -> None:
        """Let those who peek see; the run goes on whatever becomes of that."""
        try:
            if self._peeks is None:
                from testbed.agent.peek import Peeks

                self._peeks = Peeks(self._plan, self._workspace, self._store)
                self._doing.shown = self._peeks.shown
            self._peeks.hear(asked)
        except Exception:  # noqa: BLE001  this is the thread that hears the run's flags
            import traceback

            traceback.print_exc()

    def _raise_flag(self, name: str, why: str, cause: Dict[str, Any]) -> None:
        """After all that was said before it, so that the cause is read before the flag."""
        self._outbox.send(lambda: self._scope.raise_flag(name, why, cause))

    def _answer(self, call: Call) -> Reply:
        """Do the word that a command asks for; on the call's own thread."""
        cancel = Cancel()
        call.listen(cancel.fire)
        caller = Caller(call.data, cancel, call.emit, partial(self._run_held, call))
        try:
            with self._learning:
                from testbed.agent.words import run  # not every node's scripts speak, and an agent's start counts

                if sys.version_info < (3, 10):
                    from testbed.coord import barriers, explain, locks, sequences, services, streams  # noqa: F401
            with self._waits.on_behalf(call.caller):
                reply = run(call.arguments, self._scope, caller)
        except Exception:  # noqa: BLE001  the command must hear something, and the agent go on
            import traceback

            traceback.print_exc()
            return Reply(70, err=b"testbed: the agent failed at this; see agent.log\n")
        if call.let_go and reply.err:  # of a lock that was lost; its command is not there to say it any more
            self._outbox.say(Notice, level="warning", message=reply.err.decode("utf-8", "replace").strip())
        if reply.code == ABORTED:
            self._heed_abort()
        return reply

    def _heed_abort(self) -> None:
        """Have the node stop for the abort that a command is about to be told of.

        A wait that has just begun reads the flags, and may be ahead of the watch: its step, which ends with the
        command, would be taken for one that failed by itself.
        """
        with suppress(StoreError):  # that etcd is lost is told on its own
            flag = self._scope.flag(ABORT)
            if flag is not None:
                self._inbox.put(Flagged(ABORT, flag.by, flag.why))

    def _run_held(self, call: Call, _command: List[str], token: int) -> int:
        """Have the command that asked become the one that it was given, and wait for its end."""
        call.let_run(token)
        return 0
