"""The published JSON Schema laid on a spec, and what it finds said in words.

Two keywords of the schema itself carry the words: ``errorMessage`` (which editors show, too) and ``help``.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from testbed import resources
from testbed.diagnostics import Span
from testbed.spec.findings import Findings, clipped, names, shown
from testbed.spec.source import Item

if TYPE_CHECKING:
    from jsonschema import ValidationError
    from jsonschema.protocols import Validator

_EXPECTED = {
    "string": "a string",
    "object": "a mapping",
    "array": "a list",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "nothing",
}
_ANNOTATIONS = (
    *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "format"),
    *("contentEncoding", "contentMediaType", "contentSchema", "then", "else", "minContains", "maxContains"),
)
_DOLLAR = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]])*\]|\$", re.S)
_YAML_1_1_BOOLEANS = {"yes": "true", "on": "true", "y": "true", "no": "false", "off": "false", "n": "false"}


@functools.cache
def _dialect() -> Any:
    """JSON Schema 2020-12 whose ``uniqueItems`` takes linear time for whatever the list holds.

    A ``$`` in its patterns is the very end of a text, as in the regular expressions of JSON Schema.
    """
    from jsonschema import Draft202012Validator, ValidationError, validators

    def unique(_: Validator, wanted: bool, instance: Any, __: Any) -> Iterator[ValidationError]:
        if wanted and isinstance(instance, list) and len({_identity(e) for e in instance}) < len(instance):
            yield ValidationError("not unique")

    def pattern(_: Validator, wanted: str, instance: Any, __: Any) -> Iterator[ValidationError]:
        exact = _DOLLAR.sub(lambda part: r"\Z" if part[0] == "$" else part[0], wanted)
        if isinstance(instance, str) and not re.search(exact, instance):
            yield ValidationError(f"{shown(instance)} does not match '{wanted}'")

    extend: Any = validators.extend
    return extend(Draft202012Validator, {"uniqueItems": unique, "pattern": pattern})


def _identity(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


@functools.cache
def _schema() -> dict[str, Any]:
    return cast("dict[str, Any]", json.loads(resources.schema("deployment").read_text(encoding="utf-8")))


@functools.cache
def _validator() -> Validator:
    return cast("Validator", _dialect()(_schema()))


def check(root: Item, findings: Findings) -> set[int]:
    """Note what the schema finds; gives the ``id`` of every item with a fault at or below it."""
    below = _schema()["$defs"]
    places = {
        "at the top": _schema(),
        "in a configuration": below["configuration"],
        "in a target": below["target-mapping"],
        "in a service": below["service"],
        "in a node": below["node"],
    }
    homes = {
        name: [p for p, s in places.items() if name in s["properties"]]
        for s in places.values()
        for name in s["properties"]
    }
    return Faults(root, findings, homes=homes).note(_validator().iter_errors(root.value))


def check_value(schema: Mapping[str, Any], item: Item, key: Span, findings: Findings) -> bool:
    """Whether a parameter's schema accepts the value of ``item``; what it says against it is noted."""
    errors = list(_dialect()(schema).iter_errors(item.value))
    Faults(item, findings, key).note(errors)
    return not errors


def check_schema(item: Item, key: Span, findings: Findings) -> bool:
    """Whether ``item`` is itself a JSON Schema that can be used; what is wrong with it is noted."""
    from jsonschema import Draft202012Validator

    meta = Draft202012Validator(Draft202012Validator.META_SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)
    errors = list(meta.iter_errors(item.value))
    Faults(item, findings, key).note(errors)
    reference = next(_references(item), None)
    if reference:
        findings.add(
            f"'{reference.text}' cannot be used in a parameter",
            reference.span,
            help="write the schema out; YAML's anchors can share parts of it",
        )
    unknown = [k for name, k, _ in item.children() if name not in _keywords() and not name.startswith(("$", "x-"))]
    for name in unknown:
        hint = findings.suggest(name.text or "", _keywords()) or "see JSON Schema for what can stand here"
        findings.add(f"unknown key '{clipped(name.text or '')}'", name.span, help=hint)
    return not errors and not unknown and reference is None


