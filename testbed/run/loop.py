"""The run's loop: every happening is a message in one queue, worked off by one thread, until every node is home."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from testbed import events
from testbed.agent.plan import longest_end
from testbed.compile.plan import RunPlan, step_name
from testbed.coord.keys import RunKeys
from testbed.coord.scope import Scope
from testbed.coord.store import Store, StoreError
from testbed.events import ABORT, COLLECT, ERROR, SERVE, START, TIMEOUT
from testbed.run import watching
from testbed.run.conductor import (
    COLLECTING,
    ENDED,
    HOME,
    LEAVING,
    PUBLISHED,
    RUNNING,
    SERVING,
    STARTING,
    WANTING,
    Collect,
    Conductor,
    Serve,
)
from testbed.run.deliveries import Deliveries
from testbed.run.doubted import Doubted
from testbed.run.executor import Burst, Executor, TaskResult
from testbed.run.freeze import Timing
from testbed.run.journal import Journal
from testbed.run.link import Link
from testbed.run.lookout import LookOut
from testbed.run.messages import Alarms, BurstDone, EtcdLost, Failed, Interruption, Result
from testbed.run.phases import Phases
from testbed.run.policies import Policies
from testbed.run.rescue import rescue
from testbed.run.underway import Underway, Wishes

LINGER = 0.15
"""Seconds that work for Ansible waits for more of its kind: a process costs a second, a batch costs no more."""

UNDER_WAY = (STARTING, RUNNING, WANTING, SERVING, PUBLISHED)
"""The phases of a node whose agent may live."""


class Loop:
    """One run while its nodes live. `run` returns when every node is home, or the operator waits no longer."""

    def __init__(
        self,
        plan: RunPlan,
        phases: Phases,
        journal: Journal,
        store: Store,
        scope: Scope,
        executor: Executor,
        timing: Timing,
        expel: Callable[[str], None],
        etcd_was_away: Callable[[], bool],
    ) -> None:
        # SimpleQueue: a signal handler may put while this same thread is inside get().
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.interrupted = False
        self.abandoned = False
        self._plan = plan
        self._phases = phases
        self._journal = journal
        self._link = Link(store, scope, RunKeys(plan.run), self._on_store_error)
        self._executor = executor
        self._underway = Underway(executor, journal, self.inbox)
        self._wishes = Wishes(self._answer)
        self._timing = timing
        self._expel = expel
        self._etcd_was_away = etcd_was_away
        self._doubted = Doubted(timing.liveness)
        self._names = [p.node.name for p in plan.nodes]
        self._conductor = Conductor(self._names, plan.deployment.finalise, executor.serves)
        self._policies = Policies(p.node for p in plan.nodes)
        self._deliveries = Deliveries(self._link, self._conductor, phases)
        self._lookout = LookOut(plan, store, self._conductor, self._abort, self._on_store_error)
        self._alarms = Alarms()
        self.etcd_lost = False
        self._rescue: threading.Event | None = None

    def run(self) -> None:
        """Start the nodes and see them through."""
        began = time.monotonic()
        self._alarms.deadline = began + self._plan.deployment.timeout
        self._alarms.overdue = self._alarms.deadline + self._own_limits()
        self._underway.begin(START, self._names)
        while not self._conductor.finished and not self.abandoned:
            try:
                message = self.inbox.get(timeout=self._alarms.next(time.monotonic()))
            except queue.Empty:
                self._ring(time.monotonic())
                continue
            self._take(message)
            self._decide()
        self._underway.end()

    def interrupt(self, signal: str) -> None:
        """Take a signal of the operator's; may be called from a signal handler."""
        self.inbox.put(Interruption(signal))
        if self._rescue is not None:
            self._rescue.set()

    def rescue(self, why: str) -> list[Exception]:
        """Bring home what can be after `run` has failed, by what stands without it; gives what failed here too.

        Every node that is not home yet is told to abort, and collecting it ends its agent in order.
        """
        self._rescue = threading.Event()
        self._underway.end()
        self._abort(f"testbed failed: {why}", {"verdict": ERROR, "reason": why})
        nodes = tuple(node for node in self._names if self._conductor.phase(node) != HOME)
        if not nodes:
            return []
        burst = Burst(self._underway.count + 1, COLLECT, nodes)
        return rescue(burst, self._executor, self._phases, self._journal, self.inbox, self._rescue)

    # --- what is told -------------------------------------------------------------------------------------------

    def _take(self, message: Any) -> None:
        self._lookout.hear(message)
        match message:
            case Result(burst, task):
                self._on_result(burst, task)
            case BurstDone():
                self._on_burst_done(message)
            case EtcdLost(reason):
                self._on_etcd_lost(reason)
            case Interruption(signal):
                self._on_interruption(signal)
            case Failed(error):
                raise error
            case _:
                self._see(message)

    def _see(self, sighting: watching.Sighting) -> None:
        match sighting:
            case watching.Recorded(event):
                self._on_event(event)
            case watching.Flagged():
                self._on_flag(sighting)
            case watching.Wished(node, serial, step):
                self._on_wish(node, serial, step)
            case watching.Vanished(node) if self._etcd_was_away():
                self._doubted.add(node, time.monotonic())
                self._alarms.doubt = self._doubted.alarm
            case watching.Vanished(node):
                self._on_vanished(node)
            case watching.Delivered(node, archive):
                self._deliveries.arrived(node, archive)
            case watching.Left(node):
                self._conductor.left(node)
            case watching.Waits() | watching.Answered():
                pass  # the look-out has heard it
            case watching.Garbled(key, reason):
                self._journal.say(events.Notice, level="warning", message=f"{key} holds what nobody writes: {reason}")

    def _on_event(self, event: events.Event) -> None:
        if event.node in self._phases.caught_up:
            return  # its own record was read instead
        self._journal.take(event)
        match event:
            case events.NodeStarted():
                self._conductor.started(event.node)
            case events.StepEnded():
                self._conductor.moved_on(event.node, step_name(event.target, event.configuration, event.step))
            case events.WaitStarted(what="finalise"):
                self._conductor.published(event.node)
            case events.NodeEnded():
                self._phases.ended(event.node)
                self._conductor.ended(event.node)
                self._lookout.gone(event.node, f"has ended {event.verdict}")
                self._deliveries.take_in(event.node)

    def _on_flag(self, flag: watching.Flagged) -> None:
        self._journal.say(events.FlagRaised, flag=flag.flag, by=flag.by, why=flag.why, cause=flag.cause)
        self._conductor.flagged(flag.flag)
        if flag.flag == ABORT:
            self._underway.cancel(SERVE)
            limit = time.monotonic() + self._own_limits()
            self._alarms.overdue = min(self._alarms.overdue or limit, limit)

    def _on_wish(self, node: str, serial: int, step: str) -> None:
        if step not in self._phases.ansible_steps(node):
            self._journal.say(
                events.Notice, node, level="warning", message=f"asks for {step!r}, which is not in its plan"
            )
            return
        self._wishes.wish(node, serial)
        self._conductor.wanted(node, serial, step)

    def _on_vanished(self, node: str) -> None:
        self._conductor.stranded(node)
        if self._conductor.phase(node) in (ENDED, COLLECTING, HOME) or self._link.has_ended(node):
            return
        reason = f"the agent's lease of {self._timing.liveness:g} s ran out: killed, or its machine or network is down"
        excused = self._policies.lose(node)
        self._lose(node, reason, excused)
        if excused:
            self._go_on_without(node, f"is lost: {reason}")
        else:
            self._abort(f"node {node} is lost", {"node": node, "verdict": ERROR, "reason": reason})

    def _on_result(self, burst: Burst, task: TaskResult) -> None:
        match burst.phase:
            case "start":
                failure = self._phases.start_failure(task)
                if failure is not None:
                    self._fail_machine(task.node, failure)
            case "serve":
                verdict = self._phases.serve(burst, task)
                if verdict is not None:
                    self._wishes.answer(burst, task.node, *verdict)
            case "collect":
                self._phases.collect(task)

    def _on_burst_done(self, done: BurstDone) -> None:
        burst = done.burst
        self._underway.over(burst)
        match burst.phase:
            case "start":
                for node in self._phases.unstarted(burst):
                    self._fail_machine(node, self._phases.ansible_failure(node, done.message))
                if self.etcd_lost:
                    self._end_all(STARTING)  # their agents are up, and cannot say so
            case "serve":
                self._conductor.served()
                for node in burst.nodes:
                    if self._wishes.is_owed(burst, node) and not self._conductor.aborted:
                        self._leave(burst, node, self._phases.unserved(done, node))
                    self._phases.close_log(burst, node)
            case "collect":
                for node in burst.nodes:
                    self._phases.settle(node, done.message)
                self._conductor.collected(burst.nodes)

    def _on_store_error(self, error: StoreError) -> None:
        self.inbox.put(EtcdLost(str(error)))

    def _on_etcd_lost(self, reason: str) -> None:
        if self.etcd_lost:
            return
        self.etcd_lost = True
        self._link.cut()
        self._journal.say(
            events.MachineFailed, machine="etcd", cause="etcd", reason=reason, tried="the run's etcd",
            advice="see etcd.log and `testbed doctor`; the nodes are stopped and their results collected over Ansible",
        )  # fmt: skip
        self._underway.cancel(SERVE)
        self._end_all(RUNNING, WANTING, SERVING, PUBLISHED, LEAVING)
        if not self._underway.any_of(START):
            self._end_all(STARTING)

    def _end_all(self, *phases: str) -> None:
        """Have the nodes in these phases collected, which ends their agents."""
        for node in self._conductor.in_phase(*phases):
            self._conductor.ended(node)
            self._conductor.stranded(node)

    def _on_interruption(self, signal: str) -> None:
        if self.interrupted:
            self.abandoned = True
            self._hear_abort()
            for node in self._names:
                if self._conductor.phase(node) != HOME:
                    self._phases.abandon(node)
            return
        self.interrupted = True
        self._journal.say(
            events.Notice, level="warning",
            message=f"{signal}: aborting; nodes finalise and logs come home. Once more stops waiting for that",
        )  # fmt: skip
        self._abort(f"the operator stopped the run ({signal})", {"verdict": "cancelled"})

    def _hear_abort(self) -> None:
        """Record the abort flag, should its watch be too late to tell of it."""
        flag = None if self._conductor.aborted else self._link.flag(ABORT)
        if flag is not None:
            self._on_flag(watching.Flagged(flag.name, flag.by, flag.why, dict(flag.cause)))

    # --- what is done -------------------------------------------------------------------------------------------

    def _decide(self) -> None:
        for flag in self._conductor.flags_due():
            self._link.raise_flag(flag.flag, flag.why, flag.cause)
        self._alarms.stall = self._lookout.alarm(over=self._conductor.aborted or self.etcd_lost)
        if self._alarms.work is None and self._conductor.has_work:
            self._alarms.work = time.monotonic() + LINGER

    def _ring(self, now: float) -> None:
        """An alarm's moment has come."""
        if self._alarms.work is not None and now >= self._alarms.work:
            self._alarms.work = None
            self._deliveries.look()
            for work in self._conductor.work_due():
                match work:
                    case Serve(wishes):
                        steps = {node: step for node, (_, step) in wishes.items()}
                        self._wishes.owe(self._underway.begin(SERVE, list(wishes), steps), wishes)
                    case Collect(nodes):
                        self._underway.begin(COLLECT, nodes)
        if self._alarms.deadline is not None and now >= self._alarms.deadline:
            self._alarms.deadline = None
            limit = self._plan.deployment.timeout
            reason = f"the run's deadline of {limit:g} s has passed"
            self._abort(reason, {"verdict": TIMEOUT, "reason": reason})
        if self._alarms.stall is not None and now >= self._alarms.stall:
            self._lookout.ring(now)
        if self._alarms.doubt is not None and now >= self._alarms.doubt:
            for node in self._doubted.due(now):
                if not self._link.is_alive(node):
                    self._on_vanished(node)
            self._alarms.doubt = self._doubted.alarm
        if self._alarms.overdue is not None and now >= self._alarms.overdue:
            self._alarms.overdue = now + self._own_limits()
            self._give_up_on_stragglers()
        self._decide()

    def _give_up_on_stragglers(self) -> None:
        """End all that has lasted too long; what is still to be collected then has as long again."""
        self._underway.cancel(START, SERVE, COLLECT)
        for node in self._conductor.in_phase(*UNDER_WAY):
            self._lose(node, "did not end within its own limits; its agent is stopped and what it has is collected")
        self._end_all(LEAVING)

    def _leave(self, burst: Burst, node: str, verdict: tuple[str, str] | None) -> None:
        """The burst is over without the node's step: that failed, or (None) goes into another burst."""
        if verdict is not None:
            self._wishes.answer(burst, node, *verdict)
            return
        serial = self._wishes.take_back(burst, node)
        if serial is not None:
            self._conductor.wanted(node, serial, burst.steps[node])

    def _answer(self, node: str, step: str, serial: int, verdict: str, reason: str) -> None:
        """Tell a node that waits for it how its Ansible step ended."""
        self._conductor.moved_on(node, step)
        self._link.tell_served(node, serial, verdict, reason)

    def _abort(self, why: str, cause: Mapping[str, Any]) -> None:
        self._link.raise_flag(ABORT, why, cause)

    def _fail_machine(self, node: str, failure: events.MachineFailed) -> None:
        if self._conductor.phase(node) != STARTING:
            return
        excused = self._policies.lose(node)
        self._journal.record(replace(failure, excused=excused))
        self._phases.never_started(node)
        self._conductor.never_started(node)
        self._tell_gone(node, f"never started: {failure.reason}", excused)
        if excused:
            self._go_on_without(node, f"never started: {failure.reason}")
            return
        self._abort(
            f"machine {failure.machine} failed: {failure.reason}",
            {"node": node, "machine": failure.machine, "verdict": ERROR, "reason": failure.reason},
        )

    def _lose(self, node: str, reason: str, excused: bool = False) -> None:
        self._journal.say(events.NodeLost, node, reason=reason, excused=excused)
        self._expel(node)
        self._conductor.ended(node)
        self._tell_gone(node, f"is lost: {reason}", excused)

    def _tell_gone(self, node: str, why: str, excused: bool) -> None:
        """Tell who waits for the node that it takes part no more; ``excused``: they need not wait for it."""
        self._lookout.gone(node, why.partition(":")[0], excused)
        self._link.tell_gone(node, why, excused)

    def _go_on_without(self, node: str, why: str) -> None:
        self._journal.say(events.Notice, level="warning", message=f"the run goes on without {node}, which {why}")

    def _own_limits(self) -> float:
        """Seconds that a node may need by its own rules from an abort to its end, and some more."""
        timing = self._timing
        nodes = (longest_end(p.steps, timing.finalise, timing.grace) for p in self._plan.nodes)
        return max(nodes) + timing.packing + timing.slack
