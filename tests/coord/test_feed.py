"""One stream for all followers, and none of them loses or doubles a change by the others' coming and going."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from testbed.coord.feed import Feed
from testbed.coord.gateway import GatewayStore
from testbed.coord.memory import MemoryStore
from testbed.coord.store import Change, Delete, Denied, Put, Span, StoreError, Unavailable
from tests.coord.etcd_process import DISTRO, EtcdProcess, client_of, find_binary


class Log:
    """Keeps what a follower is told."""

    def __init__(self) -> None:
        self.batches: queue.Queue[list[Change]] = queue.Queue()
        self.errors: queue.Queue[StoreError] = queue.Queue()
        self.seen: list[Change] = []

    def changed(self, changes: Sequence[Change]) -> None:
        """Take a batch."""
        self.batches.put(list(changes))

    def await_revision(self, revision: int) -> None:
        """Read until a change of that revision has come."""
        while max((c.revision for c in self.seen), default=0) < revision:
            self.seen += self.batches.get(timeout=30)


@pytest.fixture
def feed(backend):
    """A feed over the backend's store."""
    feed = Feed(backend.store())
    yield feed
    feed.close()


def test_follower_gets_what_is_there_and_what_comes(backend, feed):
    """With `read` the first batch is what the span holds, even nothing, and every later change follows once."""
    store = backend.store()
    key = backend.prefix + "a"
    empty, full = Log(), Log()
    feed.follow(Span(key), empty.changed, empty.errors.put, read=True)
    assert empty.batches.get(timeout=30) == []
    first = store.commit([Put(key, b"1")]).revision
    assert empty.batches.get(timeout=30) == [Change(key, b"1", first)]
    feed.follow(Span(key), full.changed, full.errors.put, read=True)
    assert full.batches.get(timeout=30) == [Change(key, b"1", first)]
    second = store.commit([Delete(key)]).revision
    for log in (empty, full):
        assert log.batches.get(timeout=30) == [Change(key, None, second)]


def test_hundreds_of_followers_come_while_the_keys_change(backend, feed):
    """Followers that come in a burst, while others write, all see the whole of their own keys."""
    store = backend.store()
    logs = [Log() for _ in range(200)]
    names = [f"{backend.prefix}{n % 50:02}" for n in range(200)]
    last: dict[str, int] = {}

    def write() -> None:
        for _ in range(4):
            for name in names[:50]:
                last[name] = store.commit([Put(name, b"")]).revision

    writer = threading.Thread(target=write)
    revision = store.range(backend.prefix).revision
    writer.start()
    for name, log in zip(names, logs, strict=True):
        feed.follow(Span(name, "", revision + 1), log.changed, log.errors.put)
    writer.join()
    for name, log in zip(names, logs, strict=True):
        log.await_revision(last[name])
        assert len(log.seen) == len({c.revision for c in log.seen}) == 4
        assert {c.key for c in log.seen} == {name}


def test_only_one_stream():
    """However many follow, the store has one watch of this process."""
    store = MemoryStore()
    feed = Feed(store)
    logs = [Log() for _ in range(20)]
    for n, log in enumerate(logs):
        feed.follow(Span(f"k{n}"), log.changed, log.errors.put, read=True)
        log.batches.get(timeout=30)
    for n, log in enumerate(logs):
        store.commit([Put(f"k{n}", b"")])
        log.batches.get(timeout=30)
        assert len(store._watches) == 1
    feed.close()
    assert store._watches == []
    store.close()


def test_closed_follower_hears_nothing(backend, feed):
    """A follower that was closed is not called for later changes; its neighbour is."""
    store = backend.store()
    key = backend.prefix + "a"
    one, other = Log(), Log()
    following = feed.follow(Span(key), one.changed, one.errors.put, read=True)
    feed.follow(Span(key), other.changed, other.errors.put, read=True)
    one.batches.get(timeout=30)
    following.close()
    other.await_revision(store.commit([Put(key, b"")]).revision)
    assert one.batches.empty()


def test_follower_that_has_enough(feed, backend):
    """A callback that returns true is not called again."""
    store = backend.store()
    key = backend.prefix + "a"
    calls: list[Sequence[Change]] = []
    other = Log()
    feed.follow(Span(key), lambda c: calls.append(c) or True, other.errors.put, read=True)
    feed.follow(Span(key), other.changed, other.errors.put, read=True)
    assert other.batches.get(timeout=30) == []
    other.await_revision(store.commit([Put(key, b"")]).revision)
    assert calls == [[]]


