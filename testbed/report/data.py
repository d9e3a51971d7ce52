"""The report as data: the stable shape of ``report.json`` and of ``--json``.

``schema_version`` rises when a member changes its meaning or goes away; members may be added at any time. Times are
Unix seconds (null where unknown), durations seconds::

    {"schema_version": 1, "run", "deployment", "description", "verdict", "exit_code", "reason", "ended",
     "started_at", "ended_at", "duration",
     "first_cause": CAUSE | null, "induced": [CAUSE], "further": [CAUSE],
     "nodes": [{"name", "index", "machine", "address", "configurations", "state", "verdict", "reason", "results",
                "excused", "step", "since", "waits": [{"what", "names", "since", "timeout"}],
                "targets": [{"target", "configuration", "verdict", "reason", "exit_code", "duration", "started_at"}],
                "steps": [{"target", "configuration", "step", "verdict", "reason", "exit_code", "duration",
                           "started_at"}]}],
     "flags": {"abort" | "finalise": {"by", "why", "at"}},
     "notices": [{"level", "node", "message"}]}

A CAUSE is ``{"kind", "verdict", "node", "machine", "configuration", "target", "step", "exit_code", "reason",
"advice", "lines", "at"}``; those in ``induced`` came of the first cause, those in ``further`` are faults of their own,
such as a second machine that nobody can log in to. While ``ended`` is false the run goes on, or its controller died:
``verdict`` is null then, and a node's until its end; but ``testbed report`` judges as if nothing more came.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from testbed.report.files import write_whole
from testbed.report.state import Cause, NodeState, RunState
from testbed.report.verdict import Judgement

SCHEMA_VERSION = 1


def document(state: RunState, judgement: Judgement, over: bool = True) -> dict[str, Any]:
    """The report as plain data; ``over`` is false where the run still goes on and no verdict is due."""
    return {
        "schema_version": SCHEMA_VERSION,
        "run": state.run,
        "deployment": state.deployment,
        "description": state.description,
        "verdict": judgement.verdict if over else None,
        "exit_code": judgement.exit_code if over else None,
        "reason": (judgement.first_cause.reason if judgement.first_cause else state.reason) if over else "",
        "ended": bool(state.verdict),
        "started_at": state.started_at,
        "ended_at": state.ended_at,
        "duration": state.duration,
        "first_cause": _cause(judgement.first_cause) if over and judgement.first_cause else None,
        "induced": [_cause(c) for c in judgement.induced] if over else [],
        "further": [_cause(c) for c in judgement.further] if over else [],
        "nodes": [_node(node, judgement, over) for node in state.in_order],
        "flags": {name: {"by": f.by, "why": f.why, "at": f.at} for name, f in state.flags.items()},
        "notices": [{"level": n.level, "node": n.node, "message": n.message} for n in state.notices],
    }


def dump(data: Any) -> str:
    """The data as readable JSON, with a line end; plain ASCII, so that any terminal and any parser takes it."""
    return json.dumps(data, indent=2, allow_nan=False) + "\n"


def write(path: Path, state: RunState, judgement: Judgement) -> None:
    """Write ``report.json`` of a run that is over; raises OSError."""
    write_whole(path, dump(document(state, judgement)).encode())


def _cause(cause: Cause) -> dict[str, Any]:
    return {
        "kind": cause.kind,
        "verdict": cause.verdict,
        "node": cause.node,
        "machine": cause.machine,
        "configuration": cause.configuration,
        "target": cause.target,
        "step": cause.step,
        "exit_code": cause.exit_code,
        "reason": cause.reason,
        "advice": cause.advice,
        "lines": list(cause.lines),
        "at": cause.at or None,
    }


def _node(node: NodeState, judgement: Judgement, over: bool) -> dict[str, Any]:
    judged = judgement.nodes[node.name]
    done = over or bool(node.verdict)
    return {
        "name": node.name,
        "index": node.index,
        "machine": node.machine,
        "address": node.address,
        "configurations": list(node.configurations),
        "state": node.state,
        "verdict": (judged.verdict if over else node.verdict) if done else None,
        "reason": (judged.reason if over else node.reason) if done else "",
        "results": node.results or None,
        "excused": node.excused > 0,
        "step": str(node.current.key) if node.current else None,
        "since": node.since,
        "waits": [
            {"what": w.what, "names": list(w.names), "since": w.since, "timeout": w.timeout}
            for w in node.waits.values()
        ],
        "targets": [
            {
                "target": t.target,
                "configuration": t.configuration,
                "verdict": t.verdict if done else None,
                "reason": t.reason if done else "",
                "exit_code": t.exit_code,
                "duration": t.duration,
                "started_at": t.started_at,
            }
            for t in judged.targets
        ],
        "steps": [
            {
                "target": s.key.target,
                "configuration": s.key.configuration,
                "step": s.key.step,
                "verdict": s.verdict or None,
                "reason": s.reason,
                "exit_code": s.exit_code,
                "duration": s.duration,
                "started_at": s.started_at,
            }
            for s in node.steps.values()
        ],
    }
