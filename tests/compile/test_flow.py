"""The flow of a deployment and its doubts, as tables: tests/cases/flow/NAME.yml and NAME.expect, anybody can add some.

An ``.expect`` holds the table, a name a line (``kind name: set by > waited for by``), and the doubts
(``line:column message``, with the file's name where it is a staged one).
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from testbed.compile.doubts import doubts
from testbed.compile.flow import Flow, flow_of
from testbed.compile.names import Pattern, overlap
from testbed.compile.unfilled import variables_of
from testbed.diagnostics import Diagnostic
from testbed.spec import load
from testbed.spec.shell import mentions
from testbed.spec.staged import staged_texts

CASES = sorted((Path(__file__).parents[1] / "cases" / "flow").glob("*.yml"))
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*/*.yml"))


def flow_in(path: Path) -> Flow:
    """Read the flow of a spec's file."""
    deployment = load(path)
    return flow_of(deployment, staged_texts(deployment))


def told(found: Diagnostic, spec: Path) -> str:
    """A doubt in one line."""
    span = found.span
    assert span is not None
    file = "" if span.file == str(spec) else Path(span.file).name + ":"
    return f"{file}{span.line}:{span.column} {found.message}"


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_case(path: Path) -> None:
    """A spec's table and doubts are exactly those of its case."""
    flow = flow_in(path)
    lines = [
        f"{row.kind} {row.name}: {' '.join(row.set_by) or '-'} > {' '.join(row.waited_by) or '-'}"
        for row in flow.table()
    ]
    lines += ["", *(told(d, path) for d in doubts(flow))]
    assert "\n".join(lines).rstrip() + "\n" == path.with_suffix(".expect").read_text()


def test_every_doubt_points_at_its_command() -> None:
    """The span of a doubt holds the very words it speaks of, and it is a warning with a way out."""
    checked = 0
    for path in CASES:
        flow = flow_in(path)
        for doubt in doubts(flow):
            assert doubt.span is not None
            line = flow.sources[doubt.span.file].split("\n")[doubt.span.line - 1]
            assert line[doubt.span.column - 1 :].startswith(("testbed ", "{{", "$TESTBED_", "${TESTBED_"))
            assert doubt.severity == "warning"
            assert doubt.help
            checked += 1
    assert checked > 5


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r", "\u2028"])
def test_whatever_ends_a_line(ending: str, tmp_path: Path) -> None:
    """A doubt stands where the command does, whatever YAML takes for the end of a line."""
    lines = "deployment: ends", "configurations: {c: {test: testbed get -b x}}", "nodes: {n: {configurations: [c]}}", ""
    path = tmp_path / "ends.yml"
    path.write_bytes(ending.join(lines).encode())
    [doubt] = doubts(flow_in(path))
    assert doubt.span is not None
    assert (doubt.span.line, doubt.span.column) == (2, 28)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_the_examples_leave_no_doubt(path: Path) -> None:
    """No example gets a false warning."""
    assert [told(d, path) for d in doubts(flow_in(path))] == []


@pytest.mark.parametrize(
    ("one", "other", "fits"),
    [
        (("a",), ("a",), True),
        (("a",), ("b",), False),
        (("a.", None), ("a.b",), True),
        (("a.", None), ("b.a",), False),
        ((None,), ("anything",), True),
        (("a.", None, ".c"), ("a.b.d",), False),
        (("a.", None), (None, ".z"), True),
        (("a.", None), ("b.", None), False),
        ((None, ".x"), (None, ".y"), False),
        (("a.b.", None), ("a.", None), True),
        (("a+", None), ("a+1",), True),
    ],
)
def test_names_with_gaps(one: Pattern, other: Pattern, fits: bool) -> None:
    """Two names overlap where something can fill their gaps, in either order."""
    assert overlap(one, other) is fits
    assert overlap(other, one) is fits


@pytest.mark.parametrize(
    "script",
    [
        "testbed set x '" * 20000,
        'testbed set x "$(' * 20000,
        "testbed set " + "$(" * 50000,
        "testbed set " + "{" * 50000,
        "testbed get -b x \\\n" * 20000,
        "# testbed: sets x " * 20000,
    ],
)
def test_hostile_scripts_are_read_in_bounded_time(script: str) -> None:
    """Text that nests and never closes is read to its end, and not looked at more than so often."""
    assert len(mentions(script)) <= 4000


def test_documented_variables_are_set() -> None:
    """Every variable of the table in docs/spec.md is known to be set, and no other."""
    text = (Path(__file__).parents[2] / "docs" / "spec.md").read_text(encoding="utf-8")
    table = text.split("## What commands find", 1)[1].split("\n\n")[1]
    named = set(re.findall(r"`(TESTBED_[A-Z0-9_]+)`", table)) | {"TESTBED_PARAM_PORT"}
    assert set(variables_of(load(CASES[0].parent / "unset-variables.yml"))) == named


def test_a_thousand_nodes(tmp_path: Path) -> None:
    """Names that differ by node are told apart for many nodes, and each wait finds its setter."""
    path = tmp_path / "spec.yml"
    path.write_text(
        "deployment: many\nconfigurations:\n  w:\n    test: |\n"
        '      testbed set "up.$TESTBED_NODE" 1\n      testbed get -b "up.$TESTBED_NODE"\n'
        '      testbed get -b "down.$TESTBED_NODE"\n'
        "nodes:\n  w: {configurations: [w], count: 1000}\n"
    )
    flow = flow_in(path)
    assert len(flow.table()) == 2000
    assert [told(d, path) for d in doubts(flow)] == [
        "7:7 w-0, w-1 and 998 more wait for the key 'down.w-0', 'down.w-1', 'down.w-2', ..., which nobody sets"
    ]


def test_names_are_compared_once_for_all_nodes(tmp_path: Path) -> None:
    """Loops over all nodes cost no more comparisons of names than their configurations have names."""
    configurations, nodes = 20, 30
    script = (
        """{{test: "testbed set k.{0}.$TESTBED_NODE 1; for n in $TESTBED_NODES; do testbed get -b k.{0}.$n; done"}}"""
    )
    path = tmp_path / "loops.yml"
    path.write_text(
        "deployment: loops\nconfigurations:\n"
        + "".join(f"  c{i}: {script.format(i)}\n" for i in range(configurations))
        + f"nodes:\n  n: {{count: {nodes}, configurations: [{', '.join(f'c{i}' for i in range(configurations))}]}}\n"
    )
    overlap.cache_clear()
    flow = flow_in(path)
    assert len(flow.table()) == configurations * (nodes + 1)
    assert doubts(flow) == []
    asked = overlap.cache_info().hits + overlap.cache_info().misses
    assert asked < 4 * configurations * configurations * nodes
