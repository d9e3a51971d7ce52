"""What was written when its answer got lost: done once, and never again over what others have written since."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import closing

import pytest

from testbed.coord.gateway import GatewayStore
from testbed.coord.keys import RunKeys, end_of
from testbed.coord.scope import Scope
from testbed.coord.sender import Once, Sender
from testbed.coord.store import Change, Put, Span, StoreError
from testbed.coord.wire import Client
from tests.coord.background import Background
from tests.coord.etcd_process import DISTRO, EtcdProcess, client_of, start_server
from tests.coord.lossy import Relay

KEYS = RunKeys("r1")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdProcess]:
    """A server for all tests here."""
    with closing(start_server(DISTRO, False, tmp_path_factory.mktemp("etcd"))) as server:
        yield server


@pytest.fixture
def relay(server: EtcdProcess) -> Iterator[Relay]:
    """What loses answers of that server."""
    with closing(Relay(server.port)) as relay:
        yield relay


@pytest.fixture
def direct(server: EtcdProcess) -> Iterator[GatewayStore]:
    """A store that loses nothing; the run's keys are gone when the test is over."""
    store = GatewayStore(client_of(server))
    yield store
    store.client.call("/v3/kv/deleterange", {"key": _as_json(KEYS.span[0]), "range_end": _as_json(KEYS.span[1])})
    store.close()


@pytest.fixture
def store(relay: Relay) -> Iterator[GatewayStore]:
    """A store whose answers get lost."""
    with closing(GatewayStore(Client([relay.url]))) as store:
        yield store


def _as_json(key: str) -> str:
    return base64.b64encode(key.encode()).decode()


def history(store: GatewayStore, since: int, prefix: str, last: str) -> list[Change]:
    """All that was done below a prefix after that revision, up to the change of the key ``last``."""
    changes: list[Change] = []
    watch = store.watch([Span(prefix, end_of(prefix), since + 1)])
    for batch in watch:
        changes += batch
        if batch[-1].key == last:
            watch.close()
    return changes[:-1]


def test_events_are_written_once(relay: Relay, store: GatewayStore, direct: GatewayStore) -> None:
    """An event whose answer was lost stands in the store's history once, and those after it follow in order."""
    errors: list[StoreError] = []
    sender = Sender(store, errors.append)
    began = direct.range("x").revision
    relay.lose(_as_json(KEYS.event("a", 1)).encode())
    sender.start()
    for number in range(3):
        sender.send(Once(KEYS.event("a", number), b"%d" % number))
    assert sender.close()
    assert relay.lost.is_set()
    assert errors == []
    direct.commit([Put(KEYS.events + "z", b"")])
    seen = history(direct, began, KEYS.events, KEYS.events + "z")
    assert [(c.key, c.value) for c in seen] == [(KEYS.event("a", n), b"%d" % n) for n in range(3)]


def test_somebody_else_writes_ones_events(store: GatewayStore, direct: GatewayStore) -> None:
    """An event's place that was taken by another value is told, and nothing is written over it."""
    errors: list[StoreError] = []
    sender = Sender(store, errors.append)
    direct.commit([Put(KEYS.event("a", 0), b"theirs")])
    sender.start()
    sender.send(Once(KEYS.event("a", 0), b"ours"))
    assert sender.close()
    (error,) = errors
    assert str(error) == f"somebody else writes what is written here alone: {KEYS.event('a', 0)}"
    assert direct.range(KEYS.event("a", 0)).entries[0].value == b"theirs"


def scopes_of(relay: Relay, store: GatewayStore, direct: GatewayStore, marker: str) -> tuple[Scope, Scope]:
    """A member whose next answer to what holds that marker is lost, and one that loses nothing."""
    relay.lose(marker.encode())
    return Scope(store, KEYS.run, "a"), Scope(direct, KEYS.run, "b")


def test_a_number_is_drawn_once(relay: Relay, store: GatewayStore, direct: GatewayStore) -> None:
    """A number whose answer was lost is still the caller's, and no other is missing for it."""
    ours, theirs = scopes_of(relay, store, direct, "/v3/kv/txn")
    assert [theirs.next("s"), ours.next("s"), theirs.next("s"), ours.next("s")] == [0, 1, 2, 3]
    assert relay.lost.is_set()


def test_a_message_is_published_once(relay: Relay, store: GatewayStore, direct: GatewayStore) -> None:
    """A message whose answer was lost stands in the stream once."""
    ours, theirs = scopes_of(relay, store, direct, "/v3/kv/txn")
    ours.publish("t", b"one")
    theirs.publish("t", b"two")
    assert relay.lost.is_set()
    assert list(theirs.subscribe("t", 2, 10)) == [b"one", b"two"]
    assert len(direct.range(KEYS.topic("t"), end_of(KEYS.topic("t"))).entries) == 2
    theirs.close()


def test_a_member_arrives_once(relay: Relay, store: GatewayStore, direct: GatewayStore) -> None:
    """An arrival whose answer was lost is one arrival: the members stay in step, generation by generation."""
    ours, theirs = scopes_of(relay, store, direct, "/v3/kv/txn")
    for generation in range(3):
        other = Background(lambda: theirs.barrier("m", ["a", "b"], timeout=60))
        assert ours.barrier("m", ["a", "b"], timeout=60) == generation
        assert other.outcome() == generation
        assert relay.lost.is_set()
        relay.lose(b"/v3/kv/txn")
    ours.close()
    theirs.close()


def test_a_place_in_the_queue_is_taken_once(relay: Relay, store: GatewayStore, direct: GatewayStore) -> None:
    """A lock that was asked for by a lost answer is held by one, and free when that gives it back, answer or not."""
    lease, other = direct.lease(60), direct.lease(60)
    ours = Scope(store, KEYS.run, "a", lease=lambda: lease.id)
    theirs = Scope(direct, KEYS.run, "b", lease=lambda: other.id)
    relay.lose(b"/v3/kv/txn")
    with ours.lock("l", 60) as first:
        assert relay.lost.is_set()
        assert len(direct.range(KEYS.lock("l"), end_of(KEYS.lock("l"))).entries) == 1
        relay.lose(b"/v3/kv/txn")
    assert relay.lost.is_set()
    with theirs.lock("l", 60) as second:
        assert second.token > first.token


def test_a_flag_is_raised_once(relay: Relay, store: GatewayStore, direct: GatewayStore) -> None:
    """Who raised a flag by a lost answer is told that it was the first."""
    ours, theirs = scopes_of(relay, store, direct, "/v3/kv/txn")
    assert ours.raise_flag("finalise", "done").by == "a"
    assert relay.lost.is_set()
    assert theirs.raise_flag("finalise", "late").by == "a"
