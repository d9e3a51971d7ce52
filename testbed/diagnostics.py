"""Diagnostics as data: a message, where it points, why, and what to do. Rendered in one place, in rustc's shape."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
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


BREAKS = re.compile(r"\r\n|[\n\r\x85\u2028\u2029]")
"""What ends a line in YAML."""
_WIDTH = 100  # cells of a source line that are shown
_MOST = 100  # diagnostics that are shown
_COLOURS = {"error": "\x1b[1;31m", "warning": "\x1b[1;33m", "gutter": "\x1b[1;34m", "strong": "\x1b[1m"}


def render(diagnostics: Sequence[Diagnostic], sources: Mapping[str, str], colour: bool = False) -> str:
    """The diagnostics as text for a person; ``sources`` maps a span's file to its text.

    Ends with a line that counts them, and with a line end. What could drive a terminal is made visible.
    """
    paint = _painted if colour else _plain
    lines = {file: BREAKS.split(text) for file, text in sources.items()}
    blocks = [_block(d, lines, paint) for d in diagnostics[:_MOST]]
    if len(diagnostics) > _MOST:
        blocks.append(f"... and {len(diagnostics) - _MOST} more\n")
    return "\n".join([*blocks, _summary(diagnostics)])


def to_json(diagnostic: Diagnostic) -> dict[str, Any]:
    """The diagnostic as plain data for a machine."""
    return asdict(diagnostic)


def visible(text: str) -> str:
    """The text with every character that a terminal would obey, or not show, written as an escape."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_glyph(c) for c in text)


def _glyph(character: str) -> str:
    if character.isprintable():
        return character
    if character == " " or unicodedata.category(character) == "Zs":
        return " "
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def _painted(text: str, style: str) -> str:
    return f"{_COLOURS[style]}{text}\x1b[0m"


def _plain(text: str, _: str) -> str:
    return text


def _block(diagnostic: Diagnostic, lines: Mapping[str, list[str]], paint: Callable[[str, str], str]) -> str:
    """One diagnostic in rustc's shape."""
    span = diagnostic.span
    severity = diagnostic.severity
    block = [paint(severity, severity) + paint(f": {visible(diagnostic.message)}", "strong")]
    gutter = " " * len(str(span.line)) if span else " "
    if span:
        block.append(f"{gutter}{paint('-->', 'gutter')} {visible(str(span))}")
        text = lines.get(span.file, [])
        if span.line <= len(text):
            code, marks = _excerpt(text[span.line - 1], span)
            bar = paint("|", "gutter")
            block.append(f"{gutter} {bar}")
            block.append(f"{paint(str(span.line), 'gutter')} {bar} {code}".rstrip())
            block.append(f"{gutter} {bar} {paint(marks, severity)}" if marks.strip() else f"{gutter} {bar}")
    for kind, said in [
        *(("note", n) for n in diagnostic.notes),
        *([("help", diagnostic.help)] if diagnostic.help else []),
    ]:
        first, *rest = said.splitlines() or [""]
        block.append(f"{gutter} {paint('=', 'gutter')} {paint(kind, 'strong')}: {visible(first)}")
        block += [f"{gutter}         {visible(line)}" for line in rest]
    return "\n".join(block) + "\n"


def _excerpt(line: str, span: Span) -> tuple[str, str]:
    """The line as shown, and the marks below it, both clipped around the span."""
    begin = min(span.column - 1, len(line))
    end = len(line) if span.end_line > span.line else min(span.end_column - 1, len(line))
    # Only what can come to be seen is measured: a line may be megabytes long.
    left, right = max(0, begin - _WIDTH), min(len(line), begin + _WIDTH)
    cells = [_cell(c) for c in line[left:right]]
    widths = [_cells(c) for c in cells]
    start, stop = begin - left, max(end - left, begin - left)
    low = start
    while low > 0 and sum(widths[low - 1 : start]) <= _WIDTH // 3:
        low -= 1
    if sum(widths[:stop]) <= _WIDTH:
        low = 0
    high = low
    while high < len(cells) and sum(widths[low : high + 1]) <= _WIDTH:
        high += 1
    before = "…" if left + low > 0 else ""
    after = "…" if left + high < len(line) else ""
    indent = len(before) + sum(widths[low:start])
    marks = "^" * max(1, sum(widths[start : min(stop, high)]))
    return before + "".join(cells[low:high]) + after, " " * indent + marks


def _cell(character: str) -> str:
    return "    " if character == "\t" else _glyph(character)


def _cells(shown: str) -> int:
    """How many columns of a terminal the text takes."""
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me") else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in shown
    )


def _summary(diagnostics: Sequence[Diagnostic]) -> str:
    counts = [(sum(d.severity == s for d in diagnostics), s) for s in ("error", "warning")]
    said = " and ".join(f"{n} {s}{'s' if n != 1 else ''}" for n, s in counts if n) or "nothing wrong"
    files = sorted({d.span.file for d in diagnostics if d.span})
    return f"{said} in {visible(files[0])}\n" if len(files) == 1 else f"{said}\n"
