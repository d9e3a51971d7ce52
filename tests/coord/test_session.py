"""A session says that its owner lives, and notices when it cannot."""

from __future__ import annotations

import queue

import pytest

from testbed.coord.memory import MemoryStore
from testbed.coord.session import Session
from testbed.coord.store import Lease, LeaseExpired, Put, Span, StoreError, Unavailable
from tests.coord.etcd_process import DISTRO, client_of, start_server


class Clock:
    """A clock that is turned by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Tell the time in seconds."""
        return self.now


@pytest.fixture
def clock():
    """Time stands still until it is turned."""
    return Clock()


@pytest.fixture
def store(clock):
    """A memory store by that clock."""
    store = MemoryStore(clock, patience=0.05)
    yield store
    store.close()


def fail(error: StoreError) -> None:
    """Must not be called."""
    raise AssertionError(error)


def turn(clock: Clock, store: MemoryStore, seconds: float) -> None:
    """Turn the clock."""
    clock.now += seconds
    store.tick()


def test_keys_stay_while_the_session_lives(backend):
    """A session of two seconds keeps its key through more than its time to live, and takes it away when closed."""
    store = backend.store()
    session = Session(store, 2, fail)
    key = backend.prefix + "alive"
    store.commit([Put(key, b"", session.lease.id)])
    probe = store.lease(4)  # not refreshed: tells when twice the time to live has passed, by the store's own clock
    store.commit([Put(backend.prefix + "probe", b"", probe.id)])
    watch = store.watch([Span(backend.prefix, backend.prefix + "\uffff")])
    assert [c.key for c in next(iter(watch))] == [backend.prefix + "probe"]
    assert len(store.range(key).entries) == 1
    session.close()
    assert store.range(key).entries == ()
    watch.close()


def test_expired_session_is_renewed(store, clock):
    """Where the lease has expired, the owner gets a new one to put its keys on, as often as it takes."""
    leases: queue.Queue[Lease] = queue.Queue()
    session = Session(store, 0.3, fail, leases.put)
    for _ in range(2):
        before = session.lease.id
        turn(clock, store, 10)
        assert leases.get(timeout=30).id == session.lease.id != before
    session.close()


def test_owner_that_could_not_put_its_keys_is_asked_again(store, clock):
    """A renewal that failed because the store went away again is done once more."""
    leases: queue.Queue[Lease] = queue.Queue()
    failures = [Unavailable("away again"), LeaseExpired("too late")]

    def renewed(lease: Lease) -> None:
        if failures:
            raise failures.pop()
        leases.put(lease)

    session = Session(store, 0.3, fail, renewed)
    turn(clock, store, 10)
    assert leases.get(timeout=30).id == session.lease.id
    assert not failures
    session.close()


def test_expired_session_without_renewal_is_lost(store, clock):
    """Where nobody takes a new lease, the loss is told once and the session is over."""
    errors: queue.Queue[StoreError] = queue.Queue()
    session = Session(store, 0.3, errors.put)
    turn(clock, store, 10)
    assert isinstance(errors.get(timeout=30), LeaseExpired)
    session._thread.join(30)
    assert errors.empty()
    session.close()


def test_outage_within_the_time_to_live_is_survived(store):
    """A store that was away for a while finds the session as it was."""
    session = Session(store, 0.3, fail, lambda _: fail(StoreError("renewed")))
    before = session.lease.id
    with store.outage(), pytest.raises(Unavailable):
        store.range("a")
    session.lease.refresh()
    assert session.lease.id == before
    session.close()


def test_outage_longer_than_the_time_to_live(store, clock):
    """After an outage that outlived the lease the session goes on with a new one."""
    leases: queue.Queue[Lease] = queue.Queue()
    session = Session(store, 0.3, fail, leases.put)
    with store.outage():
        clock.now += 100
        with pytest.raises(Unavailable):
            session.lease.refresh()
    assert leases.get(timeout=30).id == session.lease.id
    session.close()


def test_closing_during_an_outage(store):
    """Closing does not wait for a store that is away; the lease ends by itself then."""
    session = Session(store, 0.3, fail)
    with store.outage():
        session.close()
    assert not session._thread.is_alive()


def test_closed_store_loses_the_session(store):
    """A session whose store was closed under it says so."""
    errors: queue.Queue[StoreError] = queue.Queue()
    Session(store, 0.3, errors.put)
    store.close()
    assert "closed" in str(errors.get(timeout=30))


def test_etcd_that_forgot_the_lease(tmp_path):
    """An etcd that was away while the lease ran out: the session goes on with a new lease when it is back."""
    from testbed.coord.gateway import GatewayStore

    server = start_server(DISTRO, False, tmp_path)
    store = GatewayStore(client_of(server, patience=0.3))
    admin = GatewayStore(client_of(server))
    try:
        leases: queue.Queue[Lease] = queue.Queue()

        def renewed(lease: Lease) -> None:
            store.commit([Put("/t/alive", b"again", lease.id)])
            leases.put(lease)

        session = Session(store, 2, fail, renewed)
        store.commit([Put("/t/alive", b"", session.lease.id)])
        first = session.lease.id
        server.kill()
        server.start()
        admin.client.call("/v3/lease/revoke", {"ID": first})
        assert leases.get(timeout=30).id != first
        assert admin.range("/t/alive").entries[0].value == b"again"
        session.close()
        assert admin.range("/t/alive").entries == ()
    finally:
        store.close()
        admin.close()
        server.close()
