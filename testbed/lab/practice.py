"""The practice lab: real SSH hosts with addresses of their own on one Linux machine, and an inventory for them.

A host is a set of Linux namespaces (network, host name, processes, mounts) with its own ``sshd``, ``/root``, ``/home``,
``/tmp`` and ``/run``. Everything else of the file system it shares with this machine. Needs root.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from testbed.errors import LabError, UsageError
from testbed.lab import accounts, hosts, network

STATE = Path("/run/testbed-lab")
"""Where the labs of this machine keep their state, one folder each."""

MOST = 250
"""The most hosts that a lab can have: its subnet is a /24."""

_MARK = "# practice lab {name}: written by `testbed lab up`, removed by `testbed lab down`"
_NEEDED = {
    "ip": "iproute2",
    "unshare": "util-linux",
    "mount": "mount",
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
}
_PYTHONS = ("/usr/bin/python3", "/usr/local/bin/python3", str(Path(sys.executable).resolve()))
_COVERED = ("/root/", "/home/", "/tmp/", "/var/tmp/", "/run/")  # noqa: S108  a host sees its own in their place


@dataclass(frozen=True, slots=True)
class Host:
    """A host of a lab; ``index`` counts from 1."""

    name: str
    index: int
    address: str


@dataclass(frozen=True, slots=True)
class Lab:
    """A practice lab as it was made; ``controller`` is this machine's address on the lab's network."""

    name: str
    directory: Path
    inventory: Path
    bridge: str
    subnet: str
    controller: str
    hosts: tuple[Host, ...]

    def host(self, name: str) -> Host:
        """The host of that name; raises `UsageError` if the lab has none."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise UsageError(
            f"practice lab {self.name} has no host {name}", f"it has {', '.join(h.name for h in self.hosts)}"
        )


@dataclass(frozen=True, slots=True)
class HostState:
    """How a host is: ``up`` when it has power, ``sshd`` when its SSH server answers."""

    name: str
    address: str
    up: bool
    sshd: bool


@dataclass(frozen=True, slots=True)
class Status:
    """A lab and its hosts, as plain as ``asdict`` makes it."""

    name: str
    subnet: str
    controller: str
    inventory: str
    hosts: tuple[HostState, ...]

    def to_json(self) -> dict[str, Any]:
        """The status as plain data."""
        return asdict(self)


def up(count: int, inventory: Path, name: str = "practice", directory: Path = STATE) -> Lab:
    """Make a lab of ``count`` hosts, all of them answering, and write its inventory to ``inventory``.

    The hosts are ``NAME-1`` to ``NAME-count``. Raises `UsageError` for a count or a name that cannot be, for a lab
    that stands already and for an inventory file that is somebody else's; `LabError` when this machine lacks something.
    A failed start leaves nothing behind.
    """
    if not 1 <= count <= MOST:
        raise UsageError(f"a practice lab has 1 to {MOST} hosts, not {count}")
    _check_name(name)
    check_machine()
    _check_inventory(inventory, name)
    with _locked(directory):
        state = directory / name
        if state.exists():
            raise UsageError(f"practice lab {name} exists already", f"`testbed lab down` removes it (state in {state})")
        lab = _plan(count, inventory.absolute(), name, state)
        _check_devices(lab)
        state.mkdir(mode=0o700)
        try:
            _build(lab)
        except BaseException:
            _remove(lab)
            raise
    return lab


def down(name: str = "practice", directory: Path = STATE) -> bool:
    """Take the lab away with all that runs on it; whether there was one. Raises `LabError` if something stays."""
    _check_name(name)
    if not directory.is_dir():
        return False
    _check_root()
    with _locked(directory):
        lab = _read(name, directory)
        if lab is not None:
            _remove(lab)
    return lab is not None


