"""Runs to be hurt, and what must hold when they are over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.agent.workspace import wait_free
from tests.faults.live import LIMIT, LiveRun

PING_PONG = """
deployment: ping-pong
finalise: all
configurations:
  ping:
    test: |
      for n in $(seq {rounds}); do
        testbed set "ping.$n" "$n"
        testbed get -b "pong.$n" >> "$TESTBED_REPORTS/heard"
      done
  pong:
    test: |
      for n in $(seq {rounds}); do
        testbed get -b "ping.$n" >> "$TESTBED_REPORTS/heard"
        testbed set "pong.$n" "$n"
      done
nodes:
  a: {{configurations: [ping]}}
  b: {{configurations: [pong]}}
"""
"""Two nodes that call each other, one value after the other, each waiting for the next."""

MARCHERS = ("a", "b", "c")

MARCH = """
deployment: march
finalise: all
configurations:
  marcher:
    test: python3 {program} {folder} {rounds} {gates}
nodes:
  a: {{configurations: [marcher]}}
  b: {{configurations: [marcher]}}
  c: {{configurations: [marcher]}}
"""
"""`MARCHERS` keep step by barriers, values, numbers and messages; the program is `march.py`."""


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs are registered in a place of the test's own."""
    monkeypatch.setenv("TESTBED_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., LiveRun]]:
    """Starts a run of a spec's text; at the end no agent of it may live on this machine."""
    started: list[LiveRun] = []

    def begin(text: str, timing: dict[str, float] | None = None, **options: Any) -> LiveRun:
        spec = tmp_path / f"spec-{len(started)}.yml"
        spec.write_text(text)
        run = LiveRun(spec, tmp_path / f"run-{len(started)}", timing or {}, **options)
        started.append(run)
        return run

    yield begin
    for run in started:
        run.end()
        if run.directory.workspaces.exists():
            for folder in run.directory.workspaces.iterdir():
                assert wait_free(run.workspace(folder.name), LIMIT)
