"""A node's way through its plan: every step in order, obeying flags and deadlines, and finalise whatever happened."""

from __future__ import annotations

import json
import queue
import time
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

from testbed.agent import process
from testbed.agent.environment import run_marks
from testbed.agent.messages import Exited, Flagged, Limit, Lost, Message, Outcome, Served, Told
from testbed.agent.outbox import Outbox
from testbed.agent.plan import ANSIBLE, PORT, SERVICE, Plan, PlannedStep
from testbed.agent.scripts import Scripts, Services, describe, ending, log_name, unstarted
from testbed.agent.waits import Waits
from testbed.agent.workspace import Workspace
from testbed.coord.keys import RunKeys
from testbed.coord.store import Delete, Put
from testbed.events import (
    ABORT,
    ABORTED,
    ERROR,
    FAILED,
    FINALISE,
    PASSED,
    SKIPPED,
    TIMEOUT,
    VERDICTS,
    AnsibleWanted,
    Notice,
    ProcessesStopped,
    StepEnded,
    StepStarted,
)

if TYPE_CHECKING:  # few nodes have services, and an agent's start counts
    from testbed.agent.ready import AwaitValue

MOST_NAMED = 3
"""How many processes that could go on are named."""

RaiseFlag = Callable[[str, str, Dict[str, Any]], None]
"""Asks for a flag with (name, why, cause); does not wait for etcd."""


