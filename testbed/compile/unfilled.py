"""What is written in the other language: templates in scripts, and variables of scripts in Ansible content (pure).

Both go their way as they stand: a shell takes ``{{ params.port }}`` for words, and ``$TESTBED_REPORTS`` is empty in
what Ansible runs. That may be meant, so it is a matter for warnings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from testbed.compile.flow import commands_of
from testbed.diagnostics import BREAKS, Diagnostic, Span
from testbed.events import STEPS
from testbed.spec.model import AnsibleWork, Command, Configuration, Deployment

_FACTS = ("run", "node", "index", "nodes", "workspace")
_TEMPLATE = re.compile(r"\{\{-?\s*(params|testbed)\.(\w+)")
_VARIABLE = re.compile(r"\$\{?(TESTBED_[A-Z0-9_]+)")


def unfilled(deployment: Deployment) -> Iterator[Diagnostic]:
    """A warning for the first such place of each script and each step of Ansible content."""
    lines = BREAKS.split(deployment.text)
    for configuration in deployment.configurations.values():
        for _, _, work in commands_of(configuration):
            yield from _templates(work, deployment, lines)
        for content in _ansible_of(configuration):
            yield from _variables(content, lines)


def _templates(work: Command, deployment: Deployment, lines: list[str]) -> Iterator[Diagnostic]:
    for found in _TEMPLATE.finditer(work.script):
        of, name = found.groups()
        if name in (deployment.parameters if of == "params" else _FACTS):
            variable = f"TESTBED_{'PARAM_' if of == 'params' else ''}{name.upper()}"
            yield Diagnostic(
                f"a script is no template: '{found[0]} ...' stays as it is",
                _place(work.span, found[0], lines),
                "warning",
                help=f"a script finds it as ${variable}",
            )
            return


def _variables(work: AnsibleWork, lines: list[str]) -> Iterator[Diagnostic]:
    for text in _texts([t for t in work.tasks if "environment" not in t]):
        if found := _VARIABLE.search(text):
            yield Diagnostic(
                f"{found[1]} is set for scripts, and not in what Ansible runs",
                _place(work.span, found[0], lines),
                "warning",
                help=f"a template can stand here: params.NAME, or testbed with {', '.join(_FACTS)};"
                " what needs more is a script's work",
            )
            return


def _ansible_of(configuration: Configuration) -> Iterator[AnsibleWork]:
    for target in configuration.targets.values():
        for step in STEPS:
            work = getattr(target, step)
            if isinstance(work, AnsibleWork):
                yield work


def _texts(value: Any) -> Iterator[str]:
    """All texts in plain data, but for keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from (t for v in value.values() for t in _texts(v))
    elif isinstance(value, list):
        yield from (t for v in value for t in _texts(v))


def _place(span: Span | None, said: str, lines: list[str]) -> Span | None:
    """Where ``said`` stands from ``span`` on; the beginning of ``span`` where that can't be told."""
    if span is None:
        return None
    for number in range(span.line, len(lines) + 1):
        at = lines[number - 1].find(said, span.column - 1 if number == span.line else 0)
        if at >= 0:
            return Span(span.file, number, at + 1, number, at + 1 + len(said))
    return Span(span.file, span.line, span.column, span.line, span.column + 1)
