"""The report as JUnit XML: one suite per node, one case per configuration and target.

Users' own JUnit files among a node's reports are merged in as further suites. They come from nodes, so each is
checked first: no document type (and so no entities), bounded size and depth.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any
from xml.parsers import expat

from testbed import events as ev
from testbed.report.files import open_regular, step_tail, write_whole
from testbed.report.foreign import Unfit, check
from testbed.report.harmless import xml_text
from testbed.report.state import NodeState, RunState
from testbed.report.verdict import Judgement, NodeJudgement, TargetJudgement

LOG_LINES, LOG_SIZE = 200, 16 * 1024
"""How much of a step's log a case carries at most: lines, bytes per stream."""

FILE_LIMIT, TOTAL_LIMIT = 16 * 1024 * 1024, 64 * 1024 * 1024
"""The largest file of a user that is merged, and all of them together, in bytes."""

_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?", re.ASCII)
"""A time that every consumer reads; some refuse a whole file for one that is not like this."""


def write(path: Path, state: RunState, judgement: Judgement, nodes: Path) -> list[str]:
    """Write the run's JUnit XML; ``nodes`` is the run's directory of nodes.

    Returns a warning for each file of a user that could not be merged; raises OSError where ``path`` fails.
    """
    content, warnings = render(state, judgement, nodes)
    write_whole(path, content)
    return warnings


def render(state: RunState, judgement: Judgement, nodes: Path) -> tuple[bytes, list[str]]:
    """The run's JUnit XML as UTF-8 bytes, and the warnings that `write` returns."""
    document = _library().JUnitXml(xml_text(state.run or state.deployment or "testbed"))
    warnings: list[str] = []
    budget = TOTAL_LIMIT
    for node in state.in_order:
        document.append(_suite(state, node, judgement.nodes[node.name], nodes))
        for file in _users_files(nodes, node.name):
            name = f"nodes/{file.relative_to(nodes)}"
            try:
                raw = _read(file, min(FILE_LIMIT, budget))
                budget -= len(raw)
                for suite in _users_suites(raw, node, file.stem):
                    document.append(suite)
            except (Unfit, OSError) as error:
                warnings.append(xml_text(f"{name} is not merged into the JUnit report: {error}"))
    if not judgement.nodes and judgement.first_cause is not None:
        document.append(_alone(state, judgement))
    document.update_statistics()
    out = BytesIO()
    document.write(out)
    return out.getvalue(), warnings


def _library() -> Any:
    """The library, imported only where a report is written; its types are partial."""
    import junitparser

    return junitparser


def _suite(state: RunState, node: NodeState, judged: NodeJudgement, nodes: Path) -> Any:
    suite = _library().TestSuite(xml_text(node.name))
    suite.hostname = xml_text(node.host or node.machine or node.name)
    suite.timestamp = _timestamp(node.started_at or state.started_at)
    for key, value in (("run", state.run), ("machine", node.machine), ("verdict", judged.verdict)):
        suite.add_property(key, xml_text(value))
    where = f"{state.deployment}.{node.name}" if state.deployment else node.name
    for target in judged.targets:
        suite.append(_case(where, node, target, nodes))
    told = {t.verdict for t in judged.targets}
    if judged.verdict not in (ev.PASSED, ev.SKIPPED) and judged.verdict not in told:
        suite.append(_node_case(where, judged, node.excused > 0))
    return suite


def _case(where: str, node: NodeState, target: TargetJudgement, nodes: Path) -> Any:
    """A case for one target of one configuration; a failing one carries the tail of the step that failed."""
    case = _library().TestCase(
        xml_text(target.target), xml_text(f"{where}.{target.configuration}"), round(target.duration, 3)
    )
    step = target.step or "main"
    log = step_tail(nodes, node.name, (target.configuration, target.target, step), LOG_LINES, LOG_SIZE)
    message = f"{target.step}: {target.reason or target.verdict}" if target.step else target.reason
    result = _result(target.verdict, message, log, node.excused > 0)
    if result is not None:
        case.result = result
    if log:
        case.system_out = xml_text(log)
    return case


