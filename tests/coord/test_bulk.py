"""Large values take a short way to etcd where there is one; nobody can tell but by what it costs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from testbed.coord.bulk import LARGE
from testbed.coord.gateway import GatewayStore
from testbed.coord.store import Denied, LeaseExpired, Put, StoreError, Unavailable
from testbed.coord.wire import Client
from tests.coord.etcd_process import EtcdProcess
from tests.coord.forwarder import Forwarder

KEY = "/t/large"
SIZES = (LARGE - 1, LARGE, 16383 + LARGE, 65535, 200_000, 1024 * 1024)

Way = Callable[..., tuple[GatewayStore, Forwarder]]


@pytest.fixture
def way(server: EtcdProcess) -> Iterator[Way]:
    """Makes a store whose way to the server can be cut, and knows what is sent on it."""
    made: list[tuple[GatewayStore, Forwarder]] = []

    def make(refuses: Callable[[bytes], bool] = lambda _: False, **more: object) -> tuple[GatewayStore, Forwarder]:
        forwarder = Forwarder(server.port, refuses)
        url = server.url.replace(str(server.port), str(forwarder.port))
        secret = {"user": "runner", "password": "runner-secret", "ca": server.tls.authority} if server.tls else {}
        store = GatewayStore(Client([url], **{**secret, **more}))  # type: ignore[arg-type]
        made.append((store, forwarder))
        return made[-1]

    yield make
    for store, forwarder in made:
        store.close()
        forwarder.close()


def test_large_values_are_sent_as_they_are(way: Way) -> None:
    """Values of all sizes come back as they were set, at the revision that was told; large ones are not spelled out."""
    store, forwarder = way()
    store.range(KEY)
    for size in SIZES:
        value, before = os.urandom(size), forwarder.upward
        revision = store.commit([Put(KEY, value)]).revision
        sent = forwarder.upward - before
        (entry,) = store.range(KEY).entries
        assert (entry.value, entry.revision) == (value, revision)
        assert (sent < 1.1 * size + 1000) == (size >= LARGE), (size, sent)
    assert forwarder.refused == 0


def test_large_values_on_leases(way: Way) -> None:
    """A large value goes with its lease, and on a lease that is gone it is refused as any other is."""
    store, _ = way()
    lease = store.lease(60)
    store.commit([Put(KEY, bytes(LARGE), lease.id)])
    assert store.range(KEY).entries[0].lease == lease.id
    lease.revoke()
    assert not store.range(KEY).entries
    with pytest.raises(LeaseExpired):
        store.commit([Put(KEY, bytes(LARGE), lease.id)])
    assert store.commit([Put(KEY, bytes(LARGE))]).succeeded


def test_where_there_is_no_short_way(way: Way) -> None:
    """Where only the gateway can be reached large values go through it, and the other way is not tried for ever."""

    def is_direct(first: bytes) -> bool:
        return first.startswith(b"PRI ") or b"\0\x03\x02h2" in first

    store, forwarder = way(is_direct)
    store.range(KEY)
    for number in range(8):
        value = os.urandom(LARGE)
        store.commit([Put(f"{KEY}{number}", value)])
        assert store.range(f"{KEY}{number}").entries[0].value == value
    assert forwarder.refused == 3


def test_large_values_over_cuts_and_restarts(way: Way, server: EtcdProcess) -> None:
    """A connection that is cut, and a server that is started again, cost no large value."""
    store, forwarder = way()
    for number in range(6):
        value = os.urandom(3 * LARGE)
        store.commit([Put(KEY, value)])
        if number % 2:
            forwarder.cut()
            forwarder.restore()
        else:
            server.stop()
            server.start()
        assert store.range(KEY).entries[0].value == value
    store.commit([Put(KEY, value)])  # finds the connection lost
    before = forwarder.upward
    store.commit([Put(KEY, bytes(1 << 20))])
    assert forwarder.upward - before < 1.2 * (1 << 20)


def test_refusals_of_large_values(way: Way, server: EtcdProcess) -> None:
    """What a user may not set stays unset however large it is, and a store that is closed or cut off says so."""
    store, forwarder = way(patience=0.5)
    store.range(KEY)
    if server.tls:
        with pytest.raises(Denied):
            store.commit([Put("/other", bytes(LARGE))])
    forwarder.cut()
    with pytest.raises(Unavailable):
        store.commit([Put(KEY, bytes(LARGE))])
    forwarder.restore()
    assert store.commit([Put(KEY, bytes(LARGE))]).succeeded
    store.close()
    with pytest.raises(StoreError):
        store.commit([Put(KEY, bytes(LARGE))])
