"""YAML as data that remembers where each key and value stands.

One pass over libyaml's events builds a tree of `Item`; nothing is expanded or recursed into while its size is not
known, so that no text of bounded length costs more than bounded time and memory.

Plain scalars are read by the core schema of YAML 1.2: ``yes``, ``on``, ``12:30`` and ``52:54:00:12:34:56`` are
strings. Content that goes to Ansible can be read as Ansible reads it with `ansible_value`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from testbed.diagnostics import BREAKS, Diagnostic, Span
from testbed.spec.findings import Findings, clipped, shown

SIZE_LIMIT = 4 * 1024 * 1024
"""How large a file may be, in bytes."""
ITEM_LIMIT = 200_000
"""How many keys and values a file may hold once its aliases are followed."""
DEPTH_LIMIT = 100
"""How deep mappings and lists may nest."""

_NULL = re.compile(r"~|null|Null|NULL|")
_TRUE, _FALSE = frozenset({"true", "True", "TRUE"}), frozenset({"false", "False", "FALSE"})
_INT = re.compile(r"[-+]?[0-9]{1,300}|0o[0-7]{1,300}|0x[0-9a-fA-F]{1,300}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"([-+]?)\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_YAML = "tag:yaml.org,2002:"


class _Unreadable(Exception):
    """Reading cannot go on; what is wrong has been noted."""


@dataclass(slots=True, eq=False)
class Item:
    """A value of the file: ``value`` is plain data, the members say what it is made of and where.

    Exactly one of ``entries`` (a mapping: name to key and value), ``elements`` (a list) and ``text`` (a scalar) is
    not None. An alias is the very item it names, so one item may stand in many places.
    """

    file: str
    start: Any
    end: Any
    value: Any = None
    entries: dict[str, tuple[Item, Item]] | None = None
    elements: list[Item] | None = None
    text: str | None = None
    plain: bool = False
    tag: str | None = None
    size: int = 1
    depth: int = 0
    merged: list[Item] = field(default_factory=list)
    open: bool = False

    @property
    def span(self) -> Span:
        """Where it stands; a mapping or list counts as its first line."""
        return _span(self.file, self.start, self.end)

    def entry(self, name: str) -> Item | None:
        """The value of the key ``name``, None where there is none."""
        pair = (self.entries or {}).get(name)
        return pair[1] if pair else None

    def children(self) -> Iterator[tuple[str, Item, Item]]:
        """Name, key and value of each member of a mapping; nothing for anything else."""
        for name, (key, value) in (self.entries or {}).items():
            yield name, key, value


def read(path: Path, findings: Findings) -> str | None:
    """The text of the file, noted as a source; None where it cannot be read, the reason being noted."""
    name = str(path)
    try:
        with path.open("rb") as stream:
            raw = stream.read(SIZE_LIMIT + 1)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        hint = "name the YAML file in that folder" if isinstance(error, IsADirectoryError) else "check the path"
        findings.add(f"cannot read {name}: {reason}", help=hint)
        return None
    if len(raw) > SIZE_LIMIT:
        findings.add(
            f"{name} is larger than {SIZE_LIMIT // 1024 // 1024} MiB, too large for a deployment spec",
            help="is it the right file? Large contents belong in files that the spec names under 'files:'",
        )
        return None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        text = raw.decode("utf-8-sig", errors="replace")
        findings.sources[name] = text
        # Counted with the same decoder that made the text, so that the column is right after earlier faults too.
        before = raw[: error.start].decode("utf-8-sig", errors="replace")
        findings.add(
            f"not UTF-8: the byte 0x{raw[error.start]:02x} at offset {error.start} begins no character",
            _point(name, before, 1),
            help="save the file as UTF-8",
        )
        return None
    findings.sources[name] = text
    return text


def parse(text: str, name: str, findings: Findings, foreign_tags: bool = False) -> Item | None:
    """The one document in ``text``; None where it is not readable YAML, the reasons being noted.

    Duplicate keys are noted, the first one stands. ``foreign_tags`` passes over tags that YAML does not know
    (``!vault``).
    """
    reader = _Reader(name, findings, foreign_tags)
    try:
        return reader.document(text)
    except _Unreadable:
        return None
    except yaml.reader.ReaderError as error:
        before = text.encode()[: error.position].decode(errors="ignore")
        findings.add(
            f"the character U+{int(error.character):04X} may not stand in YAML",
            _point(name, before, 1),
            help="remove it; in a double-quoted string it can be written as an escape",
        )
    except yaml.MarkedYAMLError as error:
        findings.diagnostics.append(_syntax(error, text, name))
    return None


def scalar(text: str) -> Any:
    """The value of a plain scalar by YAML 1.2's core schema: None, a boolean, a number or the text itself."""
    if _NULL.fullmatch(text):
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.fullmatch(text) and not text.isdigit():
        return float(text)
    if special := _SPECIAL.fullmatch(text):
        return float("nan") if special[1] is None else float(special[1] + "inf")
    return text


