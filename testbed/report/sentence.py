"""Each event as one line of text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from testbed import events as ev
from testbed.report.harmless import harmless_line
from testbed.report.text import span


def sentence(event: ev.Event) -> str:
    """What the event says, on one harmless line without node and time."""
    return harmless_line(_SAYING[type(event)](event))


def matters(event: ev.Event) -> bool:
    """Whether somebody who reads along wants a line for it; the others are told of by their neighbours."""
    if isinstance(event, ev.AnsibleTask):
        return event.outcome in ("failed", "unreachable")
    if isinstance(event, ev.WaitEnded):
        return event.outcome != "met"
    if isinstance(event, ev.StepEnded):
        return event.verdict != ev.SKIPPED
    return not isinstance(event, (ev.BurstEnded, ev.AnsibleWanted, ev.NodePlanned, ev.ValueSet))


def _step(event: Any) -> str:
    return f"{event.configuration}.{event.target}.{event.step}"


def _because(reason: str) -> str:
    return f": {reason}" if reason else ""


def _step_ended(e: ev.StepEnded) -> str:
    return f"{_step(e)} {e.verdict} ({span(e.duration)}){_because(e.reason)}"


def _machine_failed(e: ev.MachineFailed) -> str:
    tried = f" (tried {e.tried})" if e.tried else ""
    what = f"{e.machine} failed" if e.machine == e.cause else f"machine {e.machine} failed, {e.cause}"
    return f"{what}{_without(e.excused)}{_because(e.reason)}{tried}"


def _without(excused: bool) -> str:
    return " (the others go on without it)" if excused else ""


def _flag_raised(e: ev.FlagRaised) -> str:
    return f"{e.flag} raised by {e.by or 'somebody'}{_because(e.why)}"


def _wait_started(e: ev.WaitStarted) -> str:
    bound = f", for {span(e.timeout)} at most" if e.timeout is not None else ""
    names = [name for name in e.names if name != e.what]  # what waits for finalise has no name of its own
    return f"waits: {' '.join([e.what, *names])}{bound}"


def _processes(e: ev.ProcessesStopped) -> str:
    names = ", ".join(str(p.get("command", "?")) if isinstance(p, dict) else "?" for p in e.processes)
    return f"stopped what was left in the background: {names}"


_SAYING: dict[type[ev.Event], Callable[[Any], str]] = {
    ev.RunStarted: lambda e: f"run {e.run} of {e.deployment} started",
    ev.NodePlanned: lambda e: f"planned on {e.machine} ({', '.join(e.configurations)})",
    ev.BurstStarted: lambda e: f"ansible {e.phase}: {len(e.nodes)} node{'s' if len(e.nodes) != 1 else ''}",
    ev.BurstEnded: lambda e: f"ansible {e.phase} over ({span(e.duration)})",
    ev.MachineFailed: _machine_failed,
    ev.NodeStarted: lambda e: f"started on {e.host}",
    ev.StepStarted: lambda e: f"{_step(e)} started",
    ev.StepEnded: _step_ended,
    ev.AnsibleWanted: lambda e: f"{_step(e)} waits for ansible",
    ev.AnsibleTask: lambda e: f"{_step(e)} task {e.task}: {e.outcome}{_because(e.message)}",
    ev.WaitStarted: _wait_started,
    ev.WaitEnded: lambda e: f"wait over, {e.outcome} ({span(e.duration)})",
    ev.ValueSet: lambda e: f"set {e.key} ({e.size} bytes)",
    ev.FlagRaised: _flag_raised,
    ev.ProcessesStopped: _processes,
    ev.NodeEnded: lambda e: f"ended {e.verdict}{_because(e.reason)}",
    ev.NodeLost: lambda e: f"lost{_without(e.excused)}{_because(e.reason)}",
    ev.ResultsCollected: lambda e: f"results are home ({e.files} files, {e.size} bytes)",
    ev.ResultsMissing: lambda e: f"results are missing{_because(e.reason)}",
    ev.Notice: lambda e: f"{e.level}: {e.message}",
    ev.RunEnded: lambda e: f"run {e.verdict} ({span(e.duration)}){_because(e.reason)}",
}
