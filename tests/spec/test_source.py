"""YAML with positions: the data is right, and so is where it stands."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from testbed.spec.findings import Findings
from testbed.spec.source import Item, ansible_value, parse, scalar

CASES = Path(__file__).parents[1] / "cases" / "spec"

DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def parsed(text: str) -> Item:
    """The document, which must be in order."""
    findings = Findings()
    item = parse(text, "f.yml", findings)
    assert findings.diagnostics == []
    assert item is not None
    return item


def items(item: Item) -> Iterator[Item]:
    """The item and all that it is made of, keys too."""
    yield item
    for _, key, value in item.children():
        yield key
        yield from items(value)
    for element in item.elements or ():
        yield from items(element)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("", None), ("~", None), ("null", None), ("NULL", None), ("nULL", "nULL"), ("true", True), ("False", False)],
        *[("yes", "yes"), ("on", "on"), ("y", "y"), ("0", 0), ("-7", -7), ("+7", 7), ("010", 10), ("0o10", 8)],
        *[("0x1F", 31), ("0b11", "0b11"), ("1_000", "1_000"), ("12:30", "12:30"), ("52:54:00:12:34:56",) * 2],
        *[("1.5", 1.5), (".5", 0.5), ("5.", 5.0), ("1e3", 1000.0), ("-1.5E-2", -0.015), (".inf", math.inf)],
        *[("-.INF", -math.inf), ("1.2.3", "1.2.3"), ("10.0.0.1", "10.0.0.1"), ("2026-01-02", "2026-01-02"), ("=", "=")],
        *[(".", "."), ("-", "-"), ("e3", "e3"), ("9" * 400, "9" * 400)],
    ],
)
def test_core_schema(text: str, value: Any) -> None:
    """A plain scalar is what YAML 1.2's core schema says, and otherwise text."""
    assert scalar(text) == value
    assert type(scalar(text)) is type(value)


@given(DATA)
def test_ansible_reads_the_same(data: Any) -> None:
    """Content for Ansible is read as libyaml and PyYAML read it, layout and quoting whatever they are."""
    assert ansible_value(parsed(yaml.safe_dump(data))) == data
    # Not all that PyYAML's own emitter leaves unescaped comes back from libyaml as it was; Ansible uses libyaml.
    text = yaml.safe_dump(data, default_flow_style=True, allow_unicode=True)
    assert ansible_value(parsed(text)) == yaml.load(text, Loader=yaml.CSafeLoader)


@pytest.mark.parametrize("name", sorted(p.stem for p in CASES.glob("good-*.yml")))
def test_spans_cover_their_text(name: str) -> None:
    """The span of every key and every plain value covers just its text."""
    text = (CASES / f"{name}.yml").read_text(encoding="utf-8")
    lines = text.split("\n")
    scalars = [i for i in items(parsed(text)) if i.text and i.plain and "\n" not in i.text]
    assert scalars
    for item in scalars:
        span = item.span
        assert lines[span.line - 1][span.column - 1 : span.end_column - 1] == item.text


def test_merge_order() -> None:
    """Merged keys come first, and what stands at the mapping itself, or earlier in the list, wins: as in PyYAML."""
    text = "a: &a {k: 1, l: 1}\nb: &b {l: 2, m: 2}\nc: {m: 3, n: 3, <<: [*a, *b]}\nd: {<<: *b, '<<': text}\n"
    assert parsed(text).value["c"] == yaml.safe_load(text)["c"] == {"k": 1, "l": 1, "m": 3, "n": 3}
    assert parsed(text).value["d"] == {"l": 2, "m": 2, "<<": "text"}


def test_keys_are_text() -> None:
    """A key of a spec is what is written, whatever it looks like; for Ansible it is what Ansible makes of it."""
    item = parsed("on: 1\n22: 2\n~: 3\n")
    assert list(item.value) == ["on", "22", "~"]
    assert list(ansible_value(item)) == [True, 22, None]
