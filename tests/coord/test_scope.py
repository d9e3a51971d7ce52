"""The primitives over every store: values, blocking reads, flags."""

from __future__ import annotations

import json
import threading

import pytest

from testbed.coord.feed import Feed
from testbed.coord.memory import MemoryStore
from testbed.coord.scope import MAX_KEY, Aborted, BadKey, Cancel, Cancelled, Flag, Scope, WaitTimeout, read_flag
from testbed.coord.store import MAX_VALUE, Put, StoreError, TooLarge, Unavailable
from tests.coord.background import Background


@pytest.fixture
def memory():
    """A memory store."""
    store = MemoryStore(patience=0.05)
    yield store
    store.close()


@pytest.fixture
def scope(memory):
    """A scope in the memory store."""
    scope = Scope(memory, "r1", "server")
    yield scope
    scope.close()


@pytest.fixture
def scopes(monkeypatch, backend):
    """Two members of one run on every store; the run's keys lie where the backend's user may write."""
    monkeypatch.setattr("testbed.coord.keys.ROOT", backend.prefix)
    pair = [Scope(backend.store(), "r1", by) for by in ("server", "client")]
    yield pair
    for scope in pair:
        scope.close()


def test_set_and_get(scopes):
    """A value set by one is read by the other; what is not set is None; empty is not None."""
    server, client = scopes
    server.set("a", b"\0\xff")
    server.set("sub/é", b"")
    assert client.get("a") == b"\0\xff"
    assert client.get("sub/é") == b""
    assert client.get("sub/") is None
    assert client.keys() == ["a", "sub/é"]
    assert client.keys("sub/") == ["sub/é"]


def test_wait_gives_what_is_there(scopes):
    """A blocking read of a value that is set returns it."""
    server, client = scopes
    server.set("ready", b"yes")
    assert client.wait("ready", 30) == b"yes"


def test_wait_wakes_when_the_value_comes(scopes):
    """Many blocked reads, of one key and of several, each end with its value."""
    server, client = scopes
    waits = [Background(client.wait, f"k{n % 5}", 60) for n in range(20)]
    for n in range(5):
        server.set(f"k{n}", str(n).encode())
    assert [w.join().result for w in waits] == [str(n % 5).encode() for n in range(20)]


def test_wait_ends_on_abort(scopes):
    """The abort flag ends a blocked read and tells who raised it and why; a set value is still given afterwards."""
    server, client = scopes
    server.set("there", b"1")
    wait = Background(client.wait, "never")
    server.raise_flag("abort", "the disk is full", {"node": "server"})
    error = wait.join().error
    assert isinstance(error, Aborted)
    assert (error.flag.by, error.flag.why, error.flag.cause) == ("server", "the disk is full", {"node": "server"})
    assert client.wait("there") == b"1"
    with pytest.raises(Aborted):
        client.wait("never")


def test_wait_times_out(scopes):
    """At its time-out a blocked read names the key and how long it waited."""
    with pytest.raises(WaitTimeout, match=r"the value 'nothing' did not come within 0\.2 s") as caught:
        scopes[0].wait("nothing", 0.2)
    assert caught.value.waited >= 0.2


def test_wait_of_no_time(scope):
    """A time-out of zero ends at once."""
    with pytest.raises(WaitTimeout):
        scope.wait("nothing", 0)


def test_wait_is_cancelled(scopes):
    """Whoever asked for a wait can end it from another thread, before or while it waits."""
    cancel = Cancel()
    wait = Background(scopes[0].wait, "never", None, cancel)
    cancel.fire()
    assert isinstance(wait.join().error, Cancelled)
    with pytest.raises(Cancelled):
        scopes[0].wait("never", None, cancel)


def test_deleted_and_set_again(scope, memory):
    """A key that is deleted before it is set again does not wake the wait with nothing."""
    memory.commit([Put(scope.keys_of.value("other"), b"")])
    wait = Background(scope.wait, "k", 30)
    from testbed.coord.store import Delete

    memory.commit([Delete(scope.keys_of.value("k"))])
    memory.commit([Put(scope.keys_of.value("k"), b"1")])
    assert wait.join().result == b"1"


def test_first_flag_wins(scopes):
    """Of all who raise a flag at once one wins, and all learn the same flag, whose cause is the first."""
    barrier = threading.Barrier(10)

    def raise_it(n: int) -> Flag:
        barrier.wait()
        return scopes[n % 2].raise_flag("abort", f"reason {n}", {"n": n})

    flags = [b.join().result for b in [Background(raise_it, n) for n in range(10)]]
    assert len({json.dumps([f.by, f.why, f.at, dict(f.cause)]) for f in flags}) == 1
    assert scopes[0].flag("abort") == flags[0]
    assert scopes[0].flag("finalise") is None