def find(name: str = "practice", directory: Path = STATE) -> Lab:
    """The lab of that name; raises `UsageError` if there is none."""
    _check_name(name)
    lab = _read(name, directory)
    if lab is None:
        others = labs(directory)
        known = f"there is: {', '.join(others)}; name it with --name" if others else "`testbed lab up N` makes one"
        raise UsageError(f"there is no practice lab {name}", known)
    return lab


def labs(directory: Path = STATE) -> list[str]:
    """The names of the labs that stand on this machine."""
    return sorted(path.parent.name for path in directory.glob("*/lab.json"))


def status(lab: Lab) -> Status:
    """How each host of the lab is, asked now."""

    def ask(host: Host) -> HostState:
        alive = hosts.init_of(lab.directory, host.name) is not None
        return HostState(host.name, host.address, alive, alive and _answers(host.address))

    with ThreadPoolExecutor(32) as workers:
        states = tuple(workers.map(ask, lab.hosts))
    return Status(lab.name, lab.subnet, lab.controller, str(lab.inventory), states)


def kill(lab: Lab, name: str) -> None:
    """Pull the host's plug: every process on it is gone when this returns, nothing was flushed or said."""
    host = lab.host(name)
    _end(lab, [host])


def cut(lab: Lab, name: str) -> None:
    """Pull the host's network cable: its processes live on, no packet passes."""
    network.switch(network.cable_name(lab.name, lab.host(name).index), on=False)


def join(lab: Lab, name: str) -> None:
    """Plug the host's network cable in again."""
    network.switch(network.cable_name(lab.name, lab.host(name).index), on=True)


def enter(lab: Lab, name: str) -> list[str]:
    """The command prefix that runs a program on the host past its network; raises `LabError` if the host is off."""
    init = hosts.init_of(lab.directory, lab.host(name).name)
    if init is None:
        raise LabError(f"practice host {name} is off")
    return ["nsenter", "-t", str(init.pid), "-n", "-u", "-i", "-p", "-m", "--wd=/root", "--"]


def _plan(count: int, inventory: Path, name: str, state: Path) -> Lab:
    subnet = network.free_subnet()
    made = tuple(Host(f"{name}-{n}", n, str(subnet[n + 1])) for n in range(1, count + 1))
    return Lab(name, state, inventory, network.bridge_name(name), str(subnet), str(subnet[1]), made)


def _build(lab: Lab) -> None:
    """Everything of the lab, in the order in which the parts need one another."""
    text = json.dumps({**asdict(lab), "directory": str(lab.directory), "inventory": str(lab.inventory)}, indent=1)
    (lab.directory / "lab.json").write_text(text + "\n")
    named = [(host.name, host.address) for host in lab.hosts]
    accounts.write_keys(lab.directory, named)
    accounts.write_etc(lab.directory, named, lab.controller)
    prefix = lab.subnet.partition("/")[2]
    with hosts.launched(lab.directory, {name: f"{address}/{prefix}" for name, address in named}) as launch:
        launch.expect("born")
        cables = {}
        for host in lab.hosts:
            init = hosts.init_of(lab.directory, host.name)
            if init is None:
                raise LabError(f"practice host {host.name} ended right after its start")
            cables[network.cable_name(lab.name, host.index)] = init.pid
        network.lay(lab.bridge, f"{lab.controller}/{prefix}", cables)
        launch.open_gate()
        launch.expect("ready")
    lab.inventory.write_text(_inventory_text(lab))


def _remove(lab: Lab) -> None:
    """Take away what there is of the lab, whatever state it is in."""
    _end(lab, lab.hosts)
    network.remove(lab.bridge, [network.cable_name(lab.name, host.index) for host in lab.hosts])
    if _marked(lab.inventory, lab.name):
        lab.inventory.unlink()
    shutil.rmtree(lab.directory)


def _end(lab: Lab, victims: tuple[Host, ...] | list[Host]) -> None:
    inits = [init for host in victims if (init := hosts.init_of(lab.directory, host.name)) is not None]
    parents = [parent for init in inits if (parent := hosts.parent_of(init)) is not None]
    hosts.end(inits)
    hosts.await_end(parents)  # each collects its child and goes


