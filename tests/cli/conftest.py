"""A home for runs of its own, and runs in it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import testbed
from testbed.cli.main import cli
from testbed.run import directory
from testbed.run.directory import RunDirectory

CASES = Path(__file__).parent.parent / "cases" / "events"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Testbed's state, empty."""
    path = tmp_path / "state"
    monkeypatch.setenv("TESTBED_STATE_HOME", str(path))
    monkeypatch.setenv("NO_COLOR", "1")
    return path


@pytest.fixture
def record() -> Callable[..., RunDirectory]:
    """Make a run directory out of a recorded stream."""

    def make(case: str, run: str = "hello-20261121-023122-7f3a", at: Path | None = None) -> RunDirectory:
        made = directory.create(run, at)
        made.events.write_text((CASES / f"{case}.jsonl").read_text("utf-8"), "utf-8")
        return made

    return make


@pytest.fixture
def call() -> Callable[..., Result]:
    """Run the command line in this process."""
    return lambda *arguments: CliRunner().invoke(cli, list(arguments))


@pytest.fixture
def start() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line as a process of its own."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(Path(testbed.__file__).parent.parent)}
        command = [sys.executable, "-m", "testbed", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)

    return run
