"""Diagnostics as data: a message, where it points, why, and what to do. Rendered in one place, in rustc's shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """A stretch of a file; lines and columns count from 1, ``end_column`` is the first column after it."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One mistake (severity ``error``) or doubt (``warning``)."""

    message: str
    span: Span | None = None
    severity: str = "error"
    notes: tuple[str, ...] = field(default=())
    help: str = ""


def render(diagnostics: Sequence[Diagnostic], sources: Mapping[str, str], colour: bool = False) -> str:
    """The diagnostics as text for a person; ``sources`` maps a span's file to its text."""
    raise NotImplementedError


def to_json(diagnostic: Diagnostic) -> dict[str, Any]:
    """The diagnostic as plain data for a machine."""
    raise NotImplementedError
