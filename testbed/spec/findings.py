"""What was found wrong so far: every stage adds to it, and it is raised once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from testbed.diagnostics import Diagnostic, Span
from testbed.errors import SpecError

_SUGGESTIONS = 50  # looking for the nearest of many names takes time; a file that needs more is another file


class Findings:
    """Diagnostics and the texts they point into."""

    def __init__(self) -> None:
        self.diagnostics: list[Diagnostic] = []
        self.sources: dict[str, str] = {}
        self._suggested = 0

    def add(self, message: str, span: Span | None = None, help: str = "", notes: tuple[str, ...] = ()) -> None:
        """Note one mistake."""
        self.diagnostics.append(Diagnostic(message, span, "error", notes, help))

    def suggest(self, word: str, names: Iterable[str]) -> str:
        """``did you mean 'X'?`` for the nearest of ``names``; empty where none is near."""
        self._suggested += 1
        if self._suggested > _SUGGESTIONS or len(word) > 100:
            return ""
        near = [n for n in names if abs(len(n) - len(word)) <= 4]
        found = difflib.get_close_matches(word, near, n=1, cutoff=0.6)
        return f"did you mean '{found[0]}'?" if found else ""

    def check(self) -> None:
        """Raise `SpecError` with all mistakes in the order of the file, each once, if there are any."""
        unique = dict.fromkeys(self.diagnostics)
        if unique:
            raise SpecError(sorted(unique, key=self._order), self.sources)

    def _order(self, diagnostic: Diagnostic) -> tuple[int, int, int]:
        span = diagnostic.span
        files = list(self.sources)
        return (files.index(span.file), span.line, span.column) if span else (len(files), 0, 0)


def shown(value: Any) -> str:
    """A value of the file in words, short: ``the number 5``, ``a mapping``, ``the string 'x'``."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return f"the number {clipped(str(value))}"
    if isinstance(value, str):
        return f"the string '{clipped(value)}'"
    return "a mapping" if isinstance(value, dict) else "a list"


def clipped(text: str, width: int = 40) -> str:
    """The text, or its beginning where it is longer than ``width`` characters."""
    return text if len(text) <= width else text[: width - 1] + "…"


def names(options: Iterable[str], most: int = 8) -> str:
    """Names for a help line: ``a, b, c``, the first ``most`` of them."""
    listed = list(options)
    return ", ".join(listed[:most]) + (", ..." if len(listed) > most else "")
