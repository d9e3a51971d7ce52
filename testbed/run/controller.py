"""A run from its plan to its verdict, as nested scopes: journal, etcd, Ansible; taken down whatever happens."""

from __future__ import annotations

import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

from testbed import __version__, events
from testbed.compile.plan import RunPlan, targets_of
from testbed.coord.feed import Feed
from testbed.coord.gateway import connect
from testbed.coord.keys import RunKeys
from testbed.coord.scope import Scope
from testbed.coord.sender import Sender
from testbed.coord.session import Session
from testbed.coord.store import Change, Put, Store, StoreError
from testbed.errors import LabError, TestbedError
from testbed.report.state import RunState, fold
from testbed.report.verdict import BUG, Judgement, judge
from testbed.run import watching
from testbed.run.bursts import AnsibleBursts, forks_for
from testbed.run.directory import RunDirectory
from testbed.run.executor import Executor
from testbed.run.freeze import Timing, freeze, write_inventory, write_starts
from testbed.run.journal import Journal, Listener
from testbed.run.loop import EtcdLost, Interruption, Loop
from testbed.run.outcome import write_outcome
from testbed.run.phases import Phases
from testbed.run.scopes import EtcdChoice, OpenScope, etcd_scope

CONTROLLER = "controller"
"""How the controller signs flags."""

WRITER = "-"
"""How the controller signs its events; no node is called so."""


@dataclass(frozen=True, slots=True)
class Request:
    """All that a run needs: the plan, the run's own inventory, Ansible's environment, where to coordinate."""

    plan: RunPlan
    inventory: dict[str, Any]
    ansible_environment: Mapping[str, str]
    etcd: EtcdChoice = field(default_factory=EtcdChoice)
    timing: Timing = field(default_factory=Timing)
    junit: Path | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run that is over, and judged."""

    directory: RunDirectory
    state: RunState
    judgement: Judgement


def execute(request: Request, directory: RunDirectory, listener: Listener) -> Outcome:
    """Do the run in its (new) directory; every event goes to ``listener`` as it happens.

    Returns also when the run failed. Raises `LabError` when etcd or Ansible can't be had at all, after the run
    directory says so too.
    """
    began = time.monotonic()
    plan = request.plan
    with Journal(directory.events, listener) as journal:
        try:
            _announce(journal, plan)
            freeze(directory, plan)
            _do(request, directory, journal, began)
        except TestbedError as error:
            journal.say(events.RunEnded, verdict=events.ERROR, exit_code=error.exit_code, reason=error.message,
                        duration=_since(began))  # fmt: skip
            raise
        except Exception as error:
            journal.say(events.RunEnded, verdict=events.ERROR, exit_code=BUG, reason=f"a bug in testbed: {error!r}",
                        duration=_since(began))  # fmt: skip
            raise
        finally:
            shutil.rmtree(directory.private, ignore_errors=True)
            with suppress(OSError):  # not there, or not empty: then the report says which results are missing
                directory.workspaces.rmdir()
        state = fold(journal.recorded)
    judgement = judge(state)
    write_outcome(directory, state, judgement, request.junit)
    return Outcome(directory, state, judgement)


def _announce(journal: Journal, plan: RunPlan) -> None:
    deployment = plan.deployment
    journal.say(
        events.RunStarted, run=plan.run, deployment=deployment.name, description=deployment.description,
        timeout=deployment.timeout, finalise=deployment.finalise, version=__version__,
    )  # fmt: skip
    for node in plan.nodes:
        journal.say(
            events.NodePlanned, node.node.name, index=node.node.index, machine=node.machine.name,
            address=node.address, configurations=list(node.node.configurations), targets=targets_of(node),
        )  # fmt: skip


def _do(request: Request, directory: RunDirectory, journal: Journal, began: float) -> None:
    """Everything between the plan and the last collected node."""
    plan = request.plan
    machines = {p.node.name: p.machine for p in plan.nodes}
    inventory = write_inventory(directory, plan, request.inventory)
    executor = AnsibleBursts(
        directory.playbooks, inventory, directory.path / "bursts", directory.private,
        request.ansible_environment, forks_for(len(plan.nodes)),
    )  # fmt: skip
    try:
        with etcd_scope(plan.run, machines, request.etcd, directory) as scope:
            write_starts(directory, plan, scope.nodes, plan.deployment.timeout, request.timing)
            _conduct(request, directory, journal, scope, executor, began)
    finally:
        executor.close()


def _conduct(
    request: Request, directory: RunDirectory, journal: Journal, scope: OpenScope, executor: Executor, began: float
) -> None:
    """The part in which nodes live: watch etcd, work the loop, judge; the controller's events go to etcd as well."""
    plan, timing = request.plan, request.timing
    keys = RunKeys(plan.run)
    store = connect(scope.controller, timing.outage)
    feed = Feed(store)
    phases = Phases(plan, directory, journal)
    loop = Loop(plan, phases, journal, store, Scope(store, plan.run, CONTROLLER, feed), executor, timing)

    def lose(reason: object) -> None:
        loop.inbox.put(EtcdLost(str(reason)))

    with ExitStack() as stack:
        stack.callback(store.close)
        stack.callback(feed.close)
        try:
            scope.on_lost(lose)
            session = Session(store, timing.liveness, lose)
            stack.callback(session.close)
            beginning = store.commit([Put(keys.controller, socket.gethostname().encode(), session.lease.id)]).revision
            _watch(plan, keys, feed, loop, beginning, lose)
        except StoreError as error:
            raise LabError(f"etcd failed: {error}", f"see etcd.log below {directory.path}") from error
        stack.enter_context(_mirror(journal, store, keys, lose))
        with _interruptions(loop):
            loop.run()
        _end(journal, began)
        if loop.etcd_lost:
            store.close()  # nothing more can be written there; nothing below waits for it


