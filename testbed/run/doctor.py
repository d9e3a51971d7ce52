"""``testbed doctor``: looks at this machine, and at the way from the lab's machines to etcd; changes nothing."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from testbed import inventory as inventories
from testbed import resources
from testbed.errors import TestbedError
from testbed.etcd import advisories, binary
from testbed.etcd.access import connect, require_authentication, server_version
from testbed.etcd.addresses import reachable_address
from testbed.etcd.choice import EtcdChoice
from testbed.etcd.server import EmbeddedServer
from testbed.inventory import Inventory
from testbed.lab.machines import explain
from testbed.run.bursts import CHECK, AnsibleBursts, forks_for
from testbed.run.directory import state_root
from testbed.run.executor import Burst, TaskResult
from testbed.run.freeze import write_private

GOOD, POOR, BAD = "good", "poor", "bad"
"""How a thing is: as it should be; usable, with a word of warning; in the way of a run."""

ROOM = 1024**3
"""Bytes that should be free where runs are kept: etcd takes 122 MB while a run lasts, logs come on top."""

PATIENCE = 60.0
"""Seconds that as many machines as are looked at together may take; one that hangs takes longer, and is told."""

NODE_ROOM = 100 * 1024**2
"""Bytes that should be free on a machine where workspaces go."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at, how it is, and what to do about it."""

    what: str
    state: str
    found: str
    advice: str = ""


