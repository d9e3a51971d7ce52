"""Configurations: the files they bring and the work of their targets."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import Any

from testbed.events import TARGETS
from testbed.spec.durations import seconds
from testbed.spec.findings import Findings, clipped, shown
from testbed.spec.model import AnsibleWork, Command, Configuration, Service, Step, Target
from testbed.spec.source import Item, ansible_value, parse, read
from testbed.spec.templates import Templates

READY_TIMEOUT = 60.0
"""How long a service may take to be ready where the spec says nothing, in seconds."""


class Work:
    """Builds configurations out of items; paths are looked up in ``folder``, the spec's own."""

    def __init__(self, folder: Path, faulty: set[int], findings: Findings, templates: Templates) -> None:
        self.folder = folder
        self.faulty = faulty
        self.findings = findings
        self.templates = templates
        self._tasks_read: set[str] = set()

    def configurations(self, declared: Item | None) -> dict[str, Configuration]:
        """All configurations by name; what cannot be used is left out and noted."""
        found = {}
        for name, _, item in declared.children() if declared else ():
            targets = {}
            for target in TARGETS:
                value = item.entry(target)
                built = self._target(target, value) if value else None
                if built:
                    targets[target] = built
            services = self._services(item.entry("services"))
            found[name] = Configuration(name, self._files(item.entry("files")), targets, services)
        return found

    def seconds(self, item: Item | None) -> float | None:
        """A duration's seconds; None where there is none or none that is right."""
        if item is None or id(item) in self.faulty:
            return None
        try:
            return seconds(item.value)
        except ValueError:
            hint = "seconds as a number above 0, or text such as 500ms, 90s, 20m, 1h30m, 2d; a year at most"
            self.findings.add(f"this is no duration: found {shown(item.value)}", item.span, help=hint)
            return None

    def _target(self, name: str, item: Item) -> Target | None:
        if item.entries is None:
            return Target(name, main=self._step(item))
        pre, post = item.entry("pre"), item.entry("post")
        return Target(
            name,
            pre=self._step(pre) if pre else None,
            main=self._step(item),
            post=self._step(post) if post else None,
            timeout=self.seconds(item.entry("timeout")),
            continue_on_error=_value(item, "continue_on_error"),
        )

    def _step(self, item: Item) -> Step | None:
        script = item if item.entries is None else item.entry("run")
        if script is not None:
            return Command(script.value, script.span) if isinstance(script.value, str) else None
        tasks, roles, tasks_from = (item.entry(k) for k in ("ansible", "roles", "tasks_from"))
        if tasks is None and roles is None and tasks_from is None:
            return None
        self._tasks_from(tasks_from)
        gather_facts = _value(item, "gather_facts")
        return AnsibleWork(
            tasks=tuple(ansible_value(t) for t in (tasks.elements or ())) if tasks else (),
            roles=tuple(ansible_value(r) for r in (roles.elements or ())) if roles else (),
            tasks_from=tasks_from.value if tasks_from else None,
            become=_value(item, "become"),
            gather_facts=True if gather_facts is None else gather_facts,
            span=(tasks or roles or tasks_from or item).span,
        )

    def _services(self, declared: Item | None) -> tuple[Service, ...]:
        found = []
        for name, _, item in declared.children() if declared else ():
            run, ready = item.entry("run"), item.entry("ready")
            if run is None or not isinstance(run.value, str):
                continue
            port, command, key = (ready.entry(k) if ready else None for k in ("port", "command", "key"))
            found.append(
                Service(
                    name,
                    Command(run.value, run.span),
                    port=self.templates.number(port, 65535, "port"),
                    check=Command(str(command.value), command.span) if command else None,
                    key=str(key.value) if key else None,
                    timeout=self.seconds(item.entry("timeout")) or READY_TIMEOUT,
                )
            )
        return tuple(found)

    def _files(self, item: Item | None) -> tuple[str, ...]:
        elements = [e for e in (item.elements or ()) if isinstance(e.value, str) and e.value] if item else []
        for element in elements:
            path = self._inside(element, "files")
            if path is not None:
                self._contents(path, element)
        return tuple(e.value for e in elements)

    def _inside(self, item: Item, what: str) -> Path | None:
        """The path that ``item`` names if it exists inside the spec's folder; else None, the reason being noted."""
        named = str(item.value)
        hint = f"'{what}' names what lies in the spec's folder, relative to it"
        path = self.folder / named
        pure = PurePosixPath(named)
        try:
            if pure.is_absolute() or ".." in pure.parts:
                self.findings.add(f"'{clipped(named)}' leads out of the spec's folder", item.span, help=hint)
            elif not pure.parts:
                self.findings.add("this is the spec's whole folder", item.span, help="name files and folders in it")
            elif not path.exists():
                self.findings.add(f"'{clipped(named)}' does not exist", item.span, help=self._nearest(pure) or hint)
            elif not path.resolve().is_relative_to(self.folder.resolve()):
                note = f"it is, or lies behind, a link to {path.resolve()}"
                message = f"'{clipped(named)}' leads out of the spec's folder"
                self.findings.add(message, item.span, help="put a copy into the spec's folder", notes=(note,))
            else:
                return path
        except (OSError, ValueError, RuntimeError) as error:  # a name too long, a NUL byte, links in a circle
            reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
            self.findings.add(f"'{clipped(named)}' cannot be looked up: {reason}", item.span, help=hint)
        return None

    def _nearest(self, path: PurePosixPath) -> str:
        """``did you mean`` for the first part of the path that is not there."""
        at = self.folder
        for part in path.parts:
            if not (at / part).exists():
                return self.findings.suggest(part, sorted(p.name for p in at.iterdir()) if at.is_dir() else ())
            at = at / part
        return ""

    def _contents(self, path: Path, item: Item) -> None:
        """Note what under ``path`` cannot be staged: links that lead out, and what is neither file nor folder."""
        top = self.folder.resolve()
        names = [path]
        if path.is_dir():
            for here, folders, files in os.walk(path):
                names += [Path(here, n) for n in (*folders, *files)]
        elif path.is_file() and not os.access(path, os.R_OK):
            self.findings.add(f"'{item.value}' may not be read", item.span, help="give yourself the right to read it")
        for name in names:
            shown_name = clipped(str(name.relative_to(self.folder)), 80)
            if name.is_symlink() and not (name.exists() and name.resolve().is_relative_to(top)):
                note = f"'{shown_name}' is a link to {name.readlink()}"
                message = f"'{clipped(item.value)}' holds a link that leads nowhere or out of the spec's folder"
                self.findings.add(message, item.span, help="put a copy into the spec's folder", notes=(note,))
            elif name.exists() and not name.is_file() and not name.is_dir():
                hint = "only files, folders and links can be staged"
                self.findings.add(f"'{shown_name}' is neither a file nor a folder", item.span, help=hint)

    def _tasks_from(self, item: Item | None) -> None:
        if item is None or not isinstance(item.value, str) or not item.value:
            return
        path = self._inside(item, "tasks_from")
        if path is None or item.value in self._tasks_read:
            return
        self._tasks_read.add(item.value)
        if not path.is_file():
            self.findings.add(
                f"'{clipped(item.value)}' is no file", item.span, help="name a YAML file of Ansible tasks"
            )
            return
        text = read(path, self.findings)
        if text is None or text.startswith("$ANSIBLE_VAULT;"):
            return
        before = len(self.findings.diagnostics)
        root = parse(text, str(path), self.findings, foreign_tags=True)
        if len(self.findings.diagnostics) > before:
            return
        wrong = root if root is None or root.elements is None else None
        wrong = wrong or next((e for e in (root.elements or ()) if e.entries is None), None) if root else None
        if wrong is not None or root is None or not root.elements:
            found = "nothing" if root is None else shown((wrong or root).value)
            self.findings.add(
                f"a file of tasks is a list of mappings, found {found}",
                wrong.span if wrong else item.span,
                help="write '- name: ...' and a module for each task",
                notes=(f"named by 'tasks_from' at {item.span}",),
            )


def _value(item: Item, name: str) -> Any:
    """The plain value of a key, None where it is not there."""
    entry = item.entry(name)
    return entry.value if entry else None
