"""The practice lab's wires: a free subnet, a bridge with the controller's address, a cable to each host."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from testbed.errors import LabError

RANGE = ipaddress.ip_network("10.213.0.0/16")
"""Where the labs' subnets, one /24 each, are taken from."""


def bridge_name(lab: str) -> str:
    """The lab's bridge: readable where the kernel's 15 characters allow it."""
    return f"tb-{lab}" if len(lab) <= 12 else f"tb-{_digest(lab)}"


def cable_name(lab: str, index: int) -> str:
    """The machine's end of the cable to the lab's host of that index."""
    return f"tv{_digest(lab)}.{index}"


def free_subnet() -> ipaddress.IPv4Network:
    """The first /24 of `RANGE` that no address and no route of this machine touches; raises `LabError` if none is."""
    used = [ipaddress.ip_network(text, strict=False) for text in _addresses() + _routes()]
    for subnet in RANGE.subnets(new_prefix=24):
        if not any(other.version == 4 and subnet.overlaps(other) for other in used):
            return ipaddress.IPv4Network(subnet)
    raise LabError(f"no free subnet in {RANGE}: addresses or routes of this machine cover it all")


def lay(bridge: str, address: str, cables: Mapping[str, int]) -> None:
    """Make the bridge with ``address`` (with prefix) and a cable to the network namespace of each process."""
    # a bridge without a hardware address of its own takes a port's, and another one when that port goes: every host
    # would lose the controller for seconds whenever one of them is killed
    hardware = "02:" + ":".join(_digest(bridge)[i : i + 2] for i in (0, 2, 4, 6)) + ":01"
    lines = [
        f"link add {bridge} address {hardware} type bridge",
        f"address add {address} dev {bridge}",
        f"link set {bridge} up",
    ]
    for cable, pid in cables.items():
        lines += [f"link add {cable} type veth peer name eth0 netns {pid}", f"link set {cable} master {bridge} up"]
    _batch(lines)


def remove(bridge: str, cables: Sequence[str]) -> None:
    """Take down what is left of these; raises `LabError` if something stays."""
    ours = {bridge, *cables}
    _batch([f"link delete {name}" for name in sorted(links() & ours)], force=True)
    left = sorted(links() & ours)
    if left:
        raise LabError(f"network devices {', '.join(left[:5])} could not be removed", "ip link delete NAME")


def switch(cable: str, on: bool) -> None:
    """Plug the host's cable in, or pull it out."""
    _batch([f"link set {cable} {'up' if on else 'down'}"])


def links() -> set[str]:
    """The names of this machine's network devices."""
    return {str(link["ifname"]) for link in _ask("link", "show")}


def _addresses() -> list[str]:
    return [
        f"{info['local']}/{info['prefixlen']}"
        for link in _ask("address", "show")
        for info in link.get("addr_info", ())
        if "local" in info
    ]


def _routes() -> list[str]:
    return [str(route["dst"]) for route in _ask("-4", "route", "show", "table", "all") if route["dst"] != "default"]


def _ask(*words: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        ["ip", "-j", *words], check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
    )
    if done.returncode:
        raise LabError(f"`ip {' '.join(words)}` failed: {done.stderr.strip()}")
    answer: list[dict[str, Any]] = [entry for entry in json.loads(done.stdout or "[]") if entry]
    return answer


def _batch(lines: Sequence[str], force: bool = False) -> None:
    if not lines:
        return
    command = ["ip", *(["-force"] if force else []), "-batch", "-"]
    done = subprocess.run(
        command, check=False, input="\n".join(lines) + "\n", capture_output=True, text=True, timeout=60
    )
    if done.returncode and not force:
        raise LabError(f"`ip` could not lay the practice network: {done.stderr.strip()}")


def _digest(lab: str) -> str:
    return hashlib.sha256(lab.encode()).hexdigest()[:8]