def _watch(plan: RunPlan, keys: RunKeys, feed: Feed, loop: Loop, revision: int, lose: Callable[[object], None]) -> None:
    """Have the loop told of all that nodes write from ``revision`` on."""
    names = frozenset(p.node.name for p in plan.nodes)

    def on_changes(changes: Sequence[Change]) -> None:
        for sighting in watching.sightings(keys, changes, names):
            loop.inbox.put(sighting)

    for span in watching.spans(keys, revision):
        feed.follow(span, on_changes, lose)


@contextmanager
def _mirror(journal: Journal, store: Store, keys: RunKeys, lose: Callable[[object], None]) -> Iterator[None]:
    """Send the controller's own events to etcd, so that a screen can attach from anywhere."""
    sender, numbers = Sender(store, lose), count()
    sender.start()
    journal.mirror(lambda event: sender.send(Put(keys.event(WRITER, next(numbers)), events.encode(event).encode())))
    try:
        yield
    finally:
        journal.mirror(None)
        sender.close()


@contextmanager
def _interruptions(loop: Loop) -> Iterator[None]:
    """Signals become messages of the loop while it runs; the third one ends the process as it would have."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before: dict[int, Any] = {}
    seen = 0

    def on_signal(number: int, _: FrameType | None) -> None:
        nonlocal seen
        seen += 1
        loop.inbox.put(Interruption(signal.Signals(number).name))
        if seen > 2:
            signal.signal(number, before[number])

    for number in wanted:
        before[number] = signal.signal(number, on_signal)
    try:
        yield
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)


def _end(journal: Journal, began: float) -> None:
    """Judge the run and say so; a crash while judging is a bug and never a pass."""
    judgement = judge(fold(journal.recorded))
    reason = judgement.first_cause.reason if judgement.first_cause else ""
    journal.say(
        events.RunEnded, verdict=judgement.verdict, exit_code=judgement.exit_code, reason=reason, duration=_since(began)
    )


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)
