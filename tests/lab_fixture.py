"""A practice lab of four hosts for the whole test session; tests that use it bear the marker ``lab``."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from testbed.errors import LabError
from testbed.lab import practice


@pytest.fixture(scope="session")
def practice_programs() -> None:
    """Skip where no practice lab can be made, saying what is missing."""
    try:
        practice.check_machine()
    except LabError as error:
        pytest.skip(f"{error.message} ({error.help})")


@pytest.fixture(scope="session")
def practice_lab(
    practice_programs: None,  # noqa: ARG001  asked for what it skips
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[practice.Lab]:
    """Four SSH hosts that all tests share: leave them as they were (make a lab of your own to break it)."""
    name = f"test-{os.getpid()}"
    lab = practice.up(4, tmp_path_factory.mktemp("practice") / "inventory.yml", name)
    try:
        yield lab
    finally:
        practice.down(name)
