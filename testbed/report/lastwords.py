"""The first cause in the words of the step that failed, as far as its log is at home."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from testbed import events as ev
from testbed.report.files import NAME, read_tail, step_log
from testbed.report.verdict import Judgement

LONGEST = 200
"""Characters of a step's last line that a reason takes."""

_AFTERWARDS = re.compile(r"testbed [\w ]+: the run is aborted ")
"""What a word says that the step left waiting in the background: the abort follows from the failure."""


def complete(judgement: Judgement, nodes: Path) -> Judgement:
    """The judgement, an exit code as first cause completed by the last line that the step wrote to stderr.

    ``nodes`` is the run's directory of nodes. Where the log is not at home or empty the judgement is as before.
    """
    first = judgement.first_cause
    if first is None or first.verdict != ev.FAILED or first.exit_code is None or not NAME.fullmatch(first.node):
        return judgement
    log = step_log(nodes / first.node / "logs", first.configuration, first.target, first.step, "err")
    lines = read_tail(log, 4096).split("\n") if log else []
    words = next((line.strip() for line in reversed(lines) if line.strip() and not _AFTERWARDS.match(line)), "")
    if not words:
        return judgement
    return replace(judgement, first_cause=replace(first, reason=f"{first.reason}: {words[:LONGEST]}"))
