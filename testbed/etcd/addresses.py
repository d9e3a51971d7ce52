"""Addresses and ports of this machine: where a server can listen so that a node reaches it."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import socket
from collections.abc import Sequence

from testbed.errors import LabError

LOOPBACK = "127.0.0.1"
ANY = "0.0.0.0"  # noqa: S104  listened on only where an operator advertises an address that is not this machine's

_ANY_PORT = 9  # discard; nothing is sent to it
_TAKEN = frozenset({errno.EADDRINUSE, errno.EACCES})


def reachable_address(target_host: str) -> str:
    """Find the IP address of this machine from which the way to ``target_host`` (name or address) leaves.

    Asks the kernel's routing table by connecting a datagram socket; no packet is sent, except to resolve a name.
    Raises `LabError` where the name does not resolve or no route leads there.
    """
    try:
        found = socket.getaddrinfo(target_host, _ANY_PORT, type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise LabError(
            f"the name {target_host} does not resolve on this machine: {error}",
            help="Correct ansible_host in the inventory, or name the address for etcd with --etcd-advertise.",
        ) from error
    why = "no address"
    for family, kind, protocol, _, address in found:
        with socket.socket(family, kind, protocol) as probe:
            try:
                probe.connect(address)
            except OSError as error:
                why = error.strerror or str(error)
                continue
            return str(probe.getsockname()[0]).partition("%")[0]
    raise LabError(
        f"no route from this machine to {target_host}: {why}",
        help="Check the network and its routes, or name the address for etcd with --etcd-advertise.",
    )


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine's own loopback, as an address or as ``localhost``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_own(host: str) -> bool:
    """Whether ``host`` is an address of this machine, on which a server here can listen."""
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(host).version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((host, 0))
    except (OSError, ValueError):
        return False
    return True


def url(scheme: str, host: str, port: int) -> str:
    """Write the URL of a port; IPv6 addresses get their brackets."""
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def free_port(addresses: Sequence[str]) -> int:
    """Find a TCP port that is free on all of ``addresses`` at this moment (another process may take it the next).

    Raises `LabError` if one of them is no address of this machine.
    """
    for _ in range(50):
        with contextlib.ExitStack() as held:
            port = 0
            try:
                for address in addresses:
                    port = _bind(held, address, port)
            except OSError as error:
                if error.errno in _TAKEN:
                    continue
                raise LabError(
                    f"cannot listen on {address}: {error.strerror or error}",
                    help="Only addresses of this machine can be listened on: see `ip address`, and --etcd-advertise.",
                ) from error
            return port
    raise LabError(
        f"no port is free on {' and '.join(addresses)} at once",
        help="See what holds the ports with `ss -ltn`.",
    )


def _bind(held: contextlib.ExitStack, address: str, port: int) -> int:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    probe = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
    probe.bind((address, port))
    return int(probe.getsockname()[1])