class Lifecycle:
    """One node's run through its plan, by one thread that sleeps in ``inbox`` until something happens.

    ``started`` is the monotonic time from which the plan's time-out counts.
    """

    def __init__(
        self,
        plan: Plan,
        workspace: Workspace,
        environment: Dict[str, str],
        inbox: queue.SimpleQueue[Message],
        outbox: Outbox,
        waits: Waits,
        raise_flag: RaiseFlag,
        await_value: AwaitValue,
        started: float,
    ) -> None:
        self._plan, self._environment = plan, environment
        self._scripts = Scripts(workspace, environment, lambda pid, code: inbox.put(Exited(pid, code)))
        self._inbox, self._outbox, self._waits, self._raise_flag = inbox, outbox, waits, raise_flag
        self._await_value = await_value
        self._services = Services()
        self._keys = RunKeys(plan.run)
        self._deadline = started + plan.timeout
        self._serial = 0
        self._halt: Optional[Outcome] = None  # why the node goes no further, but to finalise
        self._finalising = False
        self._lost = False
        self._rests_on: Optional[int] = None  # the process, or the end of the run (0), without which nothing goes on
        self.told = False  # somebody on the machine wants it to end, and waits for that
        self.verdict, self.reason = PASSED, ""

    def run(self) -> Tuple[str, str]:
        """Go through all of the plan; gives the node's verdict and its reason."""
        normal = [step for step in self._plan.steps if step.target != FINALISE]
        self._go_through(normal)
        if any(step.target != "clean" for step in self._plan.steps) or not self._plan.steps:
            self._await_finalise()
        self._stop_services()
        self._finalise([step for step in self._plan.steps if step.target == FINALISE])
        self._stop_all()
        return self.verdict, self.reason

    @property
    def heard(self) -> bool:
        """Whether the controller still hears the node, and nobody wants the agent to end at once."""
        return not (self.told or self._lost)

    def stillness(self) -> Dict[str, Any]:
        """Whether this node could go on if nobody else did anything: ``{able, ran, open}``; from any thread.

        ``able`` names what could, ``ran`` is another text once any process has run, ``open`` are the waits' numbers.
        """
        from testbed.agent.stillness import look

        rests, (numbers, callers) = self._rests_on, self._waits.callers()
        marks = run_marks(self._plan.run, self._plan.node)
        able, ran = look(callers, self._scripts.sessions, self._services.sessions, marks)
        told = list(able.values())[:MOST_NAMED]
        if rests is None or rests != self._rests_on or (rests and not process.lives(rests)):
            told.append("its agent")
        return {"able": told, "ran": ran, "open": numbers}

    # --- the order of things ------------------------------------------------------------------------------------

    def _go_through(self, steps: List[PlannedStep]) -> None:
        running = ""
        for (target, _), group in groupby(steps, lambda s: (s.target, s.configuration)):
            self._look()
            if self._halt is not None:
                self._skip(group, self._halt.reason)
            elif self._finalising and target not in (running, "clean"):
                self._skip(group, "the run finalises")
            else:
                running = target
                self._carry(list(group))

    def _carry(self, steps: List[PlannedStep]) -> None:
        """One target of one configuration: pre, main unless pre failed, post unless the node is to stop."""
        failed = ""
        for step in steps:
            self._look()
            if failed and (step.step != "post" or step.kind == SERVICE):
                self._skip([step], f"{failed} did not pass")
            elif self._halt is not None and not (failed and self._halt.own):
                self._skip([step], self._halt.reason)
            else:
                outcome = self._perform(step, self._limit(step), obey=self._halt is None)
                if outcome.verdict != PASSED:
                    failed = failed or step.step
                    self._fail(step, outcome)

    def _fail(self, step: PlannedStep, outcome: Outcome) -> None:
        """Take in that a step did not pass; tell the run, unless it goes on all the same or knows already."""
        where = f"{step.configuration}.{step.target}.{step.step}"
        self._judge(outcome.verdict, f"{where}: {outcome.reason}")
        if self._halt is not None or step.continue_on_error:
            return
        self._halt = Outcome(outcome.verdict, outcome.exit_code, f"{where} did not pass: {outcome.reason}")
        cause = {
            "node": self._plan.node,
            "target": step.target,
            "configuration": step.configuration,
            "step": step.step,
            "verdict": outcome.verdict,
            "exit_code": outcome.exit_code,
            "reason": outcome.reason,
        }
        self._raise_flag(ABORT, f"{where} did not pass: {outcome.reason}", cause)

    def _await_finalise(self) -> None:
        """Stay until the run finalises; tell it to where that is this node's part."""
        self._look()
        if self._halt is None and self._plan.finalise == self._plan.node:
            self._raise_flag(FINALISE, f"{self._plan.node} has done its part", {})
        if self._halt is not None or self._finalising:
            return
        wait = self._waits.begin(FINALISE, [FINALISE], max(0.0, self._deadline - time.monotonic()))
        self._rests_on = 0
        while not self._finalising and self._halt is None:
            self._heed(self._next(self._deadline))
        self._rests_on = None
        self._waits.end(wait, "met" if self._finalising else "aborted")

    def _finalise(self, steps: List[PlannedStep]) -> None:
        seconds = self._plan.finalise_timeout
        shared = Limit(time.monotonic() + seconds, f"the {seconds:g} s for finalising are over")
        for _, group in groupby(steps, lambda s: s.configuration):
            failed = ""
            for step in group:
                if failed and step.step != "post":
                    self._skip([step], f"{failed} did not pass")
                    continue
                limit = _own_limit(step) or shared
                outcome = self._perform(step, limit, obey=False)
                if outcome.verdict != PASSED:
                    failed = failed or step.step
                    self._judge(outcome.verdict, f"{step.configuration}.{FINALISE}.{step.step}: {outcome.reason}")

    def _limit(self, step: PlannedStep) -> Limit:
        """The nearest of a step's own limit, the run's, and, where the run stops already, that of cleaning up."""
        limits = [Limit(self._deadline)]
        own = _own_limit(step)
        if own is not None:
            limits.append(own)
        if self._halt is not None:
            seconds = self._plan.finalise_timeout
            limits.append(Limit(time.monotonic() + seconds, f"not done {seconds:g} s after the failure"))
        return min(limits, key=lambda limit: limit.at)

    def _skip(self, steps: Any, why: str) -> None:
        for step in steps:
            self._end(step, Outcome(SKIPPED, None, why), 0.0)

    def _judge(self, verdict: str, reason: str) -> None:
        """Keep the first thing that went wrong."""
        if self.verdict == PASSED:
            self.verdict, self.reason = verdict, reason

    # --- one step -----------------------------------------------------------------------------------------------

    def _perform(self, step: PlannedStep, limit: Limit, obey: bool) -> Outcome:
        """Do a step until it ends or its limit comes; with ``obey`` also until the node is to stop."""
        self._outbox.say(
            StepStarted, configuration=step.configuration, target=step.target, step=step.step, timeout=step.timeout
        )
        began = time.monotonic()
        do = {ANSIBLE: self._have_served, SERVICE: self._start_service}.get(step.kind, self._run_script)
        outcome = do(step, limit, obey)
        self._end(step, outcome, time.monotonic() - began)
        return outcome

    def _end(self, step: PlannedStep, outcome: Outcome, duration: float) -> None:
        self._outbox.say(
            StepEnded,
            configuration=step.configuration,
            target=step.target,
            step=step.step,
            verdict=outcome.verdict,
            exit_code=outcome.exit_code,
            duration=round(duration, 6),
            reason=outcome.reason,
        )

    def _run_script(self, step: PlannedStep, limit: Limit, obey: bool) -> Outcome:
        try:
            main = self._scripts.start(step, log_name(step), step.script)
        except (OSError, ValueError) as error:
            return unstarted(error)
        self._rests_on = main.pid
        code = self._await_exit(main.pid, limit.at, obey)
        self._rests_on = None
        if code is not None:
            return Outcome(PASSED if code == 0 else FAILED, code, describe(code))
        why = self._stopped(limit, obey)
        process.stop_session(main.pid, self._plan.grace)
        code = self._await_exit(main.pid, time.monotonic() + process.KILL_PATIENCE, obey=False)
        return Outcome(why.verdict, code, why.reason, why.own)

    def _await_exit(self, pid: int, limit: float, obey: bool) -> Optional[int]:
        """Wait for a step's main process; its exit code, None where the step is to be stopped."""
        while True:
            message = self._next(limit)
            if isinstance(message, Exited) and message.pid == pid:
                return message.code
            if message is None:
                return None
            self._heed(message)
            if obey and self._halt is not None:
                return None

    def _have_served(self, step: PlannedStep, limit: Limit, obey: bool) -> Outcome:
        """Ask the controller to do a step and wait for its answer."""
        self._serial += 1
        wish = {
            "serial": self._serial,
            "configuration": step.configuration,
            "target": step.target,
            "step": step.step,
        }
        self._outbox.say(AnsibleWanted, configuration=step.configuration, target=step.target, step=step.step)
        self._outbox.send(Put(self._keys.wants(self._plan.node), json.dumps(wish).encode()))
        while not self._lost:
            message = self._next(limit.at)
            if isinstance(message, Served) and message.serial == self._serial:
                verdict = message.verdict if message.verdict in VERDICTS else ERROR
                return Outcome(verdict, None, message.reason)
            if message is not None:
                self._heed(message)
            if message is None or (obey and self._halt is not None):
                self._outbox.send(Delete(self._keys.wants(self._plan.node)))
                return self._stopped(limit, obey)
        return Outcome(ERROR, None, "etcd is gone, so the controller cannot be asked", own=False)

    def _stopped(self, limit: Limit, obey: bool) -> Outcome:
        """Why a step is stopped before its end."""
        if (not obey or self._halt is None) and limit.reason:
            return Outcome(TIMEOUT, None, limit.reason)
        if self._halt is None or not obey:
            self._heed(None)
        assert self._halt is not None  # noqa: S101  set by what was heeded
        return self._halt if obey else Outcome(TIMEOUT, None, f"the run's time of {self._plan.timeout:g} s is over")

    # --- services -----------------------------------------------------------------------------------------------

    def _start_service(self, step: PlannedStep, limit: Limit, obey: bool) -> Outcome:
        """Start a service and wait until it is ready; then it goes on, and others find it by its name."""
        from testbed.agent.ready import await_ready, probe_of, taken
        from testbed.coord.services import Service, offer

        address = next((p.address for p in self._plan.peers if p.index == self._plan.index), "")
        port = (step.ready or {}).get(PORT)
        why = taken(port, address) if port else ""
        if why:
            return Outcome(FAILED, None, why)
        start = partial(self._scripts.start, step)
        try:
            main = start(log_name(step), step.script)
        except (OSError, ValueError) as error:
            return unstarted(error)
        self._services.add(main.pid, step)
        probe = probe_of(step, self._environment, address, start, self._await_value, self._inbox.put)

        def hear(until: Optional[float]) -> Optional[Message]:
            return self._next(limit.at if until is None else min(until, limit.at))

        def stopped(message: Optional[Message]) -> Optional[Outcome]:
            if message is not None:
                self._heed(message)
            elif time.monotonic() >= limit.at:
                return self._stopped(limit, obey)
            return self._stopped(limit, obey) if obey and self._halt is not None else None

        outcome = await_ready(main.pid, probe, hear, stopped)
        if outcome.verdict == PASSED:
            self._outbox.send(offer(self._keys, step.step, Service(address, port, self._plan.node)))
        elif self._services.take(main.pid) is not None:
            process.stop_session(main.pid, self._plan.grace)
        return outcome

    def _service_ended(self, step: PlannedStep, code: int, lived: float) -> None:
        """A service has ended while it was needed: nothing that others do with it makes sense any more."""
        outcome = Outcome(FAILED, code, f"the service ended while it was needed: {ending(code)}")
        self._end(step, outcome, lived)
        if self._halt is None:
            self._fail(step, outcome)
            self._halt = Outcome(ABORTED, None, f"{log_name(step)}: {outcome.reason}", own=False)

    def _stop_services(self) -> None:
        """Stop what others no longer need, and wait for its end, so that `finalise` finds nothing of it."""
        left = set(self._services.sessions)
        for name in self._services.stop(self._plan.grace):
            message = f"the service {name} did not end within {self._plan.grace:g} s and was killed"
            self._outbox.say(Notice, level="warning", message=message)
        until = time.monotonic() + process.KILL_PATIENCE
        while left:
            told = self._next(until)
            if told is None:
                return
            if isinstance(told, Exited) and told.pid in left:
                left.discard(told.pid)
                self._scripts.forget(told.pid)
            else:
                self._heed(told)

    # --- what happens meanwhile ---------------------------------------------------------------------------------

    def _next(self, until: float) -> Optional[Message]:
        """The next message; None when that monotonic time has come."""
        try:
            return self._inbox.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            return None

    def _look(self) -> None:
        """Heed what has been told already, and the clock."""
        while True:
            try:
                self._heed(self._inbox.get_nowait())
            except queue.Empty:
                break
        if time.monotonic() >= self._deadline:
            self._heed(None)

    def _heed(self, message: Optional[Message]) -> None:
        """Take in what happened; None: the run's deadline has passed. The first reason to stop stays."""
        if isinstance(message, Exited):
            ended = self._services.take(message.pid)
            if ended is not None:
                self._service_ended(ended[0], message.code, ended[1])
        elif isinstance(message, Flagged) and message.name == FINALISE:
            self._finalising = True
        elif isinstance(message, Flagged):
            self._stop_for(ABORTED, f"aborted by {message.by}: {message.why}")
        elif isinstance(message, Lost):
            self._lost = True
            self._stop_for(ERROR, message.reason)
        elif isinstance(message, Told):
            self.told = True
            if self._stop_for(ABORTED, f"the agent was told to stop ({message.signal})"):
                self._raise_flag(ABORT, f"the agent of {self._plan.node} was told to stop ({message.signal})", {})
        elif message is None:
            reason = f"the run's time of {self._plan.timeout:g} s is over"
            if self._stop_for(TIMEOUT, reason):
                cause = {"node": self._plan.node, "verdict": TIMEOUT, "reason": reason}
                self._raise_flag(ABORT, f"{self._plan.node}: {reason}", cause)

    def _stop_for(self, verdict: str, reason: str) -> bool:
        """Go no further but to finalise; whether this is the first reason to."""
        if self._halt is not None:
            return False
        self._halt = Outcome(verdict, None, reason, own=False)
        self._judge(verdict, reason)
        return True

    # --- the end ------------------------------------------------------------------------------------------------

    def _stop_all(self) -> None:
        """Stop what the steps left in the background, and name it."""
        stopped = self._scripts.stop_all(run_marks(self._plan.run, self._plan.node), self._plan.grace)
        if stopped:
            self._outbox.say(ProcessesStopped, processes=stopped)


def _own_limit(step: PlannedStep) -> Optional[Limit]:
    if step.timeout is None:
        return None
    what = "ready" if step.kind == SERVICE else "done"
    return Limit(time.monotonic() + step.timeout, f"not {what} after its {step.timeout:g} s")
