"""Whole runs on workspaces of this machine, from a spec to a verdict, each as a process of its own.

A case is tests/cases/runs/NAME.yml, a spec, with NAME.expect.json and, where it stages files, a
folder NAME.
"""

from __future__ import annotations

import json
import os
import signal
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CASES = Path(__file__).parent.parent / "cases" / "runs"
NAMES = sorted(p.stem for p in CASES.glob("*.yml") if p.with_suffix(".expect.json").exists())


def act(run: Any, what: str) -> None:
    """Do what a case has done from outside: a command of testbed's, a signal to the run, the death of a part."""
    word, *rest = what.split()
    if word == "testbed":
        done = run.testbed(*(run.name if r == "RUN" else r for r in rest))
        assert done.returncode == 0, done
    elif word == "signal":
        run.process.send_signal(signal.Signals[rest[0]])
    elif word == "kill-agent":
        run.await_line(f"{rest[0]}  started on")
        os.kill(run.pid_of_agent(rest[0]), signal.SIGKILL)
    elif word == "kill-etcd":
        os.kill(run.etcd(), signal.SIGKILL)
    else:
        raise AssertionError(what)


def is_part(wanted: Any, found: Any) -> bool:
    """Whether all that is wanted is found: of a mapping its members, of a text a part of it."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(k in found and is_part(v, found[k]) for k, v in wanted.items())
    if isinstance(wanted, str) and isinstance(found, str):
        return wanted in found if " " in wanted else wanted == found
    return bool(wanted == found)


def junit_of(path: Path) -> dict[str, dict[str, str]]:
    """What a JUnit file says: suite -> case -> passed, failure, error or skipped."""
    told = ("failure", "error", "skipped")
    return {
        str(suite.get("name")): {
            str(case.get("name")): next((kind for kind in told if case.find(kind) is not None), "passed")
            for case in suite.iter("testcase")
        }
        for suite in ET.parse(path).getroot()
    }


@pytest.mark.parametrize("name", NAMES)
def test_case(name: str, start: Callable[..., Any]) -> None:
    """A run ends with the verdict, first cause, logs and exit code that its case names, and leaves nothing."""
    expect = json.loads((CASES / f"{name}.expect.json").read_text())
    run = start(CASES / f"{name}.yml", *expect.get("arguments", []), timing=expect.get("timing"))
    for step in expect.get("during", []):
        run.await_line(step["when"], step.get("count", 1))
        act(run, step["do"])
    code, out = run.end()
    told = "\n".join([*run.lines, out])
    assert code == expect["exit"], told
    report = run.report()
    assert (report["verdict"], report["exit_code"]) == (expect["verdict"], code), told
    wanted = expect.get("first_cause")
    assert (report["first_cause"] is None) == (wanted is None), told
    assert is_part(wanted, report["first_cause"]), report["first_cause"]
    assert {n["name"]: n["verdict"] for n in report["nodes"]} == expect["nodes"], told
    for node, steps in expect.get("steps", {}).items():
        found = {f"{s['configuration']}.{s['target']}.{s['step']}": s["verdict"] for n in report["nodes"]
                 if n["name"] == node for s in n["steps"]}  # fmt: skip
        assert is_part(steps, found), found
    for place, text in expect.get("logs", {}).items():
        assert text in run.log(*place.split("/", 1)), place
    for place, text in expect.get("files", {}).items():
        assert text in (run.path / place).read_text(errors="replace"), place
    suites = junit_of(run.path / "junit.xml")
    assert is_part(expect.get("junit", {}), suites), suites
    assert {name.partition(".")[0] for name in suites} == set(expect["nodes"])
    for text in expect.get("screen", []):
        assert text in told, told
    for text in expect.get("never", []):
        assert text not in told, told
    run.check_nothing_left()
    assert (run.path / "reports.tar.gz").stat().st_size > 0
    assert (run.path / "junit.xml").read_text().startswith("<?xml")


def test_there_are_cases() -> None:
    """The cases are found, and every expectation has its spec."""
    assert len(NAMES) > 15
    assert {p.name.partition(".")[0] for p in CASES.glob("*.expect.json")} == set(NAMES)
