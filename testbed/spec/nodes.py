"""Nodes: counted, named, pinned to machines, and which of them ends the run."""

from __future__ import annotations

import re
from collections.abc import Collection

from testbed.spec.findings import Findings, clipped, names
from testbed.spec.model import ALL, EXPLICIT, OPTIONAL, QUORUM, REQUIRED, Node
from testbed.spec.source import Item
from testbed.spec.templates import Templates

MOST = 10_000
"""How many nodes one entry, and a deployment, may have."""
_HOST = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def expand(
    root: Item, faulty: set[int], known: Collection[str], templates: Templates, findings: Findings
) -> tuple[Node, ...]:
    """The nodes of the spec ``root`` in order, those that are right; ``known`` are the configurations' names."""
    declared = root.entry("nodes")
    nodes: list[Node] = []
    pinned: dict[str, Item] = {}
    for name, key, item in declared.children() if declared else ():
        if item.entries is None:
            continue
        carried = _carried(item.entry("configurations"), faulty, known, findings)
        counted = item.entry("count") is not None
        count = templates.number(item.entry("count"), MOST, "count") if counted else 1
        policy, quorum = _policy(item, count, faulty, templates, findings)
        if count is None or not _named(name, key, count, counted, findings):
            continue
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
                    policy=policy,
                    quorum=quorum,
                )
            )
    _check_names(nodes, declared, findings)
    return tuple(nodes)


def ending(item: Item | None, nodes: tuple[Node, ...], findings: Findings) -> str:
    """What ``finalise`` says, or its default, the first node."""
    if item is None or not isinstance(item.value, str):
        if item is None and nodes and nodes[0].policy != REQUIRED:
            findings.add(
                f"'{nodes[0].name}' may be missing, but as the first node it ends the run",
                nodes[0].span,
                help="write 'finalise: all', or name a node under 'finalise' that is required",
            )
        return nodes[0].name if nodes else ""
    wanted, there = item.value, [n.name for n in nodes]
    if wanted not in (ALL, EXPLICIT) and wanted not in there:
        numbered = [n.name for n in nodes if n.counted and n.group == wanted]
        if numbered:
            hint = f"'{wanted}' stands for several nodes: name one of {names(numbered)}"
        else:
            hint = findings.suggest(wanted, [*there, ALL, EXPLICIT]) or f"one of: {names([*there, ALL, EXPLICIT])}"
        findings.add(f"'finalise' names no node: '{clipped(wanted)}'", item.span, help=hint)
    if any(n.name == wanted and n.policy != REQUIRED for n in nodes):
        hint = "write 'finalise: all', or name a node that is required"
        findings.add(f"'finalise' names '{wanted}', which may be missing", item.span, help=hint)
    return wanted


def _policy(
    item: Item, count: int | None, faulty: set[int], templates: Templates, findings: Findings
) -> tuple[str, int]:
    """What the death of a node means, and how many of a counted one must live (0: that is not the question)."""
    said, wanted = item.entry("policy"), item.entry("quorum")
    policy = OPTIONAL if said is not None and said.value == OPTIONAL else REQUIRED
    quorum = templates.number(wanted, MOST, "quorum")
    if wanted is None or quorum is None:
        return policy, 0
    if item.entry("count") is None:
        findings.add("'quorum' needs 'count'", wanted.span, help="add 'count', or write 'policy: optional'")
    elif count is not None and quorum > count:
        findings.add(f"a quorum of {quorum} is more than all {count}", wanted.span, help=f"at most {count}")
    if said is not None and id(said) not in faulty:
        findings.add("'policy' and 'quorum' contradict each other", said.span, help="leave one of them out")
    return QUORUM, quorum


def _carried(item: Item | None, faulty: set[int], known: Collection[str], findings: Findings) -> tuple[str, ...]:
    carried = []
    for element in (item.elements or ()) if item else ():
        if not isinstance(element.value, str):
            continue
        carried.append(element.value)
        if element.value not in known and id(element) not in faulty:
            hint = findings.suggest(element.value, known) or f"the spec has: {names(known) or 'none'}"
            findings.add(f"no configuration is called '{clipped(element.value)}'", element.span, help=hint)
    return tuple(carried)


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
