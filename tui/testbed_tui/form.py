"""A form made from a spec's parameters: which fields there are, and whether what was typed is right.

A value is judged by the same code that judges ``-p NAME=VALUE``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.errors import SpecError, UsageError
from testbed.spec import load
from testbed.spec.findings import Findings
from testbed.spec.parameters import resolve
from testbed.spec.source import Item, parse, read

_BOUNDS = (
    ("minimum", "at least {}"), ("exclusiveMinimum", "more than {}"), ("maximum", "at most {}"),
    ("exclusiveMaximum", "less than {}"), ("minLength", "{} characters at least"), ("maxLength", "{} at most"),
    ("pattern", "like {}"), ("multipleOf", "a multiple of {}"), ("format", "{}"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter as a field: ``default`` as text, None where it has none; ``choices`` where it is one of few."""

    name: str
    title: str
    kind: str
    hint: str
    default: str | None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a spec's parameters, in the order of the file."""

    spec: Path
    deployment: str
    fields: tuple[Field, ...]
    _declared: Item | None = field(repr=False, default=None)

    def wrong(self, name: str, text: str) -> str:
        """What is wrong with that text as the parameter's value, in a sentence; empty if nothing is."""
        findings = Findings()
        resolve(self._declared, {name: text}, findings)
        return next((_told(d.message, name, text) for d in findings.diagnostics if f"-p {name}=" in d.message), "")

    def check(self, values: Mapping[str, str]) -> dict[str, str]:
        """What is wrong, by parameter; under an empty name what is wrong with the spec itself."""
        found = {f.name: self.wrong(f.name, values[f.name]) for f in self.fields if f.name in values}
        found.update({f.name: "it needs a value" for f in self.fields if f.default is None and f.name not in values})
        found = {name: told for name, told in found.items() if told}
        if not found:
            try:
                load(self.spec, values)
            except SpecError as error:
                first = error.diagnostics[0]
                place = f" (line {first.span.line})" if first.span is not None else ""
                found[""] = f"{first.message}{place}"
        return found


def form_of(path: Path) -> Form:
    """The form of the spec at ``path``. Raises `SpecError`, and `UsageError` where there is no such file."""
    if not path.is_file():
        raise UsageError(f"there is no spec {path}")
    findings = Findings()
    text = read(path, findings)
    root = parse(text, str(path), findings) if text is not None else None
    findings.check()
    declared = root.entry("parameters") if root is not None and root.entries is not None else None
    name = root.value.get("deployment") if root is not None and isinstance(root.value, dict) else ""
    entries = declared.children() if declared is not None and declared.entries is not None else ()
    fields = tuple(_field(str(n), item.value) for n, _, item in entries if isinstance(item.value, dict))
    return Form(path, str(name), fields, declared)


def _field(name: str, schema: Mapping[str, Any]) -> Field:
    kind = schema.get("type", "")
    kind = kind if isinstance(kind, str) else " or ".join(map(str, kind))
    choices: tuple[str, ...] = ()
    if isinstance(schema.get("enum"), list):
        choices = tuple(_text(value) for value in schema["enum"])
    elif kind == "boolean":
        choices = ("true", "false")
    hints = [kind] if kind and not choices else []
    hints += [words.format(schema[key]) for key, words in _BOUNDS if key in schema]
    if schema.get("description"):
        hints.append(str(schema["description"]))
    default = _text(schema["default"]) if "default" in schema else None
    return Field(name, str(schema.get("title", "")), kind, ", ".join(hints), default, choices)


def _text(value: Any) -> str:
    """The value as ``-p`` takes it."""
    return value if isinstance(value, str) else json.dumps(value)


def _told(message: str, name: str, text: str) -> str:
    return message.removeprefix(f"-p {name}={text}: ")
