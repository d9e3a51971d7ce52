"""Machines as Ansible sees them: any inventory that Ansible reads, read by Ansible itself, in its own process."""

from __future__ import annotations

import importlib.util
import json
import locale
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from testbed.errors import LabError, TestbedError, UsageError
from testbed.resources import playbooks

PATIENCE = 120.0
"""How long an inventory (a script may ask a cloud) can take, in seconds."""

_SETTINGS = (
    ("ANSIBLE_TRANSFORM_INVALID_GROUP_CHARS", "force_valid_group_names", "ignore"),
    ("ANSIBLE_LOCALHOST_WARNING", "localhost_warning", "False"),
    ("ANSIBLE_PYTHON_INTERPRETER", "interpreter_python", "auto_silent"),
    # a connection whose other end is gone says nothing, and ssh by itself would wait for as long as TCP does
    ("ANSIBLE_SSH_EXTRA_ARGS", "ssh_extra_args", "-o ServerAliveInterval=5 -o ServerAliveCountMax=3"),
)
_ONCE = ("ANSIBLE_SSH_ARGS", "ssh_args", "-o ControlMaster=no")
"""Where a machine is connected to once: a connection kept for a next time is a process more at both ends."""
_QUIET = {
    "ANSIBLE_VERBOSITY": "0", "ANSIBLE_DEBUG": "False",  # they print on stdout, before what is asked for
    "ANSIBLE_LOG_PATH": os.devnull,  # what is printed holds opened vaults, and would stand in the operator's log
}  # fmt: skip
_STRICT = {"ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FATAL": "True", "ANSIBLE_INVENTORY_UNPARSED_FAILED": "True"}
_PARSERS = re.compile(r"^\[WARNING\]: Failed to parse inventory with '([^']+)' plugin: (.*?)(?=^\[|\Z)", re.M | re.S)


@dataclass(frozen=True, slots=True)
class Machine:
    """A host of the inventory.

    ``variables`` are those that hold for it, groups' included, as Ansible would merge them; they may hold secrets.
    Of those that are templates, Ansible's own for the connection are resolved, but for passwords. ``address`` is
    ``ansible_host``, else the name. ``user`` and ``port`` are None where the inventory does not set them.
    """

    name: str
    address: str
    connection: str = "ssh"
    user: str | None = None
    port: int | None = None
    variables: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def local(self) -> bool:
        """Whether it is a workspace on this machine."""
        return self.connection == "local"


@dataclass(frozen=True, slots=True)
class Inventory:
    """Machines in Ansible's own order, the groups as ``ansible-inventory --list --export`` prints them, the sources."""

    machines: tuple[Machine, ...]
    groups: Mapping[str, Any] = field(repr=False)
    sources: tuple[str, ...]

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return ", ".join(self.sources)


def load(
    sources: Sequence[str],
    playbook_dir: Path | None,
    vault_password_file: str | None,
    environment: Mapping[str, str],
) -> Inventory:
    """The inventory that ``sources`` give, as `Reading` gives it."""
    with Reading(sources, playbook_dir, vault_password_file, environment) as reading:
        return reading.result()


