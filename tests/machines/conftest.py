"""Whole runs by the command itself, on labs that tests share or may break."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from machines_bench import Bench

from testbed.lab import practice


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """The command, in a temporary folder."""
    return Bench(tmp_path)


@pytest.fixture(scope="module")
def breakable_lab(
    practice_programs: None,  # noqa: ARG001  asked for what it skips
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[int], practice.Lab]]:
    """Make labs that a test may break; all are taken down with the module."""
    made: list[str] = []

    def make(count: int) -> practice.Lab:
        name = f"break-{os.getpid()}-{len(made)}"
        made.append(name)
        return practice.up(count, tmp_path_factory.mktemp("breakable") / "inventory.yml", name)

    try:
        yield make
    finally:
        for name in made:
            practice.down(name)
