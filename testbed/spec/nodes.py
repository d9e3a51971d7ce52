"""Nodes: counted, named, pinned to machines, and which of them ends the run."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Mapping
from typing import Any

from testbed.spec.findings import Findings, clipped, names, shown
from testbed.spec.model import ALL, EXPLICIT, Node
from testbed.spec.source import Item

MOST = 10_000
"""How many nodes one entry, and a deployment, may have."""
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def expand(
    root: Item, faulty: set[int], known: Collection[str], parameters: Mapping[str, Any], findings: Findings
) -> tuple[Node, ...]:
    """The nodes of the spec ``root`` in order, those that are right; ``known`` are the configurations' names."""
    declared, promised = root.entry("nodes"), _promised(root)
    nodes: list[Node] = []
    pinned: dict[str, Item] = {}
    for name, key, item in declared.children() if declared else ():
        if item.entries is None:
            continue
        carried = _carried(item.entry("configurations"), faulty, known, findings)
        count = _count(item.entry("count"), faulty, parameters, promised, findings)
        if count is None or not _named(name, key, count, item.entry("count") is not None, findings):
            continue
        counted = item.entry("count") is not None
        if len(nodes) + count > MOST:
            findings.add(f"more than {MOST:,} nodes in all", key.span, help="make the counts smaller")
            break
        machines = _machines(item.entry("machine"), faulty, count, pinned, findings)
        become = item.entry("become")
        for i in range(count):
            nodes.append(
                Node(
                    name=f"{name}-{i}" if counted else name,
                    index=len(nodes),
                    group=name,
                    configurations=carried,
                    machine=machines[i] if machines else None,
                    become=bool(become and become.value is True),
                    span=key.span,
                    counted=counted,
                )
            )
    _check_names(nodes, declared, findings)
    return tuple(nodes)


def ending(item: Item | None, nodes: tuple[Node, ...], findings: Findings) -> str:
    """What ``finalise`` says, or its default, the first node."""
    if item is None or not isinstance(item.value, str):
        return nodes[0].name if nodes else ""
    wanted, there = item.value, [n.name for n in nodes]
    if wanted not in (ALL, EXPLICIT) and wanted not in there:
        numbered = [n.name for n in nodes if n.counted and n.group == wanted]
        if numbered:
            hint = f"'{wanted}' stands for several nodes: name one of {names(numbered)}"
        else:
            hint = findings.suggest(wanted, [*there, ALL, EXPLICIT]) or f"one of: {names([*there, ALL, EXPLICIT])}"
        findings.add(f"'finalise' names no node: '{clipped(wanted)}'", item.span, help=hint)
    return wanted


def _carried(item: Item | None, faulty: set[int], known: Collection[str], findings: Findings) -> tuple[str, ...]:
    carried = []
    for element in (item.elements or ()) if item else ():
        if not isinstance(element.value, str):
            continue
        carried.append(element.value)
        if element.value not in known and id(element) not in faulty:
            hint = findings.suggest(element.value, known) or f"the spec has: {names(known)}"
            findings.add(f"no configuration is called '{clipped(element.value)}'", element.span, help=hint)
    return tuple(carried)


def _promised(root: Item) -> list[str]:
    """The names of all parameters, those without a right value too."""
    declared = root.entry("parameters")
    return [name for name, _, _ in declared.children()] if declared else []


def _count(
    item: Item | None, faulty: set[int], parameters: Mapping[str, Any], promised: list[str], findings: Findings
) -> int | None:
    """How many; None where that is not known."""
    if item is None:
        return 1
    if id(item) in faulty:
        return None
    if not isinstance(item.value, str):
        return int(item.value)
    value = _evaluate(item, parameters, promised, findings)
    if value is _UNKNOWN:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MOST:
        hint = f"it must come to a whole number from 1 to {MOST}"
        findings.add(f"this template gives no count: it comes to {shown(value)}", item.span, help=hint)
        return None
    return value


_UNKNOWN = object()


@functools.cache
def _templates() -> Any:
    from jinja2 import StrictUndefined
    from jinja2.nativetypes import NativeEnvironment
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # Jinja2 as Ansible uses it: sandboxed, and results keep their type.
    return type("_Templates", (ImmutableSandboxedEnvironment, NativeEnvironment), {})(undefined=StrictUndefined)


