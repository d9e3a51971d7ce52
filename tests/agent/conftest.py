"""A real etcd and machines to run agents on."""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.agent.machine import Machine
from tests.coord.etcd_process import DISTRO, EtcdProcess, find_binary

PYTHON38 = next((str(p) for p in sorted(Path("~/.pyenv/versions").expanduser().glob("3.8*/bin/python"))), "")

_runs = itertools.count(1)


@pytest.fixture(scope="session")
def shared_etcd() -> Iterator[EtcdProcess]:
    """One etcd for all tests that do no harm to it; each has its own run."""
    server = EtcdProcess(find_binary(DISTRO)).start()
    yield server
    server.close()


@pytest.fixture
def own_etcd() -> Iterator[EtcdProcess]:
    """An etcd that the test may kill."""
    server = EtcdProcess(find_binary(DISTRO)).start()
    yield server
    server.close()


@pytest.fixture
def machines() -> Iterator[Callable[..., Machine]]:
    """Makes machines and gives them back at the end."""
    made: list[Machine] = []

    def make(url: str, **more: str) -> Machine:
        root = Path(tempfile.mkdtemp(prefix="testbed-agent-"))
        made.append(Machine(root, url, f"run-{os.getpid()}-{next(_runs)}", **more))
        return made[-1]

    yield make
    for machine in made:
        machine.close()
    for machine in made:
        assert not machine.root.exists()


@pytest.fixture
def machine(shared_etcd: EtcdProcess, machines: Callable[..., Machine]) -> Machine:
    """A machine beside an etcd that stays."""
    return machines(shared_etcd.url)
