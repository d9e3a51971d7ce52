"""A run from its plan to its verdict, as nested scopes: journal, etcd, Ansible; taken down whatever happens."""

from __future__ import annotations

import shlex
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from testbed import __version__, events
from testbed.compile.plan import RunPlan, targets_of
from testbed.coord.feed import Feed
from testbed.coord.gateway import connect
from testbed.coord.keys import RunKeys, end_of
from testbed.coord.scope import Scope
from testbed.coord.sender import Once, Sender
from testbed.coord.session import Session
from testbed.coord.store import Change, Lease, Put, Span, Store, StoreError
from testbed.errors import SURROUNDINGS, Interrupted, LabError, TestbedError
from testbed.etcd.choice import EtcdChoice
from testbed.report.lastwords import complete
from testbed.report.state import RunState, fold
from testbed.report.verdict import BUG, Judgement, judge
from testbed.run import watching
from testbed.run.bursts import AnsibleBursts, forks_for
from testbed.run.byhand import ByHand
from testbed.run.directory import RunDirectory
from testbed.run.executor import Burst, Executor
from testbed.run.freeze import Timing, freeze, unlink_spec_folder, write_inventory, write_private, write_starts
from testbed.run.interruptions import Interruptions
from testbed.run.journal import Journal, Listener
from testbed.run.loop import Loop
from testbed.run.messages import EtcdLost
from testbed.run.outcome import write_outcome
from testbed.run.phases import Phases
from testbed.run.scopes import OpenScope, etcd_scope

CONTROLLER = "controller"
"""How the controller signs flags."""

WRITER = "-"
"""How the controller signs its events; no node is called so."""


DELIVERY = 64 * 1024
"""Bytes of results that a node may send through the run's own etcd instead of waiting to be fetched over Ansible."""


@dataclass(frozen=True, slots=True)
class Request:
    """All that a run needs: the plan, the run's own inventory, Ansible's environment, where to coordinate."""

    plan: RunPlan
    inventory: dict[str, Any]
    ansible_environment: Mapping[str, str]
    etcd: EtcdChoice = field(default_factory=EtcdChoice)
    timing: Timing = field(default_factory=Timing)
    junit: Path | None = None
    by_hand: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run that is over, and judged; ``warnings`` tell which files of users are not in the report, and why.

    ``unwritten`` is why reports of it are not in its directory, or the JUnit file not where it was wanted.
    """

    directory: RunDirectory
    state: RunState
    judgement: Judgement
    warnings: tuple[str, ...] = ()
    unwritten: LabError | None = None


def execute(request: Request, directory: RunDirectory, listener: Listener) -> Outcome:
    """Do the run in its (new) directory; every event goes to ``listener`` as it happens.

    Returns also when the run failed or was interrupted. Raises `LabError` where etcd, Ansible or room on the disk can't
    be had, and what nobody foresaw as it is: after what could be was brought home, and the run directory says so too.
    """
    began = time.monotonic()
    with Interruptions() as interruptions:
        with Journal(directory.events, listener) as journal:
            _go_through(request, directory, journal, began, interruptions)
            state = fold(journal.recorded)
        judgement = complete(judge(state), directory.nodes)
        try:
            warnings = write_outcome(directory, state, judgement, request.junit)
        except LabError as error:
            return Outcome(directory, state, judgement, unwritten=error)
    return Outcome(directory, state, judgement, tuple(warnings))


def _go_through(
    request: Request, directory: RunDirectory, journal: Journal, began: float, interruptions: Interruptions
) -> None:
    """All of the run but its reports, which a failure gets here too; every end of it is in the journal afterwards."""
    try:
        _announce(journal, request.plan)
        freeze(directory, request.plan)
        _do(request, directory, journal, began, interruptions)
    except Interrupted as error:
        journal.say(events.FlagRaised, flag=events.ABORT, by=CONTROLLER, why=error.message,
                    cause={"verdict": events.CANCELLED})  # fmt: skip
        _end(journal, directory, began)
    except Exception as error:
        failure = _in_our_words(error, directory)
        _record_failure(journal, failure, began)
        _write_outcome_all_the_same(directory, journal, request.junit)
        if failure is error:
            raise
        raise failure from error
    finally:
        interruptions.over()
        _remove_private(directory)
        with suppress(OSError):  # they are in nobody's way here
            unlink_spec_folder(directory)


def _in_our_words(error: Exception, directory: RunDirectory) -> Exception:
    """The error, or the one that tells a person what the system refused."""
    if isinstance(error, OSError) and error.errno in SURROUNDINGS:
        return LabError(
            f"the run could not go on: {error.strerror}: {error.filename or f'a file in {directory.path}'}",
            "make room, or choose another place with --run-dir or TESTBED_STATE_HOME",
        )
    return error


def _record_failure(journal: Journal, failure: Exception, began: float) -> None:
    """Make the failure the run's end, if that can be written at all."""
    code, reason = BUG, f"a bug in testbed: {failure!r}"
    if isinstance(failure, TestbedError):
        code, reason = failure.exit_code, failure.message
    with suppress(OSError):  # the failure itself tells of it
        journal.say(events.RunEnded, verdict=events.ERROR, exit_code=code, reason=reason, duration=_since(began))