def ansible_value(item: Item) -> Any:
    """The plain data of ``item`` as Ansible reads it (YAML 1.1: ``yes`` is true, ``0644`` is octal)."""
    if item.entries is not None:
        return {_ansible_scalar(k): ansible_value(v) for _, k, v in item.children()}
    if item.elements is not None:
        return [ansible_value(e) for e in item.elements]
    return _ansible_scalar(item)


def unplaced(value: Any, text: str) -> Item:
    """A scalar that stands in no file, such as one from the command line."""
    mark = yaml.Mark("", 0, 0, 0, None, 0)
    return Item("", mark, mark, value=value, text=text)


def _ansible_scalar(item: Item) -> Any:
    assert item.text is not None  # noqa: S101  keys and what is no container are scalars
    if not item.plain or item.tag is not None:
        return item.value
    resolver: Any = yaml.resolver.Resolver()
    tag = str(resolver.resolve(yaml.ScalarNode, item.text, (True, False)))
    # A date stays text: it reaches templates and modules looking as it was written.
    if tag.removeprefix(_YAML) not in ("null", "bool", "int", "float"):
        return item.text
    try:
        return yaml.constructor.SafeConstructor().construct_object(yaml.ScalarNode(tag, item.text))
    except ValueError:
        return item.text


class _Reader:
    """Builds the tree from events, counting as it goes."""

    def __init__(self, name: str, findings: Findings, foreign_tags: bool) -> None:
        self.name = name
        self.findings = findings
        self.foreign_tags = foreign_tags
        self.anchors: dict[str, Item] = {}
        self.stack: list[tuple[Item, list[Item]]] = []  # open containers, and their parts so far
        self.root: Item | None = None
        self.documents = 0
        self.work = 0

    def document(self, text: str) -> Item | None:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.ScalarEvent):
                self._place(self._scalar(event), event)
            elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
                self._open(event)
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                self._close()
            elif isinstance(event, yaml.AliasEvent):
                self._place(self._alias(event), event)
            elif isinstance(event, yaml.DocumentStartEvent):
                self.documents += 1
                if self.documents == 2:
                    self._stop("a second document begins here", event, "a spec is one YAML document; remove the rest")
        return self.root

    def _stop(self, message: str, mark: Any, hint: str, notes: tuple[str, ...] = ()) -> None:
        self.findings.add(message, _span(self.name, mark.start_mark, mark.end_mark), help=hint, notes=notes)
        raise _Unreadable

    def _scalar(self, event: yaml.ScalarEvent) -> Item:
        item = Item(self.name, event.start_mark, event.end_mark, text=event.value)
        item.plain, item.tag = event.implicit[0], self._tag(event)
        item.value = scalar(event.value) if item.plain and item.tag is None else event.value
        if item.tag and item.tag != "str":
            item.value = scalar(event.value)
            kinds: dict[str, Any] = {"null": type(None), "bool": bool, "int": int, "float": (int, float)}
            kind = kinds.get(item.tag)
            if kind is None or not isinstance(item.value, kind):
                self.findings.add(f"'{clipped(event.value)}' is no !!{item.tag}", item.span, help="remove the tag")
        return item

    def _tag(self, event: Any) -> str | None:
        """The short name of an explicit standard tag that may stand here; None where there is none."""
        if event.tag == "!" and not self.foreign_tags:
            hint = "quote the whole text, or begin it on the next line after '|'"
            span = _span(self.name, event.start_mark, event.end_mark)
            self.findings.add("YAML takes this '!' for a tag: it would be lost", span, help=hint)
        if event.tag is None or event.tag == "!":
            return None
        short = event.tag.removeprefix(_YAML)
        kinds: dict[Any, tuple[str, ...]] = {yaml.MappingStartEvent: ("map",), yaml.SequenceStartEvent: ("seq",)}
        if short in kinds.get(type(event), ("str", "int", "float", "bool", "null")):
            return str(short)
        if not self.foreign_tags:
            self.findings.add(
                f"the tag '{event.tag if short == event.tag else '!!' + short}' cannot be used here",
                _span(self.name, event.start_mark, event.end_mark),
                help="quote the text if the '!' is part of it; Ansible's tags (!vault) work in what 'tasks_from' names",
            )
        return "str" if isinstance(event, yaml.ScalarEvent) else None

    def _alias(self, event: Any) -> Item:
        item = self.anchors.get(event.anchor)
        if item is None:
            hint = self.findings.suggest(event.anchor, self.anchors) or "an anchor (&name) stands before its aliases"
            self._stop(f"no anchor '{event.anchor}' is known here", event, hint)
        elif item.open:
            self._stop(f"the alias '{event.anchor}' holds itself", event, "a value cannot contain itself")
        assert item is not None  # noqa: S101  _stop does not return
        return item

    def _open(self, event: Any) -> None:
        item = Item(self.name, event.start_mark, event.end_mark, open=True, tag=self._tag(event))
        if isinstance(event, yaml.MappingStartEvent):
            item.entries, item.value = {}, {}
        else:
            item.elements, item.value = [], []
        if event.anchor:
            self.anchors[event.anchor] = item
        self.stack.append((item, []))
        if len(self.stack) > DEPTH_LIMIT:
            self._stop(f"nested deeper than {DEPTH_LIMIT} levels", event, "is it the right file? Flatten it")

    def _close(self) -> None:
        item, parts = self.stack.pop()
        if item.elements is not None:
            item.elements = parts
            item.value = [p.value for p in parts]
        else:
            self._fill(item, parts)
        item.open = False
        item.size = 1 + sum(p.size for p in parts)
        item.depth = 1 + max((p.depth for p in parts), default=0)
        self._place(item, None)

    def _place(self, item: Item, event: Any) -> None:
        """Put a finished item where it belongs, and keep the count."""
        if event is not None and not isinstance(event, yaml.AliasEvent) and event.anchor:
            self.anchors[event.anchor] = item
        self.work += 1
        here = event or _Here(item.start, item.end)
        if max(item.size, self.work) > ITEM_LIMIT:
            self._stop(f"more than {ITEM_LIMIT:,} values once the aliases are followed", here, "is it the right file?")
        if item.depth + len(self.stack) > DEPTH_LIMIT:
            self._stop(f"nested deeper than {DEPTH_LIMIT} levels", here, "is it the right file? Flatten it")
        if self.stack:
            self.stack[-1][1].append(item)
        else:
            self.root = item

    def _fill(self, item: Item, parts: list[Item]) -> None:
        """Keys and values of a mapping; merged ones first, as PyYAML orders them."""
        own: dict[str, tuple[Item, Item]] = {}
        merged: dict[str, tuple[Item, Item]] = {}
        for key, value in zip(parts[::2], parts[1::2], strict=True):
            if key.text is None:
                self.findings.add(
                    f"a key must be a name, found {'a mapping' if key.entries is not None else 'a list'}",
                    key.span,
                    help='a template must be quoted: "{{ ... }}"',
                )
            elif key.text in own or (key.text == "<<" and key.plain and merged):
                first = item.merged[0] if key.text == "<<" else own[key.text][0]
                hint = "merge several mappings with one key: '<<: [*a, *b]'" if key.text == "<<" else "keep one of them"
                note = f"first at {first.span.line}:{first.span.column}"
                self.findings.add(f"duplicate key '{key.text}'", key.span, help=hint, notes=(note,))
            elif key.text == "<<" and key.plain:
                item.merged = [key]
                merged = self._merge(value)
            else:
                own[key.text] = (key, value)
        item.entries = {**merged, **own}
        item.value = {name: v.value for name, (_, v) in item.entries.items()}

    def _merge(self, value: Item) -> dict[str, tuple[Item, Item]]:
        together: dict[str, tuple[Item, Item]] = {}
        for part in value.elements if value.elements is not None else [value]:
            if part.entries is None:
                self.findings.add(
                    f"'<<' merges mappings, found {shown(part.value)}",
                    part.span,
                    help="write '<<: *anchor' where the anchor stands at a mapping",
                )
                continue
            self.work += len(part.entries)
            for name, pair in part.entries.items():
                together.setdefault(name, pair)
        return together