def _inventory_text(lab: Lab) -> str:
    python = next((p for p in _PYTHONS if Path(p).exists() and not p.startswith(_COVERED)), None)
    options = f"-o UserKnownHostsFile={lab.directory}/known_hosts -o GlobalKnownHostsFile=/dev/null"
    lines = [
        _MARK.format(name=lab.name),
        f"# {len(lab.hosts)} SSH hosts on this machine, subnet {lab.subnet}; this machine is {lab.controller} to them",
        "all:",
        "  vars:",
        "    ansible_user: root",
        f"    ansible_ssh_private_key_file: {lab.directory}/id_ed25519",
        f"    ansible_ssh_common_args: {options} -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes",
        *([f"    ansible_python_interpreter: {python}"] if python else []),
        "  hosts:",
        *(f"    {host.name}: {{ansible_host: {host.address}}}" for host in lab.hosts),
    ]
    return "\n".join(lines) + "\n"


def _answers(address: str) -> bool:
    """Whether an SSH server greets at the address within 3 s."""
    try:
        with socket.create_connection((address, 22), timeout=3) as connection:
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def _read(name: str, directory: Path) -> Lab | None:
    """The lab as its state tells; one whose making was cut short before it had a plan is told by its name alone."""
    state = directory / name
    if not state.is_dir():
        return None
    try:
        raw = json.loads((state / "lab.json").read_text())
        made = tuple(Host(**host) for host in raw["hosts"])
        return Lab(name, state, Path(raw["inventory"]), raw["bridge"], raw["subnet"], raw["controller"], made)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        found = [path.name for path in (state / "hosts").glob("*")]
        made = tuple(Host(host, int(host.rpartition("-")[2]), "") for host in found)
        return Lab(name, state, Path(os.devnull), network.bridge_name(name), "", "", made)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the machine's labs for one change at a time; the folder goes when no lab is left in it."""
    while True:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(folder, fcntl.LOCK_EX)
        # whoever held the lock before may have removed the folder that we opened
        if directory.exists() and os.path.samestat(os.fstat(folder), directory.stat()):
            break
        os.close(folder)
    try:
        yield
    finally:
        if not any(directory.iterdir()):
            directory.rmdir()
        os.close(folder)


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,39}", name):
        raise UsageError(f"{name!r} is no name for a practice lab", "use a-z, 0-9 and -, at most 40 characters")


def _check_root() -> None:
    if os.geteuid() != 0:
        raise LabError("the practice lab needs root: it makes network namespaces", f"sudo {sys.argv[0]} lab ...")


def check_machine() -> None:
    """Raise `LabError` that names everything this machine lacks."""
    if not sys.platform.startswith("linux"):
        raise LabError("the practice lab needs Linux: it is made of network namespaces")
    _check_root()
    missing = [program for program in _NEEDED if shutil.which(program) is None]
    if missing:
        packages = " ".join(sorted({_NEEDED[program] for program in missing}))
        raise LabError(f"the practice lab needs {', '.join(missing)}, not found on PATH", f"apt-get install {packages}")


def _check_inventory(path: Path, name: str) -> None:
    if path.exists() and not _marked(path, name):
        raise UsageError(f"{path} exists and is not the inventory of practice lab {name}", "name another file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write the inventory {path}: {error.strerror}", "name another file") from error


def _check_devices(lab: Lab) -> None:
    """Raise `LabError` where a network device has a name of ours: what clears up after us would remove it."""
    ours = {lab.bridge, *(network.cable_name(lab.name, host.index) for host in lab.hosts)}
    taken = sorted(network.links() & ours)
    if taken:
        raise LabError(
            f"network device {taken[0]} exists already", f"ip link delete {taken[0]}, or use another lab name"
        )


def _marked(path: Path, name: str) -> bool:
    if not path.is_file():
        return False
    with path.open(errors="replace") as file:
        return file.readline().rstrip("\n") == _MARK.format(name=name)