def _write_outcome_all_the_same(directory: RunDirectory, journal: Journal, junit: Path | None) -> None:
    """Write the reports of a run that failed by itself, as far as they can be; the failure is told anyway."""
    with suppress(LabError):
        state = fold(journal.recorded)
        write_outcome(directory, state, complete(judge(state), directory.nodes), junit)


def _remove_private(directory: RunDirectory) -> None:
    shutil.rmtree(directory.private, ignore_errors=True)
    with suppress(OSError):  # not there, or not empty: then the report says which results are missing
        directory.workspaces.rmdir()


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


def _do(
    request: Request, directory: RunDirectory, journal: Journal, began: float, interruptions: Interruptions
) -> None:
    """Everything between the plan and the last collected node."""
    plan = request.plan
    machines = {p.node.name: p.machine for p in plan.nodes}
    inventory = write_inventory(directory, plan, request.inventory)
    bursts = AnsibleBursts(
        directory.playbooks, inventory, directory.path / "bursts", directory.private,
        request.ansible_environment, forks_for(len(plan.nodes)),
    )  # fmt: skip
    executor: Executor = bursts
    try:
        if request.by_hand:
            executor = ByHand(bursts, _write_by_hand(request, directory), partial(_tell_by_hand, journal))
        else:
            bursts.foresee(Burst(1, events.START, tuple(machines)))
        with etcd_scope(plan.run, machines, request.etcd, directory, partial(_notice, journal)) as scope:
            # A lab's cluster keeps its history long after the run: results have no place there.
            delivery = 0 if request.etcd.cluster else DELIVERY
            write_starts(directory, plan, scope.nodes, request.timing, delivery)
            _conduct(request, directory, journal, scope, executor, began, interruptions)
    finally:
        executor.close()


def _write_by_hand(request: Request, directory: RunDirectory) -> Path:
    """Write the script that runs a node's playbook: ``by-hand NODE [OPTION ...]``, options being ansible-playbook's."""
    settings = [f"{name}={value}" for name, value in request.ansible_environment.items()]
    program = Path(sys.executable).parent / "ansible-playbook"
    words = ["env", *settings, str(program), "-i", str(directory.private / "inventory.json")]
    script = directory.private / "by-hand"
    write_private(
        script,
        "#!/bin/sh\n"
        "# by-hand NODE [OPTION ...]: run the node's playbook with the options of ansible-playbook.\n"
        f'node=$1; shift\nexec {shlex.join(words)} "$@" {shlex.quote(str(directory.playbooks))}/"$node".yml\n',
    )
    script.chmod(0o700)
    return script


