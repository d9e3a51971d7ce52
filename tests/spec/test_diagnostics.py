"""How diagnostics look to a person and to a machine."""

from __future__ import annotations

import json
import re

from hypothesis import given
from hypothesis import strategies as st

from testbed.diagnostics import Diagnostic, Span, render, to_json


def shown(text: str, line: int, column: int, end: int, **more: str) -> list[str]:
    """The lines of a report on one diagnostic."""
    diagnostic = Diagnostic("wrong", Span("f.yml", line, column, line, end), **more)  # type: ignore[arg-type]
    return render([diagnostic], {"f.yml": text}).splitlines()


def test_shape() -> None:
    """A diagnostic looks as rustc's do: message, place, line, underlined span, notes, help; a count ends the report."""
    span = Span("deployment.yml", 12, 5, 12, 9)
    found = Diagnostic("unknown key 'nmae'", span, "error", ("one note", "two\nlines"), "did you mean 'name'?")
    source = "\n" * 11 + "    nmae: x\n"
    assert render([found, found], {"deployment.yml": source}) == (
        2
        * (
            "error: unknown key 'nmae'\n"
            "  --> deployment.yml:12:5\n"
            "   |\n"
            "12 |     nmae: x\n"
            "   |     ^^^^\n"
            "   = note: one note\n"
            "   = note: two\n"
            "           lines\n"
            "   = help: did you mean 'name'?\n"
            "\n"
        )
        + "2 errors in deployment.yml\n"
    )


def test_without_span() -> None:
    """A diagnostic that points nowhere has its message and help all the same, and its severity is counted."""
    found = [Diagnostic("no such parameter", help="remove it"), Diagnostic("odd", severity="warning")]
    assert render(found, {}) == (
        "error: no such parameter\n  = help: remove it\n\nwarning: odd\n\n1 error and 1 warning\n"
    )


def test_tabs_and_wide_characters() -> None:
    """The underline stands below its span where tabs and wide or combining characters come before and in it."""
    lines = shown("\t漢e\u0301 name: x", 1, 6, 10)
    assert lines[3] == "1 |     漢e\u0301 name: x"
    assert lines[4] == "  |         ^^^^"
    assert shown("漢字: 1", 1, 1, 3)[4] == "  | ^^^^"


def test_long_line() -> None:
    """Of a line of megabytes the part around the span is shown."""
    text = "a" * 1_000_000 + " here " + "b" * 1_000_000
    lines = shown(text, 1, 1_000_002, 1_000_006)
    assert len(lines[3]) < 120
    begin = lines[4].index("^^^^")
    assert lines[3][begin : begin + 4] == "here"
    assert lines[3].endswith("…")
    assert lines[3][4] == "…"


def test_several_lines() -> None:
    """A span over several lines is shown by its first."""
    diagnostic = Diagnostic("wrong", Span("f.yml", 1, 4, 3, 1))
    assert "  |    ^^^^^" in render([diagnostic], {"f.yml": "a: b c d\n  e\n"}).splitlines()


def test_span_outside() -> None:
    """A span that lies outside of its source, or has none, spoils nothing."""
    assert shown("short", 7, 1, 2)[1] == " --> f.yml:7:1"
    assert shown("short", 1, 400, 402)[4] == "  |      ^"
    assert "x.yml:1:1" in render([Diagnostic("wrong", Span("x.yml", 1, 1, 1, 2))], {})


def test_hostile_text_is_made_visible() -> None:
    """Nothing in a source, a name or a message can drive the terminal, not even invisibly."""
    evil = "\x1b[2J\x07\u202e\u200b\x9b"
    found = Diagnostic(f"m{evil}", Span(f"f{evil}", 1, 1, 1, 9), "error", (f"n{evil}",), f"h{evil}")
    text = render([found], {f"f{evil}": f"k{evil}: 1"})
    assert all(c.isprintable() or c == "\n" for c in text)
    assert r"k\x1b[2J\x07\u202e\u200b\x9b: 1" in text


def test_colour() -> None:
    """Colours add nothing but colour."""
    found = Diagnostic("wrong", Span("f.yml", 1, 1, 1, 3), help="mend it")
    painted = render([found], {"f.yml": "ab: 1"}, colour=True)
    assert painted != render([found], {"f.yml": "ab: 1"})
    assert re.sub(r"\x1b\[[0-9;]*m", "", painted) == render([found], {"f.yml": "ab: 1"})


def test_many() -> None:
    """Of very many diagnostics a hundred are shown and all are counted."""
    text = render([Diagnostic(f"wrong {i}") for i in range(250)], {})
    assert "wrong 99" in text
    assert "wrong 100" not in text
    assert text.endswith("... and 150 more\n\n250 errors\n")


def test_json() -> None:
    """The JSON form has all that the diagnostic has."""
    found = Diagnostic("wrong", Span("f.yml", 1, 2, 3, 4), "warning", ("a",), "b")
    assert json.loads(json.dumps(to_json(found))) == {
        "message": "wrong",
        "span": {"file": "f.yml", "line": 1, "column": 2, "end_line": 3, "end_column": 4},
        "severity": "warning",
        "notes": ["a"],
        "help": "b",
    }
    assert to_json(Diagnostic("wrong"))["span"] is None


@given(st.text(max_size=300), st.integers(1, 5), st.integers(1, 320), st.integers(0, 320))
def test_any_span_over_any_text(text: str, line: int, column: int, width: int) -> None:
    """Whatever the text and wherever the span, the report has one readable underline at most as wide as the screen."""
    lines = shown(text, line, column, column + width)
    assert all(c.isprintable() for found in lines for c in found)
    assert all(len(found) < 130 for found in lines[1:])
