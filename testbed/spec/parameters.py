"""Parameters: their schemas, their defaults, and what the command line says instead."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from testbed.diagnostics import Span
from testbed.spec.findings import Findings, names
from testbed.spec.schema import check_schema, check_value
from testbed.spec.source import Item, parse, scalar, unplaced


def resolve(
    declared: Item | None, overrides: Mapping[str, str], findings: Findings, faulty: Collection[int] = ()
) -> dict[str, Any]:
    """The value of each parameter that has a right one, in the order of the file; ``faulty`` ones are passed over."""
    values: dict[str, Any] = {}
    known = [name for name, _, _ in declared.children()] if declared else []
    for name in overrides:
        if name not in known:
            hint = findings.suggest(name, known) or (f"the spec has: {names(known)}" if known else "the spec has none")
            findings.add(f"the spec has no parameter '{name}' that -p could set", help=hint)
    for name, key, item in declared.children() if declared else ():
        if item.entries is None or id(item) in faulty or not check_schema(item, key.span, findings):
            continue
        default = item.entries.get("default")
        fine = default is None or _accepts(item, default[1], default[0].span, findings)
        if name in overrides:
            _override(name, overrides[name], item, values, findings)
        elif default is None:
            hint = f"give it on the command line: -p {name}=VALUE, or write a 'default' here"
            findings.add(f"the parameter '{name}' has no value", key.span, help=hint)
        elif fine:
            values[name] = default[1].value
    return values


def _accepts(schema: Item, item: Item, key: Span, findings: Findings) -> bool:
    if not _travels(item.value):
        findings.add("infinity and not-a-number cannot be passed to nodes", key, help="use a finite number")
        return False
    return check_value(schema.value, item, key, findings)


def _travels(value: Any) -> bool:
    """Whether JSON can hold the value."""
    try:
        json.dumps(value, allow_nan=False)
    except ValueError:
        return False
    return True


def _override(name: str, text: str, schema: Item, values: dict[str, Any], findings: Findings) -> None:
    """Take the text as YAML, or as it stands where the schema accepts only that."""
    trials = []
    for candidate in (_as_yaml(text), unplaced(text, text)):
        if candidate is not None:
            trials.append(Findings())
            if _accepts(schema, candidate, candidate.span, trials[-1]):
                values[name] = candidate.value
                return
    for diagnostic in trials[0].diagnostics:
        findings.add(f"-p {name}={text}: {diagnostic.message}", help=diagnostic.help, notes=diagnostic.notes)


def _as_yaml(text: str) -> Item | None:
    """The text as a YAML value, None where it is none."""
    if not text.startswith(("[", "{", '"', "'")):
        return unplaced(scalar(text.strip()), text)
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        return None  # bytes of the command line that are no UTF-8
    trial = Findings()
    item = parse(text, "", trial)
    return item if not trial.diagnostics else None