@functools.cache
def _keywords() -> tuple[str, ...]:
    """What can stand in a JSON Schema."""
    from jsonschema import Draft202012Validator

    return (*_ANNOTATIONS, *Draft202012Validator.VALIDATORS)


def _references(item: Item) -> Iterator[Item]:
    for name, key, value in item.children():
        if name.startswith("$") and name != "$comment":
            yield key
        elif name not in ("default", "const", "enum", "examples"):
            yield from _references(value)
    for element in item.elements or ():
        yield from _references(element)


def describe(error: ValidationError) -> tuple[str, str]:
    """Message and help for one fault of a value."""
    message, hint = _words(error)
    found = shown(error.instance)
    if message:
        return f"{message}: found {found}" if _says_value(error) else message, hint
    if error.validator == "type" and re.match(r"[\w-]+:\S", str(error.instance)):
        hint = "a key needs a space after its ':'"
    said, usual = _usual(error, found)
    return said, hint or usual


def _usual(error: ValidationError, found: str) -> tuple[str, str]:
    """Message and help for a fault that the schema has no words for."""
    value: Any = error.validator_value
    match error.validator:
        case "type":
            kinds = [value] if isinstance(value, str) else list(value)
            expected = " or ".join(_EXPECTED[k] for k in kinds)
            return f"expected {expected}, found {found}", _cure(kinds, error.instance)
        case "minItems" | "minProperties" | "minLength":
            return f"this must not be empty{'' if value == 1 else f': at least {value}'}", "fill it in, or remove it"
        case "uniqueItems":
            return "the same thing stands twice in this list", "remove one of them"
        case "enum":
            return f"expected one of {names(map(str, value))}, found {found}", "choose one of these"
        case "minimum":
            return f"must be at least {value}, found {found}", f"use {value} or more"
        case "maximum":
            return f"must be at most {value}, found {found}", f"use {value} or less"
        case "format":
            return f"this is no {value}: found {found}", "mend it"
    return clipped(error.message, 200), "compare it with the schema above it"


def _cure(kinds: list[str], instance: Any) -> str:
    if kinds == ["boolean"]:
        word = _YAML_1_1_BOOLEANS.get(str(instance).lower(), "true or false")
        return f"write {word}, without quotes"
    if instance is None:
        return "write a value, or remove the key"
    if kinds == ["string"] and not isinstance(instance, (dict, list)):
        return "quote it"
    return f"write {' or '.join(_EXPECTED[k] for k in kinds)} here"


def _words(error: ValidationError) -> tuple[str, str]:
    """``errorMessage`` and ``help`` of the schema, or of the one that offers it as a branch for the same value."""
    at: Any = error
    while at is not None:
        schema = at.schema if isinstance(at.schema, dict) else {}
        if "errorMessage" in schema or "help" in schema:
            return str(schema.get("errorMessage", "")), str(schema.get("help", ""))
        at = at.parent if not at.path else None
    return "", ""


def _says_value(error: ValidationError) -> bool:
    return error.validator != "not" and not isinstance(error.instance, dict)