def _node_case(where: str, judged: NodeJudgement, excused: bool) -> Any:
    """A case for the node itself, where none of its targets tells what became of it."""
    case = _library().TestCase("node", xml_text(where), 0.0)
    case.result = _result(judged.verdict, judged.reason, "", excused)
    return case


def _alone(state: RunState, judgement: Judgement) -> Any:
    """The suite of a run without a node, so that a consumer never takes an empty file for success."""
    suite = _library().TestSuite("run")
    suite.timestamp = _timestamp(state.started_at)
    case = _library().TestCase("run", xml_text(state.deployment or "testbed"), 0.0)
    first = judgement.first_cause
    case.result = _result(judgement.verdict, first.reason if first else "", "")
    suite.append(case)
    return suite


def _result(verdict: str, message: str, log: str, excused: bool = False) -> Any:
    """The element for a verdict, None for passed; a node that the others went on without only skips what it misses."""
    if verdict == ev.PASSED:
        return None
    library = _library()
    other = library.Skipped if excused else library.Error
    kind = {ev.FAILED: library.Failure, ev.SKIPPED: library.Skipped}.get(verdict, other)
    result = kind(xml_text(message or verdict), verdict)
    if log and kind is not library.Skipped:
        result.text = xml_text("\n".join(log.splitlines()[-20:]))
    return result


def _users_files(nodes: Path, node: str) -> Iterator[Path]:
    if not node or "/" in node or node.startswith("."):
        return
    for folder, folders, names in os.walk(nodes / node / "reports"):
        folders.sort()
        for name in sorted(names):
            if name.endswith(".xml"):
                yield Path(folder) / name


def _read(file: Path, limit: int) -> bytes:
    descriptor = open_regular(file)
    with os.fdopen(descriptor, "rb") as stream:
        raw = stream.read(limit + 1)
    if len(raw) > limit:
        raise Unfit(f"it is larger than {limit} bytes")
    return raw


def _users_suites(raw: bytes, node: NodeState, stem: str) -> Iterator[Any]:
    """The suites of a user's file with cases of their own, flat, under the node's name; none if it is no JUnit."""
    library = _library()
    try:
        if not check(raw):
            return
        document = library.JUnitXml.fromstring(raw)
    except (SyntaxError, ValueError, LookupError, expat.ExpatError) as error:
        raise Unfit(f"it is broken: {error}") from error
    except library.JUnitXmlError as error:
        raise Unfit("its elements are in a namespace, and JUnit's are in none") from error
    pending = list(document)[::-1]
    while pending:
        suite = pending.pop()
        pending.extend(list(suite.testsuites())[::-1])
        found = _flat(suite, node, stem)
        if found is not None:
            yield found


def _flat(suite: Any, node: NodeState, stem: str) -> Any:
    cases = list(suite.iterchildren(_library().TestCase))
    if not cases:
        return None
    flat = _library().TestSuite(f"{node.name}.{suite.name or stem}")
    flat.hostname = xml_text(node.host or node.machine or node.name)
    told = suite.timestamp or ""
    flat.timestamp = told if _MOMENT.fullmatch(told) else _timestamp(node.started_at)
    for case in cases:
        _settle_time(case)
        case.name = case.name or "unnamed"
        case.classname = case.classname or suite.name or stem
        flat.append(case)
    return flat


def _settle_time(case: Any) -> None:
    """Make the time of a user's case a number that every consumer reads, 0 where it was none."""
    try:
        seconds = case.time or 0.0
    except ValueError:
        seconds = 0.0
    case.time = round(seconds, 6) if math.isfinite(seconds) and seconds >= 0 else 0.0


def _timestamp(at: float | None) -> str | None:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S") if at and 0 < at < 2.5e11 else None