def test_dead_weight_is_dropped():
    """A span that nobody follows any more is left out of the stream once it carries something."""
    store = MemoryStore()
    feed = Feed(store)
    gone, stays = Log(), Log()
    following = feed.follow(Span("gone"), gone.changed, gone.errors.put, read=True)
    feed.follow(Span("stays"), stays.changed, stays.errors.put, read=True)
    gone.batches.get(timeout=30)
    stays.await_revision(store.commit([Put("stays", b"")]).revision)
    following.close()
    store.commit([Put("gone", b"")])
    stays.await_revision(store.commit([Put("stays", b"")]).revision)  # so that the stream has carried both
    for _ in range(2):  # the second is read when the work that came before the first is done
        probe = Log()
        feed.follow(Span("stays"), probe.changed, probe.errors.put, read=True)
        probe.batches.get(timeout=30)
    assert [g.span.start for g in feed._groups] == ["stays"]
    feed.close()
    assert gone.batches.empty()
    store.close()


def test_compacted_changes_are_told_as_what_they_came_to(backend):
    """Who follows from compacted revisions hears what stands, in order, and goes on; the others notice nothing."""
    store = backend.store()
    p = backend.prefix
    old = store.commit([Put(p + "old/b", b"1")]).revision
    store.commit([Put(p + "old/gone", b"1")])
    first = store.commit([Put(p + "old/b", b"2")]).revision
    second = store.commit([Put(p + "old/a", b"3")]).revision
    backend.compact(store.commit([Delete(p + "old/gone")]).revision)
    feed = Feed(store)
    past, present = Log(), Log()
    feed.follow(Span(p + "new"), present.changed, present.errors.put, read=True)
    feed.follow(Span(p + "old/", p + "old0", old), past.changed, past.errors.put)
    assert past.batches.get(timeout=30) == [Change(p + "old/b", b"2", first), Change(p + "old/a", b"3", second)]
    past.await_revision(store.commit([Put(p + "old/c", b"")]).revision)
    present.await_revision(store.commit([Put(p + "new", b"")]).revision)
    assert (present.errors.empty(), past.errors.empty()) == (True, True)
    feed.close()


def test_a_feed_that_was_away_over_a_compaction_goes_on():
    """A follower whose stream was cut while the past was compacted hears what was set and what is gone since."""
    own_server = EtcdProcess(find_binary(DISTRO)).start()
    store = GatewayStore(client_of(own_server))
    store.commit([Put("/f/stays", b"1"), Put("/f/goes", b"1")])
    feed, log, quiet = Feed(store), Log(), Log()
    feed.follow(Span("/f/", "/f0"), log.changed, log.errors.put, read=True)
    feed.follow(Span("/quiet"), quiet.changed, quiet.errors.put, read=True)
    assert {c.key for c in log.batches.get(timeout=30)} == {"/f/stays", "/f/goes"}
    own_server.kill()
    other = EtcdProcess(own_server.binary, own_server.directory).start()  # on a port that the feed does not know
    beside = GatewayStore(client_of(other))
    beside.commit([Put("/f/stays", b"2"), Delete("/f/goes")])
    last = beside.commit([Put("/f/new", b"3")]).revision
    beside.client.call("/v3/kv/compaction", {"revision": str(last), "physical": True})
    beside.close()
    other.kill()
    own_server.start()
    heard = log.batches.get(timeout=30)
    assert [(c.key, c.value) for c in heard] == [("/f/stays", b"2"), ("/f/new", b"3"), ("/f/goes", None)]
    quiet.await_revision(store.commit([Put("/quiet", b"")]).revision)
    assert (log.errors.empty(), quiet.errors.empty()) == (True, True)
    feed.close()
    store.close()
    own_server.close()


def test_unavailable_reaches_everybody_and_a_new_follower_starts_anew():
    """When the store's patience ends all followers are told, and the feed serves new ones when it is back."""
    store = MemoryStore(patience=0.05)
    feed = Feed(store)
    logs = [Log(), Log()]
    for log in logs:
        feed.follow(Span("a"), log.changed, log.errors.put, read=True)
        log.batches.get(timeout=30)
    with store.outage():
        for log in logs:
            assert isinstance(log.errors.get(timeout=30), Unavailable)
    after = Log()
    feed.follow(Span("a"), after.changed, after.errors.put, read=True)
    after.await_revision(store.commit([Put("a", b"")]).revision)
    feed.close()
    store.close()


