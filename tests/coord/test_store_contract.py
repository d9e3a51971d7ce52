"""One contract, kept by the memory store and by etcd over its gateway alike."""

from __future__ import annotations

import threading

import pytest

from testbed.coord.keys import end_of
from testbed.coord.store import (
    MAX_VALUE,
    Change,
    Compacted,
    Delete,
    LeaseExpired,
    Put,
    Span,
    Store,
    StoreError,
    TooLarge,
    Unchanged,
    Watch,
)

ALL_BYTES = bytes(range(256))
UTF8 = ["A", "a", "z", "\x7f", "é", "ÿ", "中", "\ud7ff", "\ue000", "\U0001f600", "\U0010ffff"]


def take(watch: Watch, count: int) -> list[Change]:
    """The watch's next changes, at least so many; each batch must be in order."""
    changes: list[Change] = []
    iterator = iter(watch)
    while len(changes) < count:
        changes += next(iterator)
    return changes


def span(prefix: str, revision: int = 0) -> Span:
    """Make the span of a prefix."""
    return Span(prefix, end_of(prefix), revision)


def values(store: Store, prefix: str) -> dict[str, bytes]:
    """Read what is under a prefix."""
    return {e.key[len(prefix) :]: e.value for e in store.range(prefix, end_of(prefix)).entries}


@pytest.mark.parametrize("value", [b"", ALL_BYTES, b"x" * MAX_VALUE], ids=["empty", "all-bytes", "1MiB"])
def test_value_comes_back(backend, value):
    """A value of any bytes up to 1 MiB is read as it was written."""
    store = backend.store()
    key = backend.prefix + "a"
    revision = store.commit([Put(key, value)]).revision
    (entry,) = store.range(key).entries
    assert (entry.key, entry.value, entry.revision, entry.created) == (key, value, revision, revision)


def test_too_large_is_refused(backend):
    """A write that the server would not take is refused before anything is written."""
    store = backend.store()
    key = backend.prefix + "a"
    with pytest.raises(TooLarge, match=str(MAX_VALUE)):
        store.commit([Put(key, b"x" * (MAX_VALUE + 300_000))])
    assert store.range(key).entries == ()


def test_absent_key_has_a_revision_to_watch_from(backend):
    """Reading what is not there tells from where to watch for it."""
    store = backend.store()
    key = backend.prefix + "a"
    snapshot = store.range(key)
    assert snapshot.entries == ()
    store.commit([Put(key, b"1")])
    watch = store.watch([Span(key, "", snapshot.revision + 1)])
    assert [c.value for c in take(watch, 1)] == [b"1"]
    watch.close()


def test_ranges_are_half_open_and_in_byte_order(backend):
    """A range holds its start, not its end, in the order of UTF-8 bytes, whatever the characters."""
    store = backend.store()
    for name in reversed(UTF8):
        store.commit([Put(backend.prefix + name, name.encode())])
    assert list(values(store, backend.prefix)) == UTF8
    some = store.range(backend.prefix + "a", backend.prefix + "中").entries
    assert [e.value.decode() for e in some] == ["a", "z", "\x7f", "é", "ÿ"]


@pytest.mark.parametrize("name", UTF8)
def test_prefix_range_holds_the_prefix_only(backend, name):
    """The end of a prefix leaves out its neighbours and keeps all that begins with it."""
    store = backend.store()
    start = backend.prefix + name
    store.commit([Put(start, b""), Put(start + "x", b""), Put(start + "\U0010ffff", b"")])
    for other in UTF8:
        if other != name:
            store.commit([Put(backend.prefix + other, b"")])
    keys = [e.key for e in store.range(start, end_of(start)).entries]
    assert keys == [start, start + "x", start + "\U0010ffff"]


def test_two_thousand_keys_in_one_read(backend):
    """A range of thousands of keys comes whole."""
    store = backend.store()
    for first in range(0, 2000, 100):
        store.commit([Put(f"{backend.prefix}{n:04}", str(n).encode()) for n in range(first, first + 100)])
    found = values(store, backend.prefix)
    assert found == {f"{n:04}": str(n).encode() for n in range(2000)}


def test_commit_is_one_revision(backend):
    """What one commit does, it does at one revision."""
    store = backend.store()
    p = backend.prefix
    store.commit([Put(p + "old", b"")])
    watch = store.watch([span(p)])
    revision = store.commit([Put(p + "a", b"1"), Put(p + "b", b"2"), Delete(p + "old")]).revision
    assert sorted(take(watch, 3), key=lambda c: c.key) == [
        Change(p + "a", b"1", revision),
        Change(p + "b", b"2", revision),
        Change(p + "old", None, revision),
    ]
    watch.close()


