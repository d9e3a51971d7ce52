"""What the results of each phase's tasks mean for a node: started or not, served how, collected or missing."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from testbed import events
from testbed.compile.plan import RunPlan
from testbed.errors import LabError
from testbed.events import ERROR, FAILED, PASSED
from testbed.lab.machines import explain
from testbed.run.directory import RunDirectory
from testbed.run.executor import CHANGED, OK, SKIPPED, UNREACHABLE, Burst, TaskResult
from testbed.run.executor import FAILED as TASK_FAILED
from testbed.run.journal import Journal
from testbed.run.messages import BurstDone
from testbed.run.results import unpack_results
from testbed.run.watching import TOLD_BY_NODES

STEP_DONE, STEP_FAILED = "Step is done", "Step has failed"
"""The tasks after a node's step in the serve playbook: a node that comes to one has passed, to the other has not."""

RECORD_LIMIT = 64 * 1024**2
"""Bytes of a node's own record of events; a larger one is left for people to read."""

NEVER_STARTED = "its agent never started"

_REFUSAL = re.compile(
    r"^\[ERROR\]: (?P<why>.+)\nOrigin: (?P<place>.+)(?![\s\S]*^(?:fatal|failed|PLAY RECAP))", re.MULTILINE
)
"""How Ansible ends over content that it cannot even begin, for all of its nodes at once; a task's failure is not it."""

_ELSEWHERE = re.compile(r"^fatal: \[\S+ -> .+\]: UNREACHABLE!", re.MULTILINE)
"""How Ansible shows that a delegated task did not reach its host, which is not the node's machine."""


