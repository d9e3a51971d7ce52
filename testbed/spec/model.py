"""A deployment as frozen values: what a spec says once it is found right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testbed.diagnostics import Span

ALL, EXPLICIT = "all", "explicit"
"""The two values of ``finalise`` that name no node."""

REQUIRED, OPTIONAL, QUORUM = "required", "optional", "quorum"
"""What the death of a node means: the run aborts; the others go on; they do while enough of its kind live."""


@dataclass(frozen=True, slots=True)
class Command:
    """A shell script, run on the node by its agent; ``span`` is where it stands in the spec."""

    script: str
    span: Span | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class AnsibleWork:
    """Ansible content, run on the node by the controller.

    ``tasks`` are plain Ansible tasks, ``roles`` are names or mappings as in a play, ``tasks_from`` is a task file
    relative to the spec's folder; ``become`` is Ansible's own; ``span`` is where it begins in the spec.
    """

    tasks: tuple[Mapping[str, Any], ...] = ()
    roles: tuple[Any, ...] = ()
    tasks_from: str | None = None
    become: bool | None = None
    gather_facts: bool = True
    span: Span | None = field(default=None, compare=False)


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
class Service:
    """A process that lives from the end of deploy until its node finalises.

    It is ready when ``port`` takes connections, ``check`` exits with 0, or ``key`` is set (at most one is not None;
    with none of them as soon as it runs), within ``timeout`` seconds.
    """

    name: str
    run: Command
    port: int | None = None
    check: Command | None = None
    key: str | None = None
    timeout: float = 60.0


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a node carries: files staged from beside the spec, targets by name, services in the order of starting."""

    name: str
    files: tuple[str, ...]
    targets: Mapping[str, Target]
    services: tuple[Service, ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """One node; ``group`` is its name in the spec before ``count`` made several of it.

    ``policy`` says what its death means; with `QUORUM`, ``quorum`` of its group must live.
    """

    name: str
    index: int
    group: str
    configurations: tuple[str, ...]
    machine: str | None
    become: bool
    span: Span
    counted: bool = False
    policy: str = REQUIRED
    quorum: int = 0


@dataclass(frozen=True, slots=True)
class Deployment:
    """A whole deployment; ``timeout`` in seconds, ``parameters`` with defaults and overrides applied.

    ``finalise`` is `ALL`, `EXPLICIT` or the name of the node whose publish ends the run. ``path`` is the spec's file,
    ``text`` its content as read, ``digest`` the SHA-256 of that content (hex). ``stall`` is for how many seconds no
    node can go on before the run is aborted (None: it is not), ``liveness`` after how many a silent node is dead
    (None: that depends on how many nodes there are), ``outage`` for how many etcd may be away.
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
    stall: float | None = 5.0
    liveness: float | None = None
    outage: float = 120.0