class Faults:
    """jsonschema's errors for one tree of items, pointed at keys and values.

    ``key`` is the root's own key; ``homes`` tells of keys where they have their place.
    """

    def __init__(
        self,
        root: Item,
        findings: Findings,
        key: Span | None = None,
        homes: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.root = root
        self.findings = findings
        self.key = key
        self.homes = homes or {}
        self.faulty: set[int] = set()
        self.unknown: dict[int, set[str]] = {}  # items with unknown keys, and which keys these were meant to be

    def note(self, errors: Iterable[ValidationError]) -> set[int]:
        """Note them all; gives the ``id`` of every item with a fault at or below it."""
        leaves = [leaf for error in errors for leaf in _meant(error)]
        for leaf in sorted(leaves, key=lambda e: e.validator != "additionalProperties"):
            self._note(leaf)
        return self.faulty

    def _note(self, error: ValidationError) -> None:
        item, key = self._locate(error.absolute_path)
        schema = error.schema if isinstance(error.schema, dict) else {}
        here = self._span(item, key)
        match error.validator:
            case "additionalProperties" if error.validator_value is False:
                self._unknown(item, schema)
            case "required":
                wanted: Any = error.validator_value
                missing = next((n for n in wanted if error.message.startswith(f"{n!r} is")), "a key")
                if missing in self.unknown.get(id(item), ()):
                    return
                at = here if key else Span(self.root.file, 1, 1, 1, 2)
                hint = schema.get("help", "add it") if key else "a spec has 'deployment', 'configurations' and 'nodes'"
                self.findings.add(f"'{missing}' is missing", at, help=hint)
            case "anyOf" | "minProperties" | "maxProperties" if id(item) in self.unknown:
                pass  # mending the unknown keys mends that
            case "uniqueItems":
                self._twice(item)
            case "not" if key and "errorMessage" in schema and self._names(error) is None:
                self.findings.add(schema["errorMessage"], key, help=schema.get("help", ""))
            case _:
                message, hint = describe(error)
                name = self._names(error)
                if name is not None:
                    pair = (item.entries or {}).get(name)
                    here = pair[0].span if pair else here
                    self.faulty.update({id(pair[1])} if pair else ())
                self.findings.add(message, here, help=hint)

    def _names(self, error: ValidationError) -> str | None:
        """The key that is wrong where the error is about a mapping's keys."""
        return str(error.instance) if "propertyNames" in error.absolute_schema_path else None

    def _unknown(self, item: Item, schema: Mapping[str, Any]) -> None:
        known = list(schema.get("properties", ()))
        beside = list(schema.get("patternProperties", ()))
        for name, key, _ in item.children():
            if name in known or any(re.search(p, name) for p in beside):
                continue
            near = self.findings.suggest(name, known)
            self.unknown.setdefault(id(item), set()).update(k for k in known if near == f"did you mean '{k}'?")
            hint = near or f"known here: {names(known, 20)}"
            if name in self.homes:
                hint = f"its place is {' or '.join(self.homes[name])}; known here: {names(known, 20)}"
            elif "\xa0" in name:
                hint = "it holds a no-break space, which is no indentation: use plain ones"
            elsewhere = key.start.index < item.start.index
            notes = (f"merged in at {item.start.line + 1}:{item.start.column + 1}",) if elsewhere else ()
            self.findings.add(f"unknown key '{clipped(name)}'", key.span, help=hint, notes=notes)

    def _twice(self, item: Item) -> None:
        seen: dict[str, Item] = {}
        for element in item.elements or ():
            same = _identity(element.value)
            first = seen.get(same)
            seen.setdefault(same, element)
            if first is not None:
                note = f"first at {first.span.line}:{first.span.column}"
                self.findings.add(f"{shown(element.value)} stands here twice", element.span, "remove one", (note,))

    def _locate(self, path: Iterable[str | int]) -> tuple[Item, Span | None]:
        """The item at ``path`` and its key's place, or its own as a list's element; all on the way are faulty."""
        item, key = self.root, self.key
        self.faulty.add(id(item))
        for part in path:
            if item.entries is not None:
                name, item = item.entries[str(part)]
                key = name.span
            elif item.elements is not None:
                item = item.elements[int(part)]
                key = item.span
            self.faulty.add(id(item))
        return item, key

    def _span(self, item: Item, key: Span | None) -> Span:
        """The smallest place that shows what is wrong: a scalar itself, for all else its key."""
        if key and (item.text is None or not item.text):
            return key
        return item.span


def _meant(error: ValidationError) -> Iterator[ValidationError]:
    """The faults of the branch that was obviously meant, where the schema offers several."""
    if error.validator not in ("anyOf", "oneOf") or not error.context:
        yield error
        return
    branches: dict[int, list[ValidationError]] = {}
    for inner in error.context:
        branches.setdefault(int(inner.schema_path[0]), []).append(inner)
    fitting = [b for b in branches.values() if not any(e.validator == "type" and not e.path for e in b)]
    if len(fitting) != 1 or all(e.validator == "required" and not e.path for e in fitting[0]):
        yield error
        return
    for inner in fitting[0]:
        yield from _meant(inner)
