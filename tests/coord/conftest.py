"""Backends of the contract suite: the memory store, and real etcd servers with and without TLS and users."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from testbed.coord.gateway import GatewayStore
from testbed.coord.memory import MemoryStore
from testbed.coord.scope import Scope
from testbed.coord.store import Store
from tests.coord.etcd_process import DEBIAN, DISTRO, EtcdProcess, client_of, start_server
from tests.coord.member import PEERS, Member

_count = itertools.count()


@dataclass
class Backend:
    """Somewhere to make stores in; ``prefix`` is new for every test, `compact` the administrator's."""

    name: str
    make: Callable[[], Store]
    compact: Callable[[int], None]
    prefix: str = field(default_factory=lambda: f"/t/{next(_count)}/")
    _stores: list[Store] = field(default_factory=list)

    def store(self) -> Store:
        """Make another store on the same data; the fixture closes it."""
        store = self.make()
        self._stores.append(store)
        return store

    def close(self) -> None:
        """Close all stores made here."""
        for store in self._stores:
            store.close()


SERVERS = [f"{DISTRO}-plain", f"{DISTRO}-secure", f"{DEBIAN}-secure"]
BACKENDS = ["memory", *SERVERS]


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, EtcdProcess]]:
    """Servers by backend name, started when first asked for."""

    class Servers(dict[str, EtcdProcess]):
        def __missing__(self, name: str) -> EtcdProcess:
            version, _, kind = name.partition("-")
            self[name] = start_server(version, kind == "secure", tmp_path_factory.mktemp(name))
            return self[name]

    started = Servers()
    yield started
    for server in started.values():
        server.close()


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EtcdProcess]:
    """A server of one's own, that may be hurt."""
    version, _, kind = request.param.partition("-")
    server = start_server(version, kind == "secure", tmp_path)
    yield server
    server.close()


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, servers: dict[str, EtcdProcess]) -> Iterator[Backend]:
    """Every backend in turn."""
    if request.param == "memory":
        memory = MemoryStore()
        backend = Backend("memory", lambda: memory, memory.compact)
    else:
        server = servers[request.param]

        def compact(revision: int) -> None:
            admin = client_of(server, "root" if server.tls else "")
            admin.call("/v3/kv/compaction", {"revision": str(revision), "physical": True})
            admin.close()

        backend = Backend(request.param, lambda: GatewayStore(client_of(server)), compact)
    yield backend
    backend.close()


@pytest.fixture
def members(monkeypatch: pytest.MonkeyPatch, backend: Backend) -> Iterator[list[Member]]:
    """Three nodes; the run's keys lie where the backend's user may write."""
    monkeypatch.setattr("testbed.coord.keys.ROOT", backend.prefix)
    made = [Member(backend.store(), peer.name) for peer in PEERS]
    yield made
    for member in made:
        member.scope.close()


@pytest.fixture
def controller(members: list[Member], backend: Backend) -> Iterator[Scope]:  # noqa: ARG001  in their run
    """A member that is no node."""
    scope = Scope(backend.store(), "r1", "ann@desk", nodes=PEERS)
    yield scope
    scope.close()