@dataclass(frozen=True)
class _Here:
    start_mark: Any
    end_mark: Any


def _span(file: str, start: Any, end: Any) -> Span:
    return Span(file, start.line + 1, start.column + 1, end.line + 1, end.column + 1)


def _point(file: str, before: str, width: int) -> Span:
    """The place right after the text ``before``."""
    lines = BREAKS.split(before)
    return Span(file, len(lines), len(lines[-1]) + 1, len(lines), len(lines[-1]) + 1 + width)


_SYNTAX = {
    "mapping values are not allowed in this context": (
        "a ':' cannot stand here",
        "indent it like the lines above, with a space after each key's ':'; text that holds ': ' must be quoted",
    ),
    "found unexpected end of stream": ("the file ends inside a quoted string", "close the quote"),
    "did not find expected ',' or ']'": ("this list is not closed", "a ',' or ']' is missing"),
    "did not find expected ',' or '}'": ("this mapping is not closed", "a ',' or '}' is missing"),
    "did not find expected key": ("a key should stand here", "check the indentation and the quotes before it"),
    "could not find expected ':'": ("a ':' is missing after this key", "write 'key: value', with a space"),
    "found character that cannot start any token": ("no value can begin like this", "quote it"),
    "did not find expected alphabetic or numeric character": (
        "'&' begins an anchor and '*' an alias: a name must follow",
        "quote the whole text, or begin it on the next line after '|'",
    ),
    "found unknown escape character": (
        "in double quotes a backslash begins an escape, and this is none",
        "write two of them, or use single quotes",
    ),
    "did not find expected comment or line break": (
        "after '|' or '>' the line must end",
        "begin the text on the next line, indented",
    ),
}

_UNCLOSED = ("found unexpected end of stream", "did not find expected ',' or ']'", "did not find expected ',' or '}'")


def _syntax(error: yaml.MarkedYAMLError, text: str, name: str) -> Diagnostic:
    mark: Any = error.problem_mark or error.context_mark
    begin: Any = error.context_mark or mark
    problem = error.problem or "not readable as YAML"
    message, hint = _SYNTAX.get(problem, (f"not readable as YAML: {problem}", "check the indentation and the quotes"))
    if text[mark.index : mark.index + 1] == "\t" or "tab character" in problem:
        message, hint = "a tab cannot indent YAML", "use spaces"
    elif problem in _UNCLOSED:
        begin, mark = mark, begin
    notes = (f"{error.context} at {begin.line + 1}:{begin.column + 1}",) if begin.index < mark.index else ()
    if begin.index > mark.index:
        notes = (f"the text is in order up to {begin.line + 1}:{begin.column + 1}",)
    span = Span(name, mark.line + 1, mark.column + 1, mark.line + 1, mark.column + 2)
    return Diagnostic(message, span, "error", notes, hint)