def test_wait_for_finalise(scopes):
    """Waiting for the end ends with the finalise flag, or with abort; its time-out names it."""
    server, client = scopes
    with pytest.raises(WaitTimeout, match="the flag finalise"):
        client.wait_flag("finalise", 0)
    wait = Background(client.wait_flag, "finalise", 30)
    server.raise_flag("finalise", "all have published")
    assert wait.join().result.why == "all have published"
    wait = Background(client.wait_flag, "abort", 30)
    server.raise_flag("abort", "enough")
    assert wait.join().result.why == "enough"


def test_wait_for_finalise_ends_on_abort(scopes):
    """A node that only waits for the end does not sit through an abort."""
    wait = Background(scopes[0].wait_flag, "finalise")
    scopes[1].raise_flag("abort", "enough")
    assert isinstance(wait.join().error, Aborted)


def test_store_away_for_too_long_ends_the_wait(scope, memory):
    """A wait without a time-out ends with the store's error, and the scope works again afterwards."""
    scope.set("there", b"1")
    with memory.outage():
        wait = Background(scope.wait, "never")
        assert isinstance(wait.join().error, Unavailable)
        assert isinstance(Background(scope.wait_flag, "finalise").join().error, Unavailable)
    assert scope.wait("there", 30) == b"1"


def test_time_out_holds_while_the_store_is_away():
    """A wait ends at its own time-out, however patient the store is."""
    store = MemoryStore(patience=600)
    scope = Scope(store, "r1", "server")
    with store.outage():
        with pytest.raises(WaitTimeout):
            scope.wait("never", 0.05)
        cancel = Cancel()
        wait = Background(scope.wait, "never", None, cancel)
        cancel.fire()
        assert isinstance(wait.join().error, Cancelled)
    scope.close()
    store.close()


@pytest.mark.parametrize("shared", [False, True])
def test_closing_ends_waits(memory, shared):
    """Closing the scope ends its waits, also where its feed goes on for others."""
    feed = Feed(memory)
    scope = Scope(memory, "r1", "server", feed if shared else None)
    scope.set("there", b"")
    scope.wait("there")
    wait = Background(scope.wait, "never")
    scope.close()
    assert isinstance(wait.join().error, StoreError)
    feed.close()


def test_scopes_share_a_feed(memory):
    """A process with several scopes still has one stream."""
    feed = Feed(memory)
    scopes = [Scope(memory, "r1", by, feed) for by in "ab"]
    waits = [Background(s.wait, "k", 30) for s in scopes]
    scopes[0].set("k", b"1")
    assert [w.join().result for w in waits] == [b"1", b"1"]
    assert len(memory._watches) <= 1
    for scope in scopes:
        scope.close()
    feed.close()


@pytest.mark.parametrize(
    ("key", "complaint"),
    [
        ("", "empty"),
        ("a\0b", "NUL"),
        ("x" * (MAX_KEY + 1), "1025 bytes; the limit is 1024"),
        ("é" * 600, "1200 bytes"),
        ("bad\udcff", "UTF-8"),
    ],
)
def test_bad_keys(scope, key, complaint):
    """A key that cannot be is refused by all three, with the reason."""
    for call in (lambda: scope.set(key, b""), lambda: scope.get(key), lambda: scope.wait(key, 0)):
        with pytest.raises(BadKey, match=complaint):
            call()


def test_value_limit(scopes):
    """A value of 1 MiB goes through, one byte more is refused with the limit named."""
    scopes[0].set("x" * MAX_KEY, b"x" * MAX_VALUE)
    assert scopes[1].get("x" * MAX_KEY) == b"x" * MAX_VALUE
    with pytest.raises(TooLarge, match=r"1048577 bytes; the limit is 1048576 bytes \(1 MiB\)"):
        scopes[0].set("a", b"x" * (MAX_VALUE + 1))


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\xff", b"[]", b"{}", b"null", b'{"by":1}', b'{"by":"a","why":"b","at":"x"}', b"[" * 100_000,
        b'{"by":"a","why":"b","at":1' + b"0" * 400 + b"}",
    ],
)  # fmt: skip
def test_garbage_raises_a_flag_all_the_same(raw):
    """Whatever a node wrote into a flag, it stands, with what could be read."""
    flag = read_flag("abort", raw)
    assert (flag.name, flag.by) == ("abort", "unknown")


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.barrier(""),
        lambda s: s.next("a\0b"),
        lambda s: s.lock("x" * 1025).__enter__(),
        lambda s: s.publish("\udcff"),
        lambda s: s.subscribe(""),
        lambda s: s.discover(""),
    ],
)
def test_names_that_cannot_be(scope, call):
    """A name that cannot be one is refused, as a key is."""
    with pytest.raises(BadKey):
        call(scope)


def test_threads_are_given_back(scopes):
    """Waits that have ended leave no thread behind, but for the one stream that the next wait uses again."""
    scope, _ = scopes
    with pytest.raises(WaitTimeout):
        scope.wait("never", 0)
    before = threading.active_count()  # the stream's own thread may or may not have begun by now
    for _ in range(10):
        with pytest.raises(WaitTimeout):
            scope.wait("never", 0)
    assert threading.active_count() <= before + 1
