"""A spec's file made into a `Deployment`, or into every mistake that is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from testbed.diagnostics import Span
from testbed.spec import nodes, parameters, schema, source
from testbed.spec.findings import Findings, shown
from testbed.spec.model import Deployment
from testbed.spec.source import Item
from testbed.spec.work import Work

TIMEOUT = 4 * 3600.0
"""How long a run may take where the spec says nothing, in seconds."""


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
    work = Work(path.parent, faulty, findings)
    values = parameters.resolve(root.entry("parameters"), overrides, findings)
    configurations = work.configurations(root.entry("configurations"))
    found = nodes.expand(root, faulty, configurations, values, findings)
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
    )