class Phases:
    """Keeps, between a burst's results, what is known of its nodes; records the events they amount to."""

    def __init__(self, plan: RunPlan, directory: RunDirectory, journal: Journal) -> None:
        self._directory = directory
        self._journal = journal
        self._machines = {p.node.name: p.machine for p in plan.nodes}
        self._steps = {p.node.name: {s.name: s for s in p.ansible} for p in plan.nodes}
        self._answered: set[str] = set()
        self._failures: dict[tuple[int, str], str] = {}
        self._logs: dict[tuple[int, str], TextIO] = {}
        self._archives: dict[str, Mapping[str, Any]] = {}
        self._ended: set[str] = set()
        self.caught_up: set[str] = set()
        self._missing: dict[str, str] = {}
        self._delivered: set[str] = set()

    def ansible_steps(self, node: str) -> frozenset[str]:
        """The names of the node's Ansible steps."""
        return frozenset(self._steps[node])

    def ended(self, node: str) -> None:
        """The node has told its end: nothing of it is missing in the journal."""
        self._ended.add(node)

    # --- start --------------------------------------------------------------------------------------------------

    def start_failure(self, task: TaskResult) -> events.MachineFailed | None:
        """Why the node could not be started; None if it was."""
        self._answered.add(task.node)
        if task.outcome in (OK, CHANGED, SKIPPED):
            return None
        answer = task.result.get("answer")
        if isinstance(answer, dict) and not answer.get("ok"):
            known = explain(str(answer.get("reason", "")), self._machines[task.node])
            return self._failure(
                task.node,
                cause=str(answer.get("cause") or known.cause),
                reason=str(answer.get("reason") or known.reason),
                tried=known.tried,
                advice=str(answer.get("advice") or known.advice),
            )
        return self.ansible_failure(task.node, task.message)

    def ansible_failure(self, node: str, message: str) -> events.MachineFailed:
        """The failure that Ansible's own words amount to."""
        known = explain(message, self._machines[node])
        return self._failure(node, cause=known.cause, reason=known.reason, tried=known.tried, advice=known.advice)

    def _failure(self, node: str, cause: str, reason: str, tried: str, advice: str) -> events.MachineFailed:
        machine = self._machines[node].name
        return events.MachineFailed(time.time(), node, machine, cause, reason, tried, advice)

    def unstarted(self, burst: Burst) -> list[str]:
        """The nodes of a start burst of which it told nothing."""
        return [node for node in burst.nodes if node not in self._answered]

    def never_started(self, node: str) -> None:
        """Record that there is nothing to collect."""
        self._journal.say(events.ResultsMissing, node, reason=NEVER_STARTED)

    # --- serve --------------------------------------------------------------------------------------------------

    def serve(self, burst: Burst, task: TaskResult) -> tuple[str, str] | None:
        """Log the task; the step's verdict and reason where this task decides it."""
        step = self._steps[task.node][burst.steps[task.node]]
        if task.task == STEP_DONE:
            self._failures.pop((burst.number, task.node), None)
            return PASSED, ""
        if task.task == STEP_FAILED:
            return FAILED, self._failures.pop((burst.number, task.node), task.message)
        if task.action.endswith(("include_tasks", "include_role")) and task.outcome in (OK, SKIPPED):
            return None  # how the step is built, not what it does
        self._log(burst, task)
        self._journal.say(
            events.AnsibleTask, task.node, configuration=step.configuration, target=step.target, step=step.step,
            task=task.task, outcome=task.outcome,
            message="" if task.outcome in (OK, CHANGED, SKIPPED) else task.message[:500],
        )  # fmt: skip
        if task.outcome == UNREACHABLE and not task.ignored:
            if _ELSEWHERE.search(task.output):
                return FAILED, f"task {task.task!r} failed: {task.message[:500]}"
            failure = self.ansible_failure(task.node, task.message)
            self._journal.record(failure)
            return ERROR, failure.reason
        if task.outcome == TASK_FAILED and not task.ignored:
            self._failures[burst.number, task.node] = f"task {task.task!r} failed: {task.message[:500]}"
        if task.action.endswith("meta") and task.outcome == OK:  # what ended the step, and nothing else, is told of
            self._failures.pop((burst.number, task.node), None)
            return PASSED, ""
        return None

    def unserved(self, done: BurstDone, node: str) -> tuple[str, str] | None:
        """The verdict of a step that its burst has left without reaching the end.

        None where Ansible ended over the step of another node: then this one has still to be done.
        """
        failed = self._failures.pop((done.burst.number, node), None)
        if failed:
            return FAILED, failed
        refusal = _REFUSAL.search(done.output)
        if refusal:
            others = [other for other in done.burst.nodes if other != node]
            if any(f"{self._directory.playbooks / other}/" in refusal["place"] for other in others):
                return None
            return FAILED, f"Ansible refuses it: {' '.join(refusal['why'].split())[:500]} ({refusal['place'].strip()})"
        return ERROR, f"Ansible did not finish the step: {done.message}"

    def _log(self, burst: Burst, task: TaskResult) -> None:
        """Append Ansible's own text of the task to the step's log at home."""
        key = (burst.number, task.node)
        if key not in self._logs:
            path = self._directory.nodes / task.node / "logs" / f"{burst.steps[task.node]}.out"
            path.parent.mkdir(parents=True, exist_ok=True)
            self._logs[key] = path.open("a", encoding="utf-8")
        lines = [line for line in task.output.splitlines() if not line.startswith(("TASK [", "RUNNING HANDLER ["))]
        self._logs[key].write(f"TASK [{task.task}]\n" + "\n".join(lines).strip() + "\n\n")
        self._logs[key].flush()

    def close_log(self, burst: Burst, node: str) -> None:
        """Close the step's log."""
        log = self._logs.pop((burst.number, node), None)
        if log is not None:
            log.close()

    # --- collect ------------------------------------------------------------------------------------------------

    def collect(self, task: TaskResult) -> None:
        """Keep what the task says until its burst is over."""
        if task.outcome in (OK, CHANGED):
            self._archives[task.node] = task.result
        else:
            self._missing[task.node] = task.message or "Ansible gave no reason"

    def deliver(self, node: str, packed: bytes) -> bool:
        """Unpack what the node sent through etcd and record its results; False where it is damaged."""
        archive = self._directory.nodes / node / "results.tar.gz"
        archive.parent.mkdir(parents=True, exist_ok=True)
        archive.write_bytes(packed)
        try:
            files = unpack_results(archive, self._directory.nodes / node)
        except LabError as error:
            self._journal.say(events.Notice, node, level="warning", message=f"{error.message}; it is fetched again")
            return False
        self._journal.say(events.ResultsCollected, node, size=len(packed), files=files)
        self._delivered.add(node)
        return True

    def settle(self, node: str, silence: str) -> None:
        """Unpack the node's archive and record its results, or why there are none.

        ``silence`` is why its burst has told nothing of it, if it has not.
        """
        if node in self._delivered:  # somebody had to look for what its agent left behind
            if node in self._missing:
                message = f"its workspace may still be there: {self._missing[node]}"
                self._journal.say(events.Notice, node, level="warning", message=message)
            return
        if node in self._archives:
            archive = Path(str(self._archives[node]["path"]))
            size = int(self._archives[node]["size"])
            try:
                files = unpack_results(archive, self._directory.nodes / node)
            except LabError as error:
                self._journal.say(events.ResultsMissing, node, reason=error.message)
                return
            if node not in self._ended:
                self._catch_up(node)
            self._journal.say(events.ResultsCollected, node, size=size, files=files)
            return
        self._journal.say(events.ResultsMissing, node, reason=self._why_missing(node, silence))

    def _why_missing(self, node: str, silence: str) -> str:
        """Why the results could not be fetched from which machine, and what to do, in one line."""
        known = explain(self._missing.get(node) or silence, self._machines[node])
        return f"{known.reason}; `testbed clean {self._directory.run}` tries again; {known.advice} ({known.tried})"

    def _catch_up(self, node: str) -> None:
        """Record what the node could not tell while it lived, from its own record, if that is whole."""
        told = list(own_events(self._directory.nodes / node / "events.jsonl", node))
        if any(isinstance(event, events.NodeEnded) for event in told):
            self.caught_up.add(node)
            known = {events.encode(event) for event in self._journal.recorded if event.node == node}
            for event in told:
                if events.encode(event) not in known:
                    self._journal.take(event)

    def abandon(self, node: str) -> None:
        """Record that the operator did not wait for the node."""
        self._journal.say(
            events.ResultsMissing, node,
            reason="the operator did not wait; its agent finalises by itself, `testbed clean` removes what it leaves",
        )  # fmt: skip


def own_events(path: Path, node: str) -> Iterator[events.Event]:
    """The events of ``node`` in the record that it kept itself; nothing where there is none, or one without bounds."""
    try:
        if path.stat().st_size > RECORD_LIMIT:
            return
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    for line in lines:
        try:
            event = events.decode(line)
        except events.EventError:
            continue
        if event.node == node and isinstance(event, TOLD_BY_NODES):
            yield event