def _tell_by_hand(journal: Journal, node: str, message: str) -> None:
    journal.say(events.Notice, node, level="info", message=message)


def _notice(journal: Journal, message: str) -> None:
    journal.say(events.Notice, level="warning", message=message)


def _conduct(
    request: Request, directory: RunDirectory, journal: Journal, scope: OpenScope, executor: Executor, began: float,
    interruptions: Interruptions,
) -> None:  # fmt: skip
    """The part in which nodes live: watch etcd, work the loop, judge; the controller's events go to etcd as well."""
    plan, timing = request.plan, request.timing
    keys = RunKeys(plan.run)
    store = connect(scope.controller, timing.outage)
    feed = Feed(store)
    phases = Phases(plan, directory, journal)

    def was_away() -> bool:
        return session.store_was_away()

    view = Scope(store, plan.run, CONTROLLER, feed)
    loop = Loop(
        plan, phases, journal, store, view, executor, timing, scope.expel, was_away
    )  # fmt: skip

    def lose(reason: object) -> None:
        loop.inbox.put(EtcdLost(str(reason)))

    def on_server_lost(reason: str) -> None:
        lose(reason)
        store.close()  # whoever waits for its answer need not be patient

    def appear(lease: Lease) -> int:
        return store.commit([Put(keys.controller, socket.gethostname().encode(), lease.id)]).revision

    def reappear(lease: Lease) -> None:
        appear(lease)

    with ExitStack() as stack:
        stack.callback(store.close)
        stack.callback(feed.close)
        try:
            scope.on_lost(on_server_lost)
            session = Session(store, timing.liveness, lose, reappear)
            stack.callback(session.close)
            beginning = appear(session.lease)
            _watch(plan, keys, feed, loop, beginning, lose)
            _forget_output(keys, feed, scope, beginning, lose)
        except StoreError as error:
            raise LabError(f"etcd failed: {error}", "see etcd.log in the run directory") from error
        stack.enter_context(_mirror(journal, store, keys, lose))
        with interruptions.to(loop.interrupt):
            _see_through(loop)
        _end(journal, directory, began)
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


def _forget_output(keys: RunKeys, feed: Feed, scope: OpenScope, revision: int, lose: Callable[[object], None]) -> None:
    """Have etcd forget the output that was looked at, whenever a node says that it has become much."""

    def on_streamed(changes: Sequence[Change]) -> None:
        scope.forget(changes[-1].revision)

    feed.follow(Span(keys.all_streamed, end_of(keys.all_streamed), revision), on_streamed, lose)


@contextmanager
def _mirror(journal: Journal, store: Store, keys: RunKeys, lose: Callable[[object], None]) -> Iterator[None]:
    """Send the controller's own events to etcd, so that a screen can attach from anywhere."""
    sender, numbers = Sender(store, lose), count()
    sender.start()
    journal.mirror(lambda event: sender.send(Once(keys.event(WRITER, next(numbers)), events.encode(event).encode())))
    try:
        yield
    finally:
        journal.mirror(None)
        sender.close()


def _see_through(loop: Loop) -> None:
    """Run the loop; if it fails, see to it that its nodes finalise and come home, then let it fail."""
    try:
        loop.run()
    except Exception as error:
        for trouble in loop.rescue(repr(error)):
            error.add_note(f"and in bringing the nodes home: {trouble!r}")
        raise


def _end(journal: Journal, directory: RunDirectory, began: float) -> None:
    """Judge the run and say so; a crash while judging is a bug and never a pass."""
    judgement = complete(judge(fold(journal.recorded)), directory.nodes)
    reason = judgement.first_cause.reason if judgement.first_cause else ""
    journal.say(
        events.RunEnded, verdict=judgement.verdict, exit_code=judgement.exit_code, reason=reason, duration=_since(began)
    )


def _since(began: float) -> float:
    return round(time.monotonic() - began, 3)
