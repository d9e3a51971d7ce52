"""A judged run becomes the files that people and machines read: report.json, junit.xml, reports.tar.gz."""

from __future__ import annotations

import shutil
from pathlib import Path

from testbed.errors import LabError
from testbed.report import bundle, data, junit
from testbed.report.state import RunState
from testbed.report.verdict import Judgement
from testbed.run.directory import RunDirectory


def write_outcome(
    directory: RunDirectory, state: RunState, judgement: Judgement, copy: Path | None = None
) -> list[str]:
    """Write the reports, and the JUnit file to ``copy`` too; gives warnings about users' files that were not merged.

    Raises `LabError` when one of them cannot be written, after the others are.
    """
    failures: list[OSError] = []
    warnings: list[str] = []
    try:
        data.write(directory.report_json, state, judgement)
    except OSError as error:
        failures.append(error)
    try:
        warnings = junit.write(directory.junit, state, judgement, directory.nodes)
        if copy is not None:
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(directory.junit, copy)
    except OSError as error:
        failures.append(error)
    try:
        bundle.write(directory.bundle, directory.path, directory.run)
    except OSError as error:
        failures.append(error)
    if failures:
        first = failures[0]
        raise LabError(
            f"cannot write {first.filename}: {first.strerror}", f"make room; the run's events are in {directory.events}"
        )
    return warnings
