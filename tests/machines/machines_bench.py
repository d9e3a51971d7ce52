"""Whole runs by the command itself, and looks at what they leave on machines."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

import testbed
from testbed.events import Event, decode
from testbed.lab import practice

EXAMPLES = Path(__file__).parent.parent.parent / "examples"
PATIENCE = 350.0
"""Seconds that a command of these tests can take before its test fails."""


@dataclass(frozen=True)
class Done:
    """A command that has ended: its exit code, its two outputs, and the run directory if it made one."""

    code: int
    out: str
    err: str
    directory: Path

    @property
    def said(self) -> str:
        """Everything that the user saw."""
        return self.out + self.err

    @property
    def events(self) -> list[Event]:
        """The run's events."""
        return [decode(line) for line in (self.directory / "events.jsonl").read_text().splitlines()]

    def told(self, kind: type[Event], node: str = "") -> list[Any]:
        """The events of one kind, of one node where it is named."""
        return [e for e in self.events if isinstance(e, kind) and node in ("", e.node)]

    def log(self, node: str, step: str, stream: str = "out") -> str:
        """What a step printed: ``step`` is configuration.target.step."""
        return (self.directory / "nodes" / node / "logs" / f"{step}.{stream}").read_text()

    def report(self, node: str, name: str) -> str:
        """A file that the node put under ``$TESTBED_REPORTS``."""
        return (self.directory / "nodes" / node / "reports" / name).read_text()


class Bench:
    """Calls ``testbed`` as a user does, in a state folder of its own; each call is a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("TESTBED_", "ANSIBLE_"))},
            "TESTBED_STATE_HOME": str(folder / "state"),
            "PYTHONPATH": str(Path(testbed.__file__).parent.parent),
            "NO_COLOR": "1",
        }
        self._runs = 0

    def start(self, *arguments: str | Path, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start ``testbed ARGUMENTS`` with pipes to read from."""
        return subprocess.Popen(
            [sys.executable, "-m", "testbed", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={**self.environment, **(environment or {})},
        )

    def call(self, *arguments: str | Path, environment: Mapping[str, str] | None = None) -> Done:
        """Do ``testbed ARGUMENTS``."""
        return self.finish(self.start(*arguments, environment=environment), Path())

    def run(self, spec: Path, *arguments: str | Path, environment: Mapping[str, str] | None = None) -> Done:
        """Do ``testbed run SPEC ARGUMENTS`` in a fresh run directory."""
        return self.finish(*self.begin(spec, *arguments, environment=environment))

    def begin(
        self, spec: Path, *arguments: str | Path, environment: Mapping[str, str] | None = None
    ) -> tuple[subprocess.Popen[str], Path]:
        """Start ``testbed run SPEC ARGUMENTS``; gives the process and its run directory."""
        self._runs += 1
        directory = self.folder / f"run-{self._runs}"
        return self.start("run", spec, "--run-dir", directory, *arguments, environment=environment), directory

    def finish(self, process: subprocess.Popen[str], directory: Path, before: str = "") -> Done:
        """Wait for a command; ``before`` is what was read of its stderr already."""
        try:
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            process.wait()
        return Done(process.returncode, out, before + err, directory)

    def spec(self, text: str, name: str = "spec") -> Path:
        """Write a spec into a folder of its own."""
        path = self.folder / name / "deployment.yml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    def inventory(self, lab: practice.Lab, hosts: Mapping[str, Mapping[str, Any]], name: str = "lab.yml") -> Path:
        """An inventory of the lab's own with these hosts: name -> variables over those of the lab's host of that name.

        A host that is none of the lab's takes a lab host's variables by ``lab_host``.
        """
        own = yaml.safe_load(lab.inventory.read_text())["all"]
        entries = {}
        for host, variables in hosts.items():
            further = dict(variables)
            base = own["hosts"].get(further.pop("lab_host", host), {})
            entries[host] = {**base, **further}
        path = self.folder / name
        path.write_text(yaml.safe_dump({"all": {"vars": own["vars"], "hosts": entries}}, sort_keys=False))
        return path


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """Read the command's stderr up to and with the line that holds ``words``; fails if it ends before."""
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if words in line:
            return seen
    pytest.fail(f"{words!r} was never said:\n{seen}")


def on_host(lab: practice.Lab, host: str, script: str) -> str:
    """Do a shell script on a host past its network and any damage to it; what it prints."""
    done = subprocess.run(
        [*practice.enter(lab, host), "/bin/sh", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, f"on {host}: {shlex.quote(script)} failed: {done.stderr}"
    return done.stdout


LEFT = r"""
for home in /root /home/* /tmp; do ls -d "$home"/.testbed "$home"/testbed* 2>/dev/null; done
for environ in /proc/[0-9]*/environ; do
    if tr '\0' '\n' <"$environ" 2>/dev/null | grep -q ^TESTBED_RUN=; then
        echo "process ${environ%/environ}: $(tr '\0' ' ' <"${environ%environ}cmdline")"
    fi
done
for command in /proc/[0-9]*/cmdline; do
    if tr '\0' ' ' <"$command" 2>/dev/null | grep -q '[.]pyz'; then echo "agent $command"; fi
done
true
"""


AWAIT_ENDS = """
import os, select, sys
for pid in map(int, sys.argv[1:]):
    try:
        select.select([os.pidfd_open(pid)], [], [], 20)
    except ProcessLookupError:
        pass
"""


def left_on(lab: practice.Lab, *hosts: str) -> dict[str, str]:
    """What runs left on the hosts (all of the lab's by default): workspaces, processes; empty where nothing is.

    An agent says its last word while it lives: processes have a moment to end by themselves.
    """
    found = {}
    for host in hosts or [h.name for h in lab.hosts]:
        found[host] = on_host(lab, host, LEFT).strip()
        pids = re.findall("/proc/([0-9]+)", found[host])
        if pids:
            on_host(lab, host, shlex.join([sys.executable, "-c", AWAIT_ENDS, *pids]))
            found[host] = on_host(lab, host, LEFT).strip()
    return {host: left for host, left in found.items() if left}
