"""Where the files are that ship with testbed but are no Python: schemas and playbooks."""

from __future__ import annotations

from pathlib import Path

from testbed.errors import TestbedError

_PACKAGE = Path(__file__).resolve().parent


def schema(name: str) -> Path:
    """The JSON Schema called ``name`` (``deployment``, ...); raises `TestbedError` where the installation lacks it."""
    return _find(f"schemas/{name}.schema.json")


def playbooks() -> Path:
    """The folder of playbooks, task files and plugins; raises `TestbedError` where the installation lacks it."""
    return _find("playbooks")


def _find(path: str) -> Path:
    # A wheel carries the files in the package; a checkout (and an editable install) has them beside it.
    for place in (_PACKAGE / "_data" / path, _PACKAGE.parent / path):
        if place.exists():
            return place
    raise TestbedError(f"testbed's own {path} is not installed", help="install testbed again; this copy is incomplete")
