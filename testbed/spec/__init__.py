"""The deployment spec: YAML in, a frozen `Deployment` or every mistake at once out."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from testbed.spec.model import Deployment

__all__ = ["load"]

_NONE: Mapping[str, str] = MappingProxyType({})


def load(path: Path, overrides: Mapping[str, str] = _NONE, text: str | None = None) -> Deployment:
    """The deployment that the file at ``path`` describes.

    ``overrides`` are values of parameters as given on a command line; each is read as YAML, and as plain text where
    the parameter's schema wants that. ``text`` stands for the file's content where it was read before. Raises
    `testbed.errors.SpecError` with every mistake found.
    """
    from testbed.spec.parse import load as parsed  # YAML and JSON Schema cost start-up time that --help need not pay

    return parsed(path, overrides, text)
