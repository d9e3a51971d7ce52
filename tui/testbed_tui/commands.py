"""What an operator can do to a run, as the command line that does it: shown, copied, and carried out as that."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from testbed.errors import UsageError
from testbed.inventory import Machine

ABORT, FINALISE, CLEAN, STATUS, LOGS, REPORT, SHELL, PEEK = (
    "abort", "finalise", "clean", "status", "logs", "report", "shell", "peek",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Command:
    """Something to do: its name, and the words after ``testbed``, or a whole command where ``own`` is False."""

    name: str
    words: tuple[str, ...]
    own: bool = True

    @property
    def text(self) -> str:
        """As it is typed."""
        return shlex.join(("testbed", *self.words) if self.own else self.words)

    @property
    def argv(self) -> list[str]:
        """As it is started: by this interpreter, whatever is on PATH."""
        return [sys.executable, "-m", "testbed", *self.words] if self.own else list(self.words)


def abort(run: str, reason: str = "") -> Command:
    """Stop all nodes of the run."""
    return Command(ABORT, ("abort", run, *(("--reason", reason) if reason else ())))


def finalise(run: str) -> Command:
    """Let all nodes of the run finalise."""
    return Command(FINALISE, ("finalise", run))


def clean(run: str) -> Command:
    """Run the clean targets, and fetch what was left."""
    return Command(CLEAN, ("clean", run))


def equivalents(run: str, node: str | None) -> list[Command]:
    """What the command line offers for the run, and for the node."""
    found = [Command(STATUS, ("status", run)), Command(REPORT, ("report", run)), abort(run), finalise(run), clean(run)]
    if node is not None:
        found[1:1] = [Command(LOGS, ("logs", run, node)), Command(PEEK, ("peek", run, node))]
    return found


def start(spec: str, parameters: Mapping[str, str], inventories: Sequence[str], flags: Sequence[str] = ()) -> Command:
    """Start a run of the spec."""
    words = ["run", spec]
    for inventory in inventories:
        words += ["-i", inventory]
    for name, value in parameters.items():
        words += ["-p", f"{name}={value}"]
    return Command("run", (*words, *flags))


def shell(machine: Machine, workspace: str) -> Command:
    """Open a shell on a node's machine, in its workspace; raises UsageError where ssh cannot be told how."""
    home = workspace.startswith("~/")  # the machine's shell knows which
    folder = ("~/" if home else "") + shlex.quote(workspace.removeprefix("~/"))
    inside = f"cd {folder} 2>/dev/null; exec ${{SHELL:-sh}} -l" if workspace else "exec ${SHELL:-sh} -l"
    if machine.local:
        return Command(SHELL, ("sh", "-c", inside), own=False)
    if machine.connection not in ("ssh", "smart", "paramiko", "paramiko_ssh"):
        raise UsageError(f"{machine.name} is reached by {machine.connection}, not by ssh", "open a shell there by hand")
    if machine.address.startswith("-"):
        raise UsageError(f"{machine.address!r} is no address")
    words = ["ssh", "-t"]
    for variable in ("ansible_ssh_common_args", "ansible_ssh_extra_args"):
        words += shlex.split(_plain(machine, variable))
    key = _plain(machine, "ansible_ssh_private_key_file") or _plain(machine, "ansible_private_key_file")
    words += ["-i", os.path.expanduser(key)] if key else []  # noqa: PTH111  ssh's own word, not a path of ours
    words += ["-p", str(machine.port)] if machine.port else []
    words += ["-l", machine.user] if machine.user else []
    return Command(SHELL, (*words, "--", machine.address, inside), own=False)


def carry_out(command: Command) -> tuple[int, str]:
    """Do it and wait; the exit code, and the last lines that it said."""
    done = subprocess.run(
        command.argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
        env=environment(),
    )  # fmt: skip
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return done.returncode, "\n".join(said[-6:])


def environment() -> dict[str, Any]:
    """Ours, but not what tells a Textual app that a browser shows it."""
    return {k: v for k, v in os.environ.items() if not k.startswith("TEXTUAL")}


def _plain(machine: Machine, variable: str) -> str:
    value = machine.variables.get(variable)
    if value is None:
        return ""
    if not isinstance(value, str) or "{{" in value:
        raise UsageError(f"{variable} of {machine.name} is a template, which only Ansible can read")
    return value
