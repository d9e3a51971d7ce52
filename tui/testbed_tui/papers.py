"""What of a run's report lies on disk: JUnit cases and files. Names and texts in it came from nodes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from xml.etree import ElementTree

from testbed import events as ev
from testbed.report.harmless import harmless_line
from testbed.run.directory import RunDirectory

MOST = 5000
"""How many cases, and how many files, are listed."""


@dataclass(frozen=True, slots=True)
class Case:
    """A JUnit case; ``seconds`` None where it does not say."""

    suite: str
    name: str
    verdict: str
    seconds: float | None
    message: str


@dataclass(frozen=True, slots=True)
class File:
    """A file, by its name in the run's directory; ``size`` in bytes."""

    name: str
    size: int


def cases_of(directory: RunDirectory) -> list[Case]:
    """The cases of the run's ``junit.xml``, failed ones first; none where it is not written yet.

    The file is our own: users' parts of it were checked, and hold no entities, when they were merged.
    """
    try:
        root = ElementTree.parse(directory.junit).getroot()  # noqa: S314  see above
    except (OSError, ElementTree.ParseError):
        return []
    found = []
    for suite in root.iter("testsuite"):
        for case in suite.findall("testcase"):
            verdict, message = ev.PASSED, ""
            for tag, word in (("skipped", ev.SKIPPED), ("failure", ev.FAILED), ("error", ev.ERROR)):
                part = case.find(tag)
                if part is not None:
                    verdict, message = word, part.get("message") or part.text or ""
            name = ".".join(filter(None, (case.get("classname"), case.get("name"))))
            found.append(
                Case(
                    harmless_line(suite.get("name") or "", 60), harmless_line(name, 120), verdict,
                    _seconds(case.get("time")), harmless_line(message),
                )
            )  # fmt: skip
    return sorted(found, key=lambda c: _RANK.get(c.verdict, 2))[:MOST]


_RANK = {ev.FAILED: 0, ev.ERROR: 1}


def _seconds(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def files_of(directory: RunDirectory) -> list[File]:
    """The report's own files, then what came home; links are not followed."""
    tops = [directory.report_json, directory.junit, directory.bundle, directory.events, directory.plan, directory.spec]
    found = [File(t.name, t.stat().st_size) for t in tops if t.is_file()]
    for here, folders, files in os.walk(directory.nodes):
        folders.sort()
        for name in sorted(files):
            path = os.path.join(here, name)  # noqa: PTH118  os.walk's own
            if len(found) >= MOST:
                return found
            relative = os.path.relpath(path, directory.path)
            found.append(File(harmless_line(relative, 200), os.lstat(path).st_size))
    return found
