"""Every file in tests/cases/spec is a spec with what must be said of it beside it.

``NAME.expect``: the diagnostics in order, each ``line:column severity message`` (``FILE:line:column`` where it points
into another file, ``-`` where it points nowhere). ``NAME.json``: a good spec; the part of the deployment that the case
is about. ``NAME.args``: ``-p NAME=VALUE`` words. To add a case, add these files.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from testbed.diagnostics import Diagnostic, render
from testbed.errors import SpecError
from testbed.spec import load

CASES = Path(__file__).parents[1] / "cases" / "spec"
BAD = sorted(p.stem for p in CASES.glob("*.expect"))
GOOD = sorted(p.stem for p in CASES.glob("*.json"))


def overrides(name: str) -> dict[str, str]:
    """What the case's ``.args`` file sets."""
    file = CASES / f"{name}.args"
    words = shlex.split(file.read_text()) if file.exists() else []
    return dict(w.split("=", 1) for w in words if w != "-p")


def line(diagnostic: Diagnostic, spec: Path) -> str:
    """The diagnostic as a line of an ``.expect`` file."""
    span = diagnostic.span
    if span is None:
        place = "-"
    else:
        place = f"{span.line}:{span.column}"
        place = place if span.file == str(spec) else f"{Path(span.file).name}:{place}"
    return f"{place} {diagnostic.severity} {diagnostic.message}"


@pytest.mark.parametrize("name", BAD)
def test_bad_spec(name: str) -> None:
    """All mistakes of a spec are reported at once, in the file's order, each at its place and with a way out."""
    spec = CASES / f"{name}.yml"
    with pytest.raises(SpecError) as caught:
        load(spec, overrides(name))
    found = caught.value.diagnostics
    assert [line(d, spec) for d in found] == (CASES / f"{name}.expect").read_text().splitlines()
    assert all(d.help for d in found)
    assert all(d.span is None or d.span.file in caught.value.sources for d in found)
    text = render(found, caught.value.sources)
    assert all(c.isprintable() or c == "\n" for c in text)
    assert f"\n{text}".count("\nerror: ") == len(found)
    assert all(t == t.rstrip() for t in text.splitlines())


@pytest.mark.parametrize("name", GOOD)
def test_good_spec(name: str) -> None:
    """A right spec becomes the deployment that it describes."""
    spec = CASES / f"{name}.yml"
    wanted = json.loads((CASES / f"{name}.json").read_text())
    assert part(asdict(load(spec, overrides(name))), wanted) == wanted


def test_no_case_is_forgotten() -> None:
    """Every case file says what is expected of it, and is a case."""
    specs = {p.stem for p in CASES.glob("*.yml")}
    assert specs == set(BAD) | set(GOOD)
    assert {p.stem for p in CASES.glob("*.args")} <= specs
    assert not set(BAD) & set(GOOD)


def part(value: Any, wanted: Any) -> Any:
    """What ``value`` says about that which ``wanted`` speaks of."""
    if isinstance(wanted, dict) and isinstance(value, dict):
        return {k: part(value.get(k, "nothing at all"), w) for k, w in wanted.items()}
    if isinstance(wanted, list) and isinstance(value, (list, tuple)):
        return [part(v, w) for v, w in zip(value, wanted, strict=False)] + list(value[len(wanted) :])
    return value
