"""Which address of this machine another one reaches."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator

import pytest

from testbed.errors import LabError
from testbed.etcd.addresses import free_port, is_loopback, reachable_address, url


@pytest.fixture
def own_network() -> Iterator[tuple[str, str]]:
    """A network of this machine's own; gives this machine's address in it and a neighbour's."""
    name = f"tbt{os.getpid() % 100000}"
    if os.getuid():
        pytest.skip("only root may add a network device")
    made = subprocess.run(
        ["ip", "link", "add", name, "type", "veth", "peer", "name", f"{name}p"],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"this machine lets nobody add a network device: {made.stderr.strip()}")
    try:
        subprocess.run(["ip", "address", "add", "198.51.100.129/28", "dev", name], check=True)
        for end in (name, f"{name}p"):
            subprocess.run(["ip", "link", "set", end, "up"], check=True)
        yield "198.51.100.129", "198.51.100.130"
    finally:
        subprocess.run(["ip", "link", "delete", name], check=True)


@pytest.mark.parametrize(
    ("target", "expected"), [("127.0.0.1", "127.0.0.1"), ("127.0.0.9", "127.0.0.1"), ("::1", "::1")]
)
def test_loopback_is_reached_from_loopback(target: str, expected: str) -> None:
    """A node on this machine reaches it under loopback."""
    assert reachable_address(target) == expected


def test_a_name_is_resolved() -> None:
    """A target may be a name."""
    assert is_loopback(reachable_address("localhost"))


def test_follows_the_route(own_network: tuple[str, str]) -> None:
    """The address is that of the network through which the target is reached."""
    own, neighbour = own_network
    assert reachable_address(neighbour) == own


@pytest.mark.parametrize("target", ["no-such-host.invalid", "a" * 300, "255.255.255.255"])
def test_a_target_without_a_way_is_told(target: str) -> None:
    """A name that does not resolve and an address that nothing can be sent to are the lab's fault, with advice."""
    with pytest.raises(LabError) as caught:
        reachable_address(target)
    assert target in caught.value.message
    assert "--etcd-advertise" in caught.value.help


def test_a_free_port_is_free_on_all_addresses() -> None:
    """The port found can be bound on every address asked for."""
    addresses = ["127.0.0.1", "127.0.0.2"]
    port = free_port(addresses)
    with contextlib.ExitStack() as held:
        for address in addresses:
            held.enter_context(socket.create_server((address, port)))


def test_urls_are_such_as_parsers_take() -> None:
    """IPv6 addresses are bracketed, names and IPv4 addresses are not."""
    assert url("https", "::1", 1) == "https://[::1]:1"
    assert url("http", "127.0.0.1", 2) == "http://127.0.0.1:2"
    assert is_loopback("127.9.9.9") and is_loopback("::1") and is_loopback("localhost")
    assert not is_loopback("192.0.2.1") and not is_loopback("example.org")