class Reading:
    """The reading of an inventory by Ansible, as a context manager: begun when made, ended on exit if it is not over.

    ``sources`` are files, folders, scripts or ``a,b,`` lists. Group and host variables beside them and beside
    ``playbook_dir`` are read too, vaulted files opened with ``vault_password_file``, inline-vaulted values kept as they
    are. A ``remote_user`` or ``transport`` set in ansible.cfg alone is not seen here.

    Raises `UsageError` for a source or a password file that is missing, `LabError` without Ansible.
    """

    def __init__(
        self,
        sources: Sequence[str],
        playbook_dir: Path | None,
        vault_password_file: str | None,
        environment: Mapping[str, str],
    ) -> None:
        self._named = tuple(_absolute(source) for source in sources)
        settings = ansible_environment(playbook_dir, self._named, environment)
        arguments = [word for source in self._named for word in ("-i", source)]
        if playbook_dir is not None:
            arguments += ["--playbook-dir", str(playbook_dir)]
        if vault_password_file:
            if not Path(vault_password_file).exists():
                raise UsageError(f"vault password file {vault_password_file} does not exist")
            arguments += ["--vault-password-file", vault_password_file]
        if importlib.util.find_spec("ansible") is None:
            raise LabError(f"ansible-core is not installed beside {sys.executable}", "pip install ansible-core")
        self._scratch = tempfile.TemporaryDirectory(prefix="testbed-inventory-")  # Ansible's own is in a home
        self._process = subprocess.Popen(
            [sys.executable, str(playbooks() / "testbed_inventory.py"), *arguments],
            env={**_STRICT, **environment, **settings, **_QUIET, "ANSIBLE_LOCAL_TEMP": self._scratch.name},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the process and what it started, if it still runs, and let go of its pipes."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()
        self._scratch.cleanup()

    def result(self) -> Inventory:
        """Wait for the inventory; its machines stand in the order in which a play over ``all`` meets them.

        Raises `UsageError` for a source that cannot be read, `LabError` when a script or Ansible fails.
        """
        printed = self._printed()
        export, _, order = printed.rstrip("\n").rpartition("\n")
        try:
            groups, hosts = json.loads(export), json.loads(order)
        except ValueError as error:
            raise LabError(f"Ansible printed no JSON for {', '.join(self._named)}: {printed[:200]!r}") from error
        for name, resolved in hosts:
            if resolved:
                groups["_meta"].setdefault("hostvars", {}).setdefault(name, {}).update(resolved)
        variables = _effective(groups, [name for name, _ in hosts])
        return Inventory(tuple(_machine(name, variables[name]) for name, _ in hosts), groups, self._named)

    def _printed(self) -> str:
        """What Ansible prints of the inventory; raises with its own reason when it fails."""
        try:
            printed, complaint = self._process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired as error:
            raise LabError(
                f"inventory {', '.join(self._named)} gave no answer within {PATIENCE:.0f} s",
                "if it is a script, run it by hand with --list",
            ) from error
        if self._process.returncode:
            raise _refusal(complaint or printed, self._named)
        return printed


def ansible_environment(
    playbook_dir: Path | None, sources: Sequence[str], environment: Mapping[str, str], once: bool = False
) -> dict[str, str]:
    """What to lay over ``environment`` for every Ansible process of a run.

    With ``once`` no machine is expected to be connected to a second time.
    ``ANSIBLE_CONFIG`` is the user's own, else ``ansible.cfg`` beside the spec, else beside the first inventory, else in
    the current folder; without any of them it is not set and Ansible looks in its usual places. As with Ansible,
    a file in a folder that everybody may write to does not count. Settings that keep Ansible quiet, and its
    connections from hanging, are added where neither the environment nor that file says anything about them; host
    keys are checked unless one of them says not to. Where this process' locale is none with which Ansible runs at all
    (build servers like ``LC_ALL=C``), it is one that has UTF-8 and nothing else.
    """
    result: dict[str, str] = {} if _locale_suits() else {"LC_ALL": "C.UTF-8"}
    config = _config(playbook_dir, sources, environment)
    if config is not None:
        result["ANSIBLE_CONFIG"] = str(config)
    own = Path(os.path.expanduser("~/.ansible.cfg"))  # noqa: PTH111  Path's own raises for a user without a home
    said = _said(config) if config else _said(own) or _said(Path("/etc/ansible/ansible.cfg"))
    for variable, key, value in (*_SETTINGS, _ONCE) if once else _SETTINGS:
        if variable not in environment and key not in said:
            result[variable] = value
    if "ANSIBLE_HOST_KEY_CHECKING" not in environment:
        # ansible-runner switches the check off where no variable says anything, over what ansible.cfg says
        check = environment.get("ANSIBLE_SSH_HOST_KEY_CHECKING") or said.get("host_key_checking")
        result["ANSIBLE_HOST_KEY_CHECKING"] = check or "True"
    return result


def for_nodes(
    inventory: Inventory | None, assignment: Mapping[str, Machine], node_groups: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """The run's own inventory, as data for a JSON inventory file that Ansible reads.

    ``assignment`` maps nodes (in index order) to the machines they stand on, ``node_groups`` further groups to nodes.
    The groups of the inventory keep their variables and children, with each machine replaced by its nodes; machines
    without nodes are gone. Host variables are copied to each node. ``inventory`` None makes every node a workspace on
    this machine. Vaulted files come out opened, so the result may hold secrets: it belongs in a file of mode 0600.
    """
    if inventory is None:
        workspace = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
        everything: dict[str, Any] = {"hosts": {node: dict(workspace) for node in assignment}}
        if node_groups:
            everything["children"] = {g: {"hosts": dict.fromkeys(nodes)} for g, nodes in node_groups.items()}
        return {"all": everything}
    standing: dict[str, list[str]] = {}
    for node, machine in assignment.items():
        standing.setdefault(machine.name, []).append(node)
    own = inventory.groups.get("_meta", {}).get("hostvars", {})
    ungrouped = inventory.groups.get("ungrouped", {})
    alone = set(ungrouped.get("hosts", ())) if ungrouped.get("vars") else set()
    hosts = {}
    for node, machine in assignment.items():
        # a node is in its configurations' groups, so Ansible would no longer count it among the ungrouped
        hosts[node] = {**(ungrouped["vars"] if machine.name in alone else {}), **own.get(machine.name, {})}
        if not machine.local and not {"ansible_host", "ansible_ssh_host"} & machine.variables.keys():
            hosts[node]["ansible_host"] = machine.address
    children: dict[str, Any] = {}
    for group, content in inventory.groups.items():
        if group in ("_meta", "all", "ungrouped"):
            continue
        children[group] = _group(content, standing)
    for group, nodes in node_groups.items():
        children.setdefault(group, {}).setdefault("hosts", {}).update(dict.fromkeys(nodes))
    result = {"hosts": hosts, "vars": dict(inventory.groups.get("all", {}).get("vars", {})), "children": children}
    return {"all": {part: content for part, content in result.items() if content}}


def _group(content: Mapping[str, Any], standing: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """One exported group in the form of an inventory file, nodes for machines."""
    result: dict[str, Any] = {}
    nodes = [node for machine in content.get("hosts", ()) for node in standing.get(machine, ())]
    if nodes:
        result["hosts"] = dict.fromkeys(nodes)
    if content.get("children"):
        result["children"] = {child: {} for child in content["children"]}
    if content.get("vars"):
        result["vars"] = dict(content["vars"])
    return result


def _absolute(source: str) -> str:
    """The source as Ansible takes it from any folder; raises `UsageError` if it is a path to nothing."""
    if "," in source:
        return source
    if not source:
        raise UsageError("-i names no inventory", "it is empty, as an unset variable of a script may make it")
    path = Path(source).expanduser()
    if not path.exists():
        near = [p.name for p in path.parent.glob("*")] if path.parent.is_dir() else []
        raise UsageError(f"inventory {source} does not exist", _nearest(path.name, near))
    return str(path.absolute())


def _nearest(word: str, words: Iterable[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(word, list(words), 1)
    return f"did you mean {close[0]}?" if close else ""


def _locale_suits() -> bool:
    """Whether Ansible runs in the locale that the environment names: it is there, and in UTF-8."""
    before = locale.setlocale(locale.LC_ALL)
    try:
        locale.setlocale(locale.LC_ALL, "")
        return (locale.getlocale()[1] or "").lower() in ("utf-8", "utf8")
    except (locale.Error, ValueError):
        return False
    finally:
        locale.setlocale(locale.LC_ALL, before)


def _config(playbook_dir: Path | None, sources: Sequence[str], environment: Mapping[str, str]) -> Path | None:
    if environment.get("ANSIBLE_CONFIG"):
        return Path(environment["ANSIBLE_CONFIG"]).expanduser().absolute()
    folders = [playbook_dir] if playbook_dir is not None else []
    first = next((Path(s) for s in sources if "," not in s), None)
    if first is not None:
        folders.append(first if first.is_dir() else first.parent)
    folders.append(Path.cwd())
    for folder in folders:
        config = folder.absolute() / "ansible.cfg"
        if config.is_file() and not folder.stat().st_mode & 0o002:
            return config
    return None


def _said(config: Path) -> dict[str, str]:
    """The settings in an ansible.cfg and their text; none if there is no such file (Ansible complains itself)."""
    path = config / "ansible.cfg" if config.is_dir() else config
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return {}
    return dict(re.findall(r"^\s*(\w+)\s*[=:][ \t]*(.*?)[ \t]*(?:[ \t];.*)?$", text, re.M))


def _refusal(complaint: str, sources: Sequence[str]) -> TestbedError:
    """Ansible's complaint as one of our errors: the file, the reason, none of the noise."""
    if "vault secrets" in complaint or "Decryption failed" in complaint:
        reason = _line(complaint, "[ERROR]: ") or complaint.strip()
        return UsageError(
            f"the inventory {', '.join(sources)} holds vaulted values that cannot be opened: {reason}",
            "give the right password with --vault-password-file FILE",
        )
    broken = re.findall(r"Unable to parse (\S+) as an inventory source", complaint)
    file = broken[0] if broken else ", ".join(sources)
    parsers = _PARSERS.findall(complaint)
    if not parsers:
        errors = _line(complaint, "[ERROR]: ") or complaint.strip()[-500:] or "no reason given"
        return LabError(
            f"Ansible cannot read the inventory {file}: {errors}", f"try: ansible-inventory -i {file} --list"
        )
    by_name = dict(reversed(parsers))
    if "script" in by_name:
        reason = by_name["script"].splitlines()[0]
        said = by_name["script"].partition("Standard error from inventory script:\n")[2].strip()
        return LabError(f"inventory script {file} failed: {reason} {said}".rstrip(), f"run it by hand: {file} --list")
    name, text = parsers[0] if file.endswith((".yml", ".yaml", ".json")) else parsers[-1]
    where = re.search(rf"^Origin: ({re.escape(file)}(?::\d+)+)", text, re.M)
    reason = text.splitlines()[0].removeprefix("Failed to parse inventory: ")
    kind = "" if name == "auto" else f" (read as {name})"
    message = f"inventory {where[1] if where else file} cannot be read{kind}: {reason}"
    return UsageError(message, f"correct it; to see all that Ansible says: ansible-inventory -i {file} --list")


def _line(text: str, prefix: str) -> str:
    """The rest of the first line that begins with ``prefix``; empty if there is none."""
    return next((line[len(prefix) :].strip() for line in text.splitlines() if line.startswith(prefix)), "")


def _effective(groups: Mapping[str, Any], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Each host's variables as Ansible merges them: by depth, priority and name of its groups, then its own."""
    parents: dict[str, set[str]] = {name: set() for name in groups if name != "_meta"}
    for name, content in groups.items():
        for child in content.get("children", ()) if name != "_meta" else ():
            parents.setdefault(child, set()).add(name)
    depths: dict[str, int] = {}

    def depth(group: str) -> int:
        if group not in depths:
            depths[group] = 1 + max((depth(p) for p in parents[group]), default=-1)
        return depths[group]

    def above(group: str) -> set[str]:
        return {group}.union(*(above(p) for p in parents[group]))

    def rank(group: str) -> tuple[int, int, str]:
        return depth(group), int(groups.get(group, {}).get("vars", {}).get("ansible_group_priority", 1)), group

    around: dict[str, set[str]] = {name: {"all"} for name in names}
    for group in parents:
        lineage = above(group)
        for host in groups.get(group, {}).get("hosts", ()):
            around[host] |= lineage
    own = groups.get("_meta", {}).get("hostvars", {})
    result = {}
    for name in names:
        merged: dict[str, Any] = {}
        for group in sorted(around[name], key=rank):
            merged.update(groups.get(group, {}).get("vars", {}))
        result[name] = {key: _unwrapped(value) for key, value in {**merged, **own.get(name, {})}.items()}
    return result


def _unwrapped(value: Any) -> Any:
    """The value without the marks that the export puts on texts that are no templates (those that plugins made)."""
    if isinstance(value, dict):
        if value.keys() == {"__ansible_unsafe"}:
            return value["__ansible_unsafe"]
        return {key: _unwrapped(part) for key, part in value.items()}
    return [_unwrapped(part) for part in value] if isinstance(value, list) else value


def _machine(name: str, variables: Mapping[str, Any]) -> Machine:
    def first(*keys: str) -> Any:
        return next((variables[key] for key in keys if variables.get(key) not in (None, "")), None)

    port, user = first("ansible_port", "ansible_ssh_port"), first("ansible_user", "ansible_ssh_user")
    return Machine(
        name,
        str(first("ansible_host", "ansible_ssh_host") or name),
        str(first("ansible_connection") or "ssh"),
        str(user) if user is not None else None,
        int(port) if str(port).isdigit() else None,
        variables,
    )
