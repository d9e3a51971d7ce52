"""A home with recorded runs, and nothing of anybody's own."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from testbed.run.directory import RunDirectory

CASES = Path(__file__).parent.parent / "cases"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Testbed's state: the recorded run and, below, room for more."""
    path = tmp_path / "state"
    monkeypatch.setenv("TESTBED_STATE_HOME", str(path))
    (path / "runs").mkdir(parents=True)
    return path


@pytest.fixture
def recorded(home: Path) -> RunDirectory:
    """The recorded run: five nodes, of which one fails and is the cause of all that follows."""
    source = CASES / "tui" / "image-store"
    name = (source / "run-id").read_text("utf-8").strip()
    shutil.copytree(source, home / "runs" / name)
    return RunDirectory(home / "runs" / name)