def test_denied_span_fails_its_follower(servers):
    """A span that may not be read is told to its follower alone."""
    store = GatewayStore(client_of(servers["3.5.1-secure"]))
    feed = Feed(store)
    good, bad = Log(), Log()
    feed.follow(Span("/t/feed"), good.changed, good.errors.put, read=True)
    feed.follow(Span("/other/"), bad.changed, bad.errors.put, read=True)
    assert isinstance(bad.errors.get(timeout=30), Denied)
    good.await_revision(store.commit([Put("/t/feed", b"")]).revision)
    feed.close()
    store.close()


def test_closing_the_feed_tells_all(feed, backend):
    """No follower waits for ever: closing the feed, or its store, is told."""
    placed, fresh = Log(), Log()
    feed.follow(Span(backend.prefix), placed.changed, placed.errors.put, read=True)
    placed.batches.get(timeout=30)
    feed.follow(Span(backend.prefix), fresh.changed, fresh.errors.put, read=True)
    feed.close()
    assert "closed" in str(placed.errors.get(timeout=30))
    assert "closed" in str(fresh.errors.get(timeout=30))
    with pytest.raises(StoreError, match="closed"):
        feed.follow(Span(backend.prefix), fresh.changed, fresh.errors.put)


NAMES = ["a", "b", "b/x", "b/y", "c"]
SPANS = [Span("a"), Span("b"), Span("b", "c"), Span("a", "b/y"), Span("b/x", "d"), Span("c")]


class Followers(RuleBasedStateMachine):
    """Random followers on overlapping spans come and go between random writes."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.feed = Feed(self.store)
        self.followers: list[tuple[Span, Log, int | None]] = []  # span, what it was told, from revision (None: read)
        self.history: list[Change] = []

    @rule(operations=st.dictionaries(st.sampled_from(NAMES), st.none() | st.binary(max_size=2), min_size=1))
    def write(self, operations: dict[str, bytes | None]) -> None:
        """Put and delete some keys in one commit."""
        before = {e.key for e in self.store.range("a", "z").entries}
        revision = self.store.commit([Delete(k) if v is None else Put(k, v) for k, v in operations.items()]).revision
        for key, value in operations.items():
            if value is not None or key in before:
                self.history.append(Change(key, value, revision))

    @rule(span=st.sampled_from(SPANS), back=st.integers(0, 4))
    def follow(self, span: Span, back: int) -> None:
        """Follow from some revisions ago."""
        log = Log()
        revision = max(2, self.store.range("a").revision + 1 - back)
        self.feed.follow(Span(span.start, span.end, revision), log.changed, log.errors.put)
        self.followers.append((span, log, revision))

    @rule(span=st.sampled_from(SPANS))
    def read(self, span: Span) -> None:
        """Follow with what is there."""
        log = Log()
        self.feed.follow(span, log.changed, log.errors.put, read=True)
        self.followers.append((span, log, None))

    @precondition(lambda self: self.followers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """Look at all that one follower was told, and let it go."""
        index = data.draw(st.integers(0, len(self.followers) - 1))
        self.check(*self.followers.pop(index))

    def check(self, span: Span, log: Log, revision: int | None) -> None:
        """Each change of the span, in order, once; with `read` the same end from whatever start."""
        mark = self.store.commit([Put(span.start, b"mark")]).revision
        self.history.append(Change(span.start, b"mark", mark))
        log.await_revision(mark)
        assert log.errors.empty()
        if revision is not None:
            assert log.seen == [c for c in self.history if span.holds(c.key) and c.revision >= revision]
            return
        state: dict[str, bytes] = {}
        for change in log.seen:
            if change.value is None:
                assert change.key in state
                del state[change.key]
            else:
                state[change.key] = change.value
        assert state == {e.key: e.value for e in self.store.range(span.start, span.end).entries}

    @invariant()
    def one_stream(self) -> None:
        """Never more than one watch."""
        assert len(self.store._watches) <= 1

    def teardown(self) -> None:
        """Every follower that is left has seen all."""
        for follower in self.followers:
            self.check(*follower)
        self.feed.close()
        self.store.close()


TestFollowers = Followers.TestCase
TestFollowers.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