def _evaluate(item: Item, parameters: Mapping[str, Any], promised: list[str], findings: Findings) -> Any:
    from jinja2 import TemplateError, UndefinedError

    try:
        value = _templates().from_string(item.value).render(params=parameters)
        if not isinstance(value, (bool, int, float, str, list, dict, type(None))):
            value = str(value)  # an undefined value says so now
    except UndefinedError as error:
        wanted = re.search(r"has no attribute '([^']*)'", str(error.message))
        if wanted and wanted[1] in promised:
            return _UNKNOWN  # what is wrong with the parameter has been noted
        hint = findings.suggest(wanted[1], parameters) if wanted else ""
        hint = hint or f"there is 'params' with: {names(parameters) or 'nothing'}"
        findings.add(f"this template cannot be filled in: {error.message}", item.span, help=hint)
    except TemplateError as error:
        hint = 'a template looks like "{{ params.NAME }}"'
        findings.add(f"this template is wrong: {error.message}", item.span, help=hint)
    except Exception as error:  # noqa: BLE001  an expression can raise whatever Python can
        reason = f"{type(error).__name__}: {clipped(str(error), 100)}"
        findings.add(f"this template fails: {reason}", item.span, help="mend the expression")
    else:
        return value
    return _UNKNOWN


def _named(name: str, key: Item, count: int, counted: bool, findings: Findings) -> bool:
    """Whether the names that come of it are host names; the schema has judged ``name`` itself."""
    if not _HOST.fullmatch(name) or len(name) > 63:
        return False
    longest = f"{name}-{count - 1}" if counted else name
    if len(longest) > 63:
        hint = "a host name has at most 63 characters"
        findings.add(f"'{longest}' is {len(longest)} characters long", key.span, help=hint)
        return False
    return True


def _machines(
    item: Item | None, faulty: set[int], count: int, pinned: dict[str, Item], findings: Findings
) -> list[str]:
    if item is None or id(item) in faulty:
        return []
    wanted = item.elements if item.elements is not None else [item]
    if len(wanted) != count:
        hint = "write a list with one machine for each, or leave 'machine' out"
        findings.add(
            f"{len(wanted)} machine{'s' if len(wanted) != 1 else ''} for {count} node{'s' if count != 1 else ''}",
            item.span,
            help=hint,
        )
        return []
    for element in wanted:
        first = pinned.setdefault(element.value, element)
        if first is not element:
            note = f"first at {first.span.line}:{first.span.column}"
            hint = "a machine takes one node; an inventory can give one machine several names"
            findings.add(f"the machine '{element.value}' is taken twice", element.span, help=hint, notes=(note,))
    return [element.value for element in wanted]


def _check_names(nodes: list[Node], declared: Item | None, findings: Findings) -> None:
    """Nodes are Ansible's hosts, configurations and counted nodes its groups: one name, one set of hosts."""
    hosts: dict[str, Node] = {}
    for node in nodes:
        first = hosts.setdefault(node.name, node)
        if first is not node:
            note = f"the first at {first.span.line}:{first.span.column}"
            findings.add(f"two nodes are called '{node.name}'", node.span, help="rename one", notes=(note,))
    carriers: dict[str, set[str]] = {}
    families: dict[str, set[str]] = {}
    for node in nodes:
        for name in node.configurations:
            carriers.setdefault(name, set()).add(node.name)
        if node.counted:
            families.setdefault(node.group, set()).add(node.name)
    for node in nodes:
        groups = [g for g in (carriers.get(node.name), families.get(node.name)) if g is not None]
        if any(g != {node.name} for g in groups):
            findings.add(
                f"the node '{node.name}' is called like a group of other nodes",
                node.span,
                help="configurations and counted nodes are groups in Ansible, nodes are hosts: rename one of the two",
            )
    for key in [k for n, k, _ in declared.children() if n in families] if declared else ():
        group = carriers.get(key.text or "")
        if group is not None and group != families[key.text or ""]:
            findings.add(
                f"the counted node '{key.text}' is called like a configuration that not just these nodes carry",
                key.span,
                help="both are groups in Ansible: rename one of the two",
            )
