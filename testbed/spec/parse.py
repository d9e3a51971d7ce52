"""A spec's file made into a `Deployment`, or into every mistake that is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from testbed.diagnostics import Span
from testbed.spec import nodes, parameters, schema, source
from testbed.spec.findings import Findings, shown
from testbed.spec.model import Configuration, Deployment, Node
from testbed.spec.source import Item
from testbed.spec.templates import Templates
from testbed.spec.work import Work

TIMEOUT = 4 * 3600.0
"""How long a run may take where the spec says nothing, in seconds."""

GRACE, OUTAGE = 5.0, 120.0
"""The defaults of a stall's grace and of ``outage``, in seconds."""

SHORTEST_LEASE = 2.0
"""The shortest ``liveness``, in seconds: etcd rounds shorter leases up."""


def load(path: Path, overrides: Mapping[str, str], text: str | None = None) -> Deployment:
    """See `testbed.spec.load`."""
    findings = Findings()
    text = source.read(path, findings) if text is None else text
    root = source.parse(text, str(path), findings) if text is not None else None
    deployment = None
    if text is not None and not findings.diagnostics and (root is None or root.text == ""):
        help_ = "a spec begins with 'deployment: NAME'"
        findings.add("the file is empty", Span(str(path), 1, 1, 1, 1), help=help_)
    elif root is not None and root.entries is None:
        help_ = "a spec begins with 'deployment: NAME'"
        findings.add(f"a spec is a mapping, found {shown(root.value)}", root.span, help=help_)
    elif root is not None and text is not None:
        deployment = _deployment(root, path, text, overrides, findings)
    findings.check()
    assert deployment is not None  # noqa: S101  without a finding there is one
    return deployment


def _deployment(root: Item, path: Path, text: str, overrides: Mapping[str, str], findings: Findings) -> Deployment:
    faulty = schema.check(root, findings)
    declared = root.entry("parameters")
    values = parameters.resolve(declared, overrides, findings, faulty)
    templates = Templates(values, [name for name, _, _ in declared.children()] if declared else [], faulty, findings)
    work = Work(path.parent, faulty, findings, templates)
    configurations = work.configurations(root.entry("configurations"))
    found = nodes.expand(root, faulty, configurations, templates, findings)
    _check_services(configurations, found, findings)
    plain = root.value
    return Deployment(
        name=str(plain.get("deployment")),
        description=str(plain.get("description", "")),
        timeout=work.seconds(root.entry("timeout")) or TIMEOUT,
        finalise=nodes.ending(root.entry("finalise"), found, findings),
        continue_on_error=plain.get("continue_on_error") is True,
        parameters=values,
        configurations=configurations,
        nodes=found,
        path=path,
        text=text,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        stall=_stall(root.entry("stall"), work),
        liveness=_liveness(root.entry("liveness"), work, findings),
        outage=work.seconds(root.entry("outage")) or OUTAGE,
    )


def _check_services(configurations: Mapping[str, Configuration], found: Sequence[Node], findings: Findings) -> None:
    """A node offers one service of a name."""
    noted = set()
    for node in found:
        offered: dict[str, str] = {}
        for name in node.configurations:
            for service in configurations[name].services if name in configurations else ():
                first = offered.setdefault(service.name, name)
                if first != name and (node.group, service.name) not in noted:
                    noted.add((node.group, service.name))
                    message = f"'{node.group}' would offer '{service.name}' twice: a service of '{first}' and '{name}'"
                    findings.add(message, node.span, help="rename one of the two services")


def _stall(item: Item | None, work: Work) -> float | None:
    if item is not None and item.entries is None:
        return None
    return (work.seconds(item.entry("grace")) if item else None) or GRACE


def _liveness(item: Item | None, work: Work, findings: Findings) -> float | None:
    seconds = work.seconds(item)
    if item is not None and seconds is not None and seconds < SHORTEST_LEASE:
        hint = f"{SHORTEST_LEASE:g}s or more"
        findings.add(f"etcd keeps no lease of {seconds:g} s", item.span, help=hint)
    return seconds
