"""A judged run becomes the files that people and machines read: report.json, junit.xml, reports.tar.gz."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from testbed.errors import LabError, UsageError
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
    failures: list[tuple[Path, OSError]] = []
    warnings: list[str] = []
    try:
        data.write(directory.report_json, state, judgement)
    except OSError as error:
        failures.append((directory.report_json, error))
    try:
        warnings = junit.write(directory.junit, state, judgement, directory.nodes)
    except OSError as error:
        failures.append((directory.junit, error))
    else:
        try:
            if copy is not None:
                shutil.copyfile(directory.junit, copy)
        except OSError as error:
            failures.append((copy or directory.junit, error))
    try:
        bundle.write(directory.bundle, directory.path, directory.run)
    except OSError as error:
        failures.append((directory.bundle, error))
    if failures:
        path, first = failures[0]
        raise LabError(
            f"cannot write {path}: {first.strerror or first}",
            f"make room, or choose another place; what the run brought is in {directory.path}",
        )
    return warnings


def make_room_for(copy: Path) -> None:
    """Make the folder of a JUnit file that is to be written. Raises `UsageError` where it never could be."""
    help = "--junit takes the name of a file that may be written"
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        if copy.exists() and not copy.is_file():
            raise UsageError(f"{copy} is no regular file", help)
    except OSError as error:
        raise UsageError(f"cannot write {copy}: {error.strerror}: {error.filename}", help) from error
    place = copy if copy.exists() else copy.parent
    if not os.access(place, os.W_OK):
        raise UsageError(f"cannot write {copy}: {place} may not be written", help)