def test_condition_that_fails_writes_nothing_and_tells_what_stands(backend):
    """The second writer of a key that must be new changes nothing and learns the first one's value."""
    store = backend.store()
    key = backend.prefix + "flag"
    first = store.commit([Put(key, b"first")], [Unchanged(key)])
    second = store.commit([Put(key, b"second")], [Unchanged(key)])
    assert first.succeeded
    assert not second.succeeded
    assert [(e.key, e.value, e.revision) for e in second.found] == [(key, b"first", first.revision)]
    assert store.commit([Put(key, b"third")], [Unchanged(key, first.revision)]).succeeded
    assert values(store, backend.prefix) == {"flag": b"third"}


def test_a_commit_counts_what_it_leaves(backend):
    """A commit tells how many keys a span holds after it, its own among them; one whose conditions fail tells none."""
    store, prefix = backend.store(), backend.prefix
    span = Span(prefix, end_of(prefix))
    assert store.commit([Put(prefix + "a", b"")], [Unchanged(prefix + "a")], span).count == 1
    assert store.commit([Put(prefix + "b", b""), Put(prefix + "c", b"")], counted=span).count == 3
    assert store.commit([Put(prefix + "b", b"again")], counted=span).count == 3
    assert store.commit([Delete(prefix + "a")], counted=span).count == 2
    assert store.commit([Delete(prefix + "b")], counted=Span(prefix + "b")).count == 0
    assert store.commit([Put(prefix + "c", b"")], [Unchanged(prefix + "c")], span).count == 0


def test_created_stays_while_revision_moves(backend):
    """An entry keeps the revision of its creation until it is deleted."""
    store = backend.store()
    key = backend.prefix + "a"
    created = store.commit([Put(key, b"1")]).revision
    changed = store.commit([Put(key, b"2")]).revision
    (entry,) = store.range(key).entries
    assert (entry.created, entry.revision) == (created, changed)
    store.commit([Delete(key)])
    again = store.commit([Put(key, b"3")]).revision
    assert store.range(key).entries[0].created == again


def test_delete_of_nothing_is_no_change(backend):
    """Deleting what is not there is no error and moves no key."""
    store = backend.store()
    store.commit([Put(backend.prefix + "a", b"1")])
    store.commit([Delete(backend.prefix + "x", backend.prefix + "y")])
    store.commit([Delete(backend.prefix + "b")])
    assert values(store, backend.prefix) == {"a": b"1"}


def test_delete_range(backend):
    """A deleted range is gone, its neighbours stay, and a watch sees every key go."""
    store = backend.store()
    p = backend.prefix
    store.commit([Put(p + n, b"") for n in "abcd"])
    watch = store.watch([span(p)])
    store.commit([Delete(p + "b", p + "d")])
    assert [(c.key, c.value) for c in take(watch, 2)] == [(p + "b", None), (p + "c", None)]
    assert list(values(store, p)) == ["a", "d"]
    watch.close()


@pytest.mark.parametrize("kind", ["twice", "put-and-delete", "empty"])
def test_senseless_commits_are_refused(backend, kind):
    """A commit that writes a key twice, or one without a name, is refused whole."""
    store = backend.store()
    key = backend.prefix + "a"
    operations = {
        "twice": [Put(key, b"1"), Put(key, b"2")],
        "put-and-delete": [Put(key, b"1"), Delete(backend.prefix, end_of(backend.prefix))],
        "empty": [Put("", b"1")],
    }[kind]
    with pytest.raises(StoreError):
        store.commit(operations)
    assert values(store, backend.prefix) == {}


def test_watch_sees_only_its_spans_from_their_revisions(backend):
    """Several spans on one watch: each from its own revision on, nothing beside them, each change once."""
    store = backend.store()
    p = backend.prefix
    store.commit([Put(p + "a", b"too early")])
    second = store.commit([Put(p + "a", b"1")]).revision
    store.commit([Put(p + "b/x", b"too early")])
    third = store.commit([Put(p + "b/y", b"2")]).revision
    watch = store.watch([Span(p + "a", "", second), span(p + "b/", third), Span(p + "c")])
    store.commit([Put(p + "other", b"")])
    store.commit([Put(p + "c", b"3")])
    store.commit([Put(p + "a", b"4")])
    seen = take(watch, 4)
    assert {(c.key[len(p) :], c.value) for c in seen} == {("a", b"1"), ("b/y", b"2"), ("c", b"3"), ("a", b"4")}
    assert [c.value for c in seen if c.key == p + "a"] == [b"1", b"4"]
    watch.close()