def look_here(choice: EtcdChoice) -> Iterator[Finding]:
    """Look at Python, Ansible, etcd, ssh and the disk of this machine."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("Python", GOOD, f"{version} ({sys.executable})")
    yield _package("ansible-core", "ansible-playbook")
    yield _package("ansible-runner", "")
    yield from _etcd(choice)
    yield _ssh()
    yield _disk()


def _package(name: str, program: str) -> Finding:
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, BAD, "not installed", f"install testbed again, or: {sys.executable} -m pip install {name}")
    if program and not (Path(sys.executable).parent / program).exists() and not shutil.which(program):
        return Finding(name, BAD, f"{version}, but without {program}", "install testbed again in a fresh environment")
    return Finding(name, GOOD, version)


def _etcd(choice: EtcdChoice) -> Iterator[Finding]:
    try:
        if choice.cluster is None:
            yield from _own_server(choice)
            return
        client = connect(choice.cluster.root, patience=5.0)
        try:
            version = server_version(client)
            yield Finding("etcd", GOOD, f"the lab's cluster, version {binary.text_of(version)}")
            require_authentication(client)
            yield Finding("etcd's authentication", GOOD, "on")
        finally:
            client.close()
        for advisory in advisories.for_shared_use(version):
            yield Finding(
                "etcd's access control", POOR, str(advisory), "update the cluster; docs/etcd.md says which versions"
            )
    except TestbedError as error:
        yield Finding("etcd", BAD, error.message, error.help)


def _own_server(choice: EtcdChoice) -> Iterator[Finding]:
    found = binary.find(choice.binary)
    yield Finding("etcd", GOOD, str(found))
    limit = binary.watch_limit(found.version, tls=True)
    if limit is not None:
        yield Finding("etcd's nodes", POOR, f"at most {limit.nodes} on other machines: {limit.reason}", limit.remedy)
    with (
        tempfile.TemporaryDirectory(prefix="testbed-doctor-") as folder,
        EmbeddedServer(found, Path(folder), tls=False),
    ):
        yield Finding("etcd's start", GOOD, "starts, answers, and is gone again")


def _ssh() -> Finding:
    program = shutil.which("ssh")
    if program is None:
        return Finding("ssh", BAD, "no ssh client", "apt-get install openssh-client; without it nodes can only be here")
    try:
        done = subprocess.run([program, "-V"], capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Finding("ssh", BAD, f"{program} does not start: {error}", "install openssh-client again")
    said = f"{done.stderr.strip()} ({program})"
    if done.returncode:
        return Finding("ssh", BAD, said, "it must run for this user, or nodes can only be here")
    return Finding("ssh", GOOD, said)


def _disk() -> Finding:
    folder = state_root()
    while not folder.is_dir():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    room = f"{free / 1024**3:.1f} GiB free where runs are kept ({folder})"
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = f"{folder} cannot be written to: {error.strerror}"
        return Finding("disk", BAD, reason, "set TESTBED_STATE_HOME to another folder")
    return Finding(
        "disk", GOOD if free >= ROOM else POOR, room, "" if free >= ROOM else "make room, or set TESTBED_STATE_HOME"
    )


def look_there(
    sources: Sequence[str], vault_password_file: str | None, choice: EtcdChoice, patience: float = PATIENCE
) -> Iterator[Finding]:
    """The machines of an inventory: reachable, with a Python, with room, and with a way to etcd."""
    try:
        inventory = inventories.load(sources, None, vault_password_file, os.environ)
    except TestbedError as error:
        yield Finding("inventory", BAD, error.message, error.help)
        return
    yield Finding("inventory", GOOD, f"{len(inventory.machines)} machines")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="testbed-doctor-")))
        try:
            endpoints = _endpoints(stack, folder, inventory, choice)
        except TestbedError as error:
            yield Finding("the way to etcd", BAD, error.message, error.help)
            return
        environment = inventories.ansible_environment(None, sources, os.environ)
        if vault_password_file:
            environment["ANSIBLE_VAULT_PASSWORD_FILE"] = str(Path(vault_password_file).absolute())
        answers, silence = _ask(stack, folder, inventory, endpoints, environment, patience)
    for machine in inventory.machines:
        yield from _judge(inventory, machine.name, answers.get(machine.name), silence, endpoints[machine.name])


def _endpoints(stack: ExitStack, folder: Path, inventory: Inventory, choice: EtcdChoice) -> dict[str, tuple[str, int]]:
    """For each machine, the host and port at which it would reach etcd; a server of our own is started for that."""
    if choice.cluster is not None:
        place = urlsplit(choice.cluster.endpoints[0])
        return dict.fromkeys((m.name for m in inventory.machines), (place.hostname or "", place.port or 2379))
    routes = {
        m.name: "127.0.0.1" if m.local else choice.advertise or reachable_address(m.address) for m in inventory.machines
    }
    remote = sorted(set(routes.values()) - {"127.0.0.1"})
    server = stack.enter_context(EmbeddedServer(binary.find(choice.binary), folder / "etcd", remote, tls=bool(remote)))
    return {name: (address, server.port) for name, address in routes.items()}


def _ask(
    stack: ExitStack,
    folder: Path,
    inventory: Inventory,
    endpoints: Mapping[str, tuple[str, int]],
    environment: Mapping[str, str],
    patience: float,
) -> tuple[dict[str, TaskResult], str]:
    """One burst over all machines: what each answers, and why it told nothing of the others."""
    data = inventories.for_nodes(inventory, {m.name: m for m in inventory.machines}, {})
    for machine in inventory.machines:
        variables = data["all"]["hosts"][machine.name]
        variables["testbed_endpoint"] = list(endpoints[machine.name])
        variables.setdefault("testbed_root", str(state_root()) if machine.local else "~/.testbed")
    shutil.copytree(resources.playbooks(), folder / "playbooks")
    write_private(folder / "inventory.json", json.dumps(data))
    forks = forks_for(len(endpoints))
    executor = AnsibleBursts(
        folder / "playbooks", folder / "inventory.json", folder / "logs", folder, environment, forks
    )
    stack.callback(executor.close)
    answers: dict[str, TaskResult] = {}
    burst, late = Burst(1, CHECK, tuple(endpoints)), threading.Event()
    timer = threading.Timer(patience * -(-len(endpoints) // forks), late.set)
    timer.start()
    try:
        outcome = executor.run(burst, lambda task: answers.__setitem__(task.node, task), late)
    finally:
        timer.cancel()
    return answers, outcome.message


def _judge(
    inventory: Inventory, name: str, task: TaskResult | None, silence: str, endpoint: tuple[str, int]
) -> Iterator[Finding]:
    machine = next(m for m in inventory.machines if m.name == name)
    answer: Any = task.result.get("answer") if task else None
    if task is None or not isinstance(answer, dict) or not answer.get("ok"):
        by_hand = shlex.join(["ansible", name, *(w for s in inventory.sources for w in ("-i", s)), "-m", "ping"])
        known = explain(task.message if task else silence, machine, f"try it by hand: {by_hand}")
        yield Finding(name, BAD, f"{known.reason} ({known.tried})", known.advice)
        return
    yield Finding(name, GOOD, f"reached; Python {answer.get('python')}")
    where = f"{answer.get('folder')} on {name}"
    if not answer.get("writable"):
        yield Finding(
            name, BAD, f"{where} cannot be written to", "let testbed_root name another folder in the inventory"
        )
    elif answer.get("noexec"):
        yield Finding(
            name, BAD, f"no program may be started in {where}: it is mounted noexec",
            "mount it for that, or let testbed_root name another folder in the inventory",
        )  # fmt: skip
    elif int(answer.get("free", 0)) < NODE_ROOM:
        free = f"{int(answer.get('free', 0)) / 1024**2:.0f} MiB free in {where}"
        yield Finding(name, POOR, free, "make room, or let testbed_root name another folder in the inventory")
    if answer.get("etcd"):
        host, port = endpoint
        yield Finding(
            name, BAD, f"no way to etcd at {host}:{port}: {answer['etcd']}",
            f"open {host} for connections from {machine.address}, or name an address it reaches with --etcd-advertise "
            f"(this machine is {socket.gethostname()})",
        )  # fmt: skip
