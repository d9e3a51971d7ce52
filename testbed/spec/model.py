"""A deployment as frozen values: what a spec says once it is found right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.diagnostics import Span

ALL, EXPLICIT = "all", "explicit"
"""The two values of ``finalise`` that name no node."""


@dataclass(frozen=True, slots=True)
class Command:
    """A shell script, run on the node by its agent; ``span`` is where it stands in the spec."""

    script: str
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class AnsibleWork:
    """Ansible content, run on the node by the controller.

    ``tasks`` are plain Ansible tasks, ``roles`` are names or mappings as in a play, ``tasks_from`` is a task file
    relative to the spec's folder; ``become`` is Ansible's own.
    """

    tasks: tuple[Mapping[str, Any], ...] = ()
    roles: tuple[Any, ...] = ()
    tasks_from: str | None = None
    become: bool | None = None
    gather_facts: bool = True


Step = Command | AnsibleWork


@dataclass(frozen=True, slots=True)
class Target:
    """One lifecycle target of a configuration; ``timeout`` in seconds bounds each of its steps."""

    name: str
    pre: Step | None = None
    main: Step | None = None
    post: Step | None = None
    timeout: float | None = None
    continue_on_error: bool | None = None


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a node carries: files staged from beside the spec, and targets by name."""

    name: str
    files: tuple[str, ...]
    targets: Mapping[str, Target]


@dataclass(frozen=True, slots=True)
class Node:
    """One node; ``group`` is its name in the spec before ``count`` made several of it."""

    name: str
    index: int
    group: str
    configurations: tuple[str, ...]
    machine: str | None
    become: bool
    span: Span
    counted: bool = False


@dataclass(frozen=True, slots=True)
class Deployment:
    """A whole deployment; ``timeout`` in seconds, ``parameters`` with defaults and overrides applied.

    ``finalise`` is `ALL`, `EXPLICIT` or the name of the node whose publish ends the run. ``path`` is the spec's file,
    ``text`` its content as read, ``digest`` the SHA-256 of that content (hex).
    """

    name: str
    description: str
    timeout: float
    finalise: str
    continue_on_error: bool
    parameters: Mapping[str, Any]
    configurations: Mapping[str, Configuration]
    nodes: tuple[Node, ...]
    path: Path
    text: str
    digest: str