def test_watch_is_accepted_when_it_returns(backend):
    """What is written after `watch` returned is seen, however soon; a thousand changes come in order."""
    store = backend.store()
    other = backend.store()
    watch = store.watch([span(backend.prefix)])
    for n in range(1000):
        other.commit([Put(backend.prefix + str(n % 7), str(n).encode())])
    changes = take(watch, 1000)
    assert [c.value for c in changes] == [str(n).encode() for n in range(1000)]
    assert [c.revision for c in changes] == sorted({c.revision for c in changes})
    watch.close()


def test_closing_a_watch_ends_who_iterates(backend):
    """A watch closed from another thread comes to its end, not to an error."""
    store = backend.store()
    watch = store.watch([span(backend.prefix)])
    ended: list[object] = []

    def read() -> None:
        ended.append(list(watch))

    thread = threading.Thread(target=read)
    thread.start()
    watch.close()
    thread.join(30)
    assert ended == [[]]


def test_closing_the_store_ends_watches_and_calls(backend):
    """After `close` watches end and calls say so."""
    store = backend.make()
    watch = store.watch([span(backend.prefix)])
    thread = threading.Thread(target=lambda: list(watch))
    thread.start()
    store.close()
    thread.join(30)
    assert not thread.is_alive()
    with pytest.raises(StoreError, match="closed"):
        store.range(backend.prefix)


def test_watch_from_before_a_compaction_says_so(backend):
    """Who asks for what is not kept any more learns from where on he can have it."""
    store = backend.store()
    key = backend.prefix + "a"
    first = store.commit([Put(key, b"1")]).revision
    last = store.commit([Put(key, b"2")]).revision
    backend.compact(last)

    def follow(revision: int) -> list[Change]:
        watch = store.watch([Span(key, "", revision)])
        try:
            return take(watch, 1)
        finally:
            watch.close()

    with pytest.raises(Compacted) as caught:
        follow(first)
    assert caught.value.revision == last
    assert follow(last) == [Change(key, b"2", last)]


def test_live_watch_does_not_mind_compaction(backend):
    """A watch that is up to date goes on over a compaction."""
    store = backend.store()
    key = backend.prefix + "a"
    watch = store.watch([Span(key)])
    store.commit([Put(key, b"1")])
    backend.compact(store.commit([Put(key, b"2")]).revision)
    store.commit([Put(key, b"3")])
    assert [c.value for c in take(watch, 3)] == [b"1", b"2", b"3"]
    watch.close()


def test_lease_takes_its_keys_with_it(backend):
    """A key on a lease goes when the lease is not refreshed, and a watch sees it go."""
    store = backend.store()
    key = backend.prefix + "alive"
    lease = store.lease(1)
    assert lease.seconds >= 1
    watch = store.watch([Span(key)])
    store.commit([Put(key, b"1", lease.id)])
    assert store.range(key).entries[0].lease == lease.id
    assert [c.value for c in take(watch, 2)] == [b"1", None]
    with pytest.raises(LeaseExpired):
        lease.refresh()
    watch.close()


def test_revoked_lease(backend):
    """Revoking deletes the keys at once; revoking again is no error; nothing can be put on it any more."""
    store = backend.store()
    p = backend.prefix
    lease = store.lease(60)
    store.commit([Put(p + "a", b"", lease.id), Put(p + "b", b"", lease.id), Put(p + "c", b"")])
    lease.refresh()
    lease.revoke()
    lease.revoke()
    assert list(values(store, p)) == ["c"]
    with pytest.raises(LeaseExpired):
        store.commit([Put(p + "d", b"", lease.id)])


def test_many_threads_share_a_store(backend):
    """Sixteen threads count in one key by conditional commits, and no count is lost."""
    store = backend.store()
    key = backend.prefix + "count"
    store.commit([Put(key, b"0")])
    barrier = threading.Barrier(16)
    failures: list[BaseException] = []

    def count() -> None:
        try:
            barrier.wait()
            done = 0
            while done < 10:
                (entry,) = store.range(key).entries
                put = Put(key, str(int(entry.value) + 1).encode())
                done += store.commit([put], [Unchanged(key, entry.revision)]).succeeded
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=count) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert store.range(key).entries[0].value == b"160"
