"""Who sets what, and who waits for it: read from the commands before anything runs (pure).

What is found is a matter for warnings only. A script may do more than can be seen: a name with variables fits every
name that it could become, and a program that is no shell script may set anything, unless a comment
``# testbed: sets KEY`` in it says what.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

from testbed.agent.environment import as_text
from testbed.compile.names import Pattern, literal, overlap, pattern_of, shown
from testbed.diagnostics import BREAKS, Span
from testbed.events import STEPS
from testbed.spec.model import ALL, Command, Configuration, Deployment, Node
from testbed.spec.shell import Hole, Mention, Text, is_shell, mentions, names_program

KEY, TOPIC, SERVICE, BARRIER, FLAG = "key", "topic", "service", "barrier", "flag"
"""What is set and waited for."""

SETS, WAITS, CALLS = "sets", "waits", "calls"
"""What a use does; who calls a barrier both sets it for others and waits for them."""

ORDER = ("init", "deploy", "test", "publish")
"""The targets in which nodes meet each other."""

_ANYTHING: Text = (Hole(),)
_API = re.compile(r"""\btestbed\.coord\b|\b(?:import|from) testbed\b|["']testbed["']\s*,""")


@dataclass(frozen=True, slots=True)
class Use:
    """A place in the commands of a configuration that sets, waits for, or calls one of ``names``.

    ``target`` is empty for a staged file: it is not known when that runs. ``any_of`` says that one of the names is
    enough. ``origin`` is None where the use is only presumed.
    """

    kind: str
    does: str
    names: tuple[Text, ...]
    configuration: str
    target: str = ""
    step: str = ""
    origin: Span | None = None
    surely: bool = False
    any_of: bool = False
    mention: Mention | None = None


@dataclass(frozen=True, slots=True)
class Meeting:
    """A use by one node: its names as far as they are known there."""

    use: Use
    node: Node
    names: tuple[Pattern, ...]


@dataclass(frozen=True, slots=True)
class Row:
    """One name of the flow table; the nodes that set (or call) it, and those that wait for it, in index order."""

    kind: str
    name: str
    set_by: tuple[str, ...]
    waited_by: tuple[str, ...]


@dataclass(slots=True)
class Flow:
    """All meetings of a deployment, node by node in running order, and an index of who sets what."""

    deployment: Deployment
    meetings: list[Meeting]
    sources: dict[str, str]
    _exact: dict[tuple[str, str], dict[str, None]] = field(default_factory=dict)
    _loose: dict[tuple[str, Pattern], dict[str, None]] = field(default_factory=dict)
    _setters: dict[tuple[str, Pattern], list[str]] = field(default_factory=dict)  # found so far

    def __post_init__(self) -> None:
        for meeting in self.meetings:
            if meeting.use.does != WAITS:
                for name in meeting.names:
                    self._index(meeting.use.kind, name, meeting.node.name)
        for node in self.deployment.nodes:
            self._index(KEY, (f"host_{node.index}",), node.name)  # agents set these when they start
            if self.deployment.finalise in (ALL, node.name):
                self._index(FLAG, ("finalise",), node.name)

    def _index(self, kind: str, name: Pattern, node: str) -> None:
        known = literal(name)
        if known is None:
            self._loose.setdefault((kind, name), {})[node] = None
        else:
            self._exact.setdefault((kind, known), {})[node] = None

    def setters(self, kind: str, name: Pattern) -> list[str]:
        """The nodes that may set the name (or call the barrier)."""
        if (kind, name) not in self._setters:
            self._setters[kind, name] = self._find_setters(kind, name)
        return self._setters[kind, name]

    def _find_setters(self, kind: str, name: Pattern) -> list[str]:
        known = literal(name)
        found: dict[str, None] = dict(self._exact.get((kind, known), {})) if known is not None else {}
        loose = self._loose.items()
        for (its_kind, its_name), nodes in loose:
            if its_kind == kind and overlap(name, its_name):
                found.update(nodes)
        if known is None:
            for (its_kind, exact), nodes in self._exact.items():
                if its_kind == kind and overlap(name, (exact,)):
                    found.update(nodes)
        return list(found)

    def known_names(self, kind: str) -> list[str]:
        """The names of that kind that are set and wholly known."""
        return [name for its_kind, name in self._exact if its_kind == kind]

    def table(self) -> list[Row]:
        """Every name that a command mentions, in the order of the commands."""
        order = {node.name: node.index for node in self.deployment.nodes}
        waiting: dict[tuple[str, Pattern], dict[str, None]] = {}
        for meeting in self.meetings:
            if meeting.use.origin is not None:
                for name in meeting.names:
                    nodes = waiting.setdefault((meeting.use.kind, name), {})
                    if meeting.use.does == WAITS:
                        nodes[meeting.node.name] = None
        loose = [(kind, name) for kind, name in waiting if literal(name) is None]
        rows = []
        for (kind, name), nodes in waiting.items():
            setting = sorted(self.setters(kind, name), key=order.__getitem__)
            fitting = {n for k, other in loose if k == kind and overlap(name, other) for n in waiting[k, other]}
            calling = setting if kind == BARRIER else sorted(fitting.union(nodes), key=order.__getitem__)
            rows.append(Row(kind, shown(name), tuple(setting), tuple(calling)))
        return rows


def flow_of(deployment: Deployment, staged: Mapping[str, str]) -> Flow:
    """The flow of a deployment; ``staged`` are the texts of its staged files by path."""
    sources = {str(deployment.path): deployment.text}
    uses: dict[str, list[Use]] = {}
    for configuration in deployment.configurations.values():
        uses[configuration.name] = [
            *_inline(configuration, deployment.text),
            *_of_files(configuration, deployment, staged, sources),
        ]
    meetings = [
        Meeting(use, node, tuple(pattern_of(name, variables) for name in use.names))
        for node in deployment.nodes
        for use in _in_order(node, uses)
        for variables in [_variables(deployment, node, use)]
    ]
    return Flow(deployment, meetings, sources)


def _in_order(node: Node, uses: Mapping[str, list[Use]]) -> Iterator[Use]:
    """The uses of a node's configurations as they come: target by target, what has no place in time last."""
    for target in (*ORDER, "finalise", "clean", ""):
        for name in node.configurations:
            yield from (use for use in uses[name] if use.target == target)


def _variables(deployment: Deployment, node: Node, use: Use) -> dict[str, str]:
    """The environment of a use's command, as far as it is known beforehand."""
    known = {
        "TESTBED_NODE": node.name,
        "TESTBED_INDEX": str(node.index),
        "TESTBED_NODES": " ".join(n.name for n in deployment.nodes),
    }
    for name, value in deployment.parameters.items():
        known["TESTBED_PARAM_" + re.sub(r"\W", "_", name, flags=re.ASCII).upper()] = as_text(value)
    if use.target:
        known.update(TESTBED_CONFIGURATION=use.configuration, TESTBED_TARGET=use.target, TESTBED_STEP=use.step)
    return known


def _inline(configuration: Configuration, text: str) -> Iterator[Use]:
    """The uses in a configuration's own commands, in running order."""
    lines = BREAKS.split(text)
    for target, step, work in commands_of(configuration):
        found, opaque = _seen(work.script, not work.script.startswith("#!") or is_shell(work.script, ""))
        if opaque:
            yield from _presumed(configuration.name)
        for mention in found:
            origin = _place(work, mention, lines)
            for use in _uses(mention, configuration.name):
                yield replace(use, target=target, step=step, origin=origin, surely=use.surely and target != "")
    for service in configuration.services:  # published when ready
        yield Use(SERVICE, SETS, ((service.name,),), configuration.name)


def _seen(text: str, shell: bool) -> tuple[list[Mention], bool]:
    """What a program's text mentions, and whether it may do more than that."""
    if shell:
        return mentions(text), _API.search(text) is not None
    told = [m for m in mentions(text) if m.told]
    return told, not told and "testbed" in text


def commands_of(configuration: Configuration) -> Iterator[tuple[str, str, Command]]:
    """The configuration's own scripts with target and step; both are empty for those of services, which run beside."""
    for name, target in configuration.targets.items():
        for step in STEPS:
            work = getattr(target, step)
            if isinstance(work, Command):
                yield name, step, work
    for service in configuration.services:
        for work in (service.run, service.check):
            if work is not None:
                yield "", "", work


def _of_files(
    configuration: Configuration, deployment: Deployment, staged: Mapping[str, str], sources: dict[str, str]
) -> Iterator[Use]:
    """The uses in the files that a configuration stages; when they run, and with which words, is not known."""
    mine = {
        path: text
        for path, text in staged.items()
        if any(path == top or path.startswith(top + "/") for top in map(os.path.normpath, configuration.files))
    }
    scripts = [work.script for _, _, work in commands_of(configuration)]
    for path, text in mine.items():
        if "testbed" not in text:
            continue
        found, opaque = _seen(text, is_shell(text, path))
        if opaque:
            yield from _presumed(configuration.name)
        callers = [*scripts, *(other for its_path, other in mine.items() if its_path != path)]
        called = any(names_program(caller, PurePosixPath(path).name) for caller in callers)
        file = str(deployment.path.parent / path)
        sources[file] = text
        for mention in found:
            span = Span(
                file, mention.line + 1, mention.column + 1, mention.line + 1, mention.column + 1 + mention.length
            )
            for use in _uses(mention, configuration.name):
                if called or use.does == SETS:
                    yield replace(use, origin=span, surely=False)


def _presumed(configuration: str) -> list[Use]:
    """What a program may do that can't be seen into: set and call anything."""
    return [
        *(Use(kind, SETS, (_ANYTHING,), configuration) for kind in (KEY, TOPIC, SERVICE, FLAG)),
        Use(BARRIER, CALLS, (_ANYTHING,), configuration),
    ]


def _uses(mention: Mention, configuration: str) -> Iterator[Use]:
    """What a coordinating word does."""
    operands = mention.operands
    blocks = mention.option("-b", "--block") is not None
    first = operands[0] if operands else ()
    match mention.word:
        case "set" if operands and not mention.told:
            found = [(KEY, SETS, operands[:1])]
        case "get" if blocks and operands:
            found = [(KEY, WAITS, operands)]
        case "sets" | "waits" if mention.told and operands:
            found = [(KEY, mention.word, operands)]
        case "barrier" if operands:
            found = [(BARRIER, CALLS, operands[:1])]
        case "publish" | "subscribe" if operands:
            found = [(TOPIC, SETS if mention.word == "publish" else WAITS, operands[:1])]
        case "service" if len(operands) > 1 and first in (("publish",), ("discover",)):
            found = [(SERVICE, SETS if first == ("publish",) else WAITS, operands[1:2])]
        case "wait" if first == ("finalise",):
            found = [(FLAG, WAITS, operands[:1])]
        case "finalise" | "abort" if not mention.told:
            found = [(FLAG, SETS, ((mention.word,),))]
        case _:
            found = []
    any_of = mention.option("--any") is not None
    for kind, does, names in found:
        if (mention.quoted and does == WAITS) or any("\n" in p for n in names for p in n if isinstance(p, str)):
            continue  # a text, by the look of it
        yield Use(kind, does, names, configuration, surely=mention.surely, any_of=any_of, mention=mention)


def _place(work: Command, mention: Mention, lines: list[str]) -> Span | None:
    """Where a mention of a command stands in the spec; the command's beginning where that can't be told."""
    span = work.span
    if span is None:
        return None
    said = work.script.split("\n")[mention.line][mention.column : mention.column + mention.length]
    literal_block = re.search(r"[|][-+\d]*\s*(?:#.*)?$", lines[span.line - 1]) is not None
    number = span.line + (mention.line + 1 if literal_block else 0)
    if number <= len(lines):
        at = lines[number - 1].find(said, 0 if literal_block else span.column - 1)
        if at >= 0 and number <= max(span.end_line, span.line):
            return Span(span.file, number, at + 1, number, at + 1 + len(said))
    return Span(span.file, span.line, span.column, span.line, span.column + 1)


def names_of(patterns: Iterable[Pattern]) -> str:
    """The names for a person: ``'a'``, ``'b.*'``."""
    return ", ".join(f"'{shown(p)}'" for p in patterns)
