"""What nothing fills in: templates in scripts, variables of scripts in Ansible content, variables nobody sets (pure).

A shell takes ``{{ params.port }}`` for words; ``$TESTBED_REPORTS`` is empty in what Ansible runs, and so is
``$TESTBED_REPORT`` everywhere. That may be meant, so it is a matter for warnings.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import Any

from testbed.compile.flow import commands_of
from testbed.diagnostics import BREAKS, Diagnostic, Span
from testbed.events import STEPS
from testbed.spec.findings import names
from testbed.spec.model import AnsibleWork, Command, Configuration, Deployment
from testbed.spec.shell import is_shell

_FACTS = ("run", "node", "index", "nodes", "workspace")
_TEMPLATE = re.compile(r"\{\{-?\s*(params|testbed)\.(\w+)")
_SET = ("RUN", "NODE", "INDEX", "NODES", "WORKSPACE", "REPORTS", "TOPOLOGY", "CONFIGURATION", "TARGET", "STEP")
_MOST = 500  # names that a misspelt one is compared with
_VARIABLE = re.compile(r"(?<!\\)\$(\{)?(TESTBED_\w+)(?(1)\})")


def unfilled(deployment: Deployment) -> Iterator[Diagnostic]:
    """A warning for the first such place of each kind in each script and each step of Ansible content."""
    lines = BREAKS.split(deployment.text)
    known = variables_of(deployment)
    for configuration in deployment.configurations.values():
        for _, _, work in commands_of(configuration):
            yield from _templates(work, deployment, lines)
            yield from _unset(work, known, lines)
        for content in _ansible_of(configuration):
            yield from _variables(content, lines)


def variables_of(deployment: Deployment) -> dict[str, None]:
    """The names of testbed's variables that a script of the deployment finds."""
    return dict.fromkeys((
        *(f"TESTBED_{name}" for name in _SET),
        *(f"TESTBED_PARAM_{name.upper()}" for name in deployment.parameters),
        *(f"TESTBED_HOST_{node.index}" for node in deployment.nodes),
    ))  # fmt: skip


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


def _unset(work: Command, known: dict[str, None], lines: list[str]) -> Iterator[Diagnostic]:
    if work.script.startswith("#!") and not is_shell(work.script, ""):
        return
    for found in _VARIABLE.finditer(work.script):
        name = found[2]
        its_own = re.search(rf"(?<![\w${{]){name}\b", work.script)  # a place that can set it
        if name not in known and not its_own:
            family = name[: name.find("_", len("TESTBED_")) + 1] or "TESTBED_"
            alike = [k for k in known if k.startswith(family)] or list(known)
            several = family == "TESTBED_HOST_"  # all of these are near
            near = [] if several else difflib.get_close_matches(name.upper(), alike[:_MOST], n=1, cutoff=0.85)
            yield Diagnostic(
                f"nothing sets {name}",
                _place(work.span, found[0], lines),
                "warning",
                help=f"did you mean {near[0]}?" if near else f"there is {names(alike, 12)}",
            )
            return


def _variables(work: AnsibleWork, lines: list[str]) -> Iterator[Diagnostic]:
    for text in _texts([t for t in work.tasks if "environment" not in t]):
        if found := _VARIABLE.search(text):
            yield Diagnostic(
                f"{found[2]} is set for scripts, and not in what Ansible runs",
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
