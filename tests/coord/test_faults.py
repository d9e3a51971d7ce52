"""What the client keeps when etcd is killed, frozen, restarted, compacted, or does not know the user any more."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.coord.gateway import GatewayStore
from testbed.coord.keys import end_of
from testbed.coord.store import Change, Compacted, Denied, Put, Span, StoreError, Unavailable, Watch
from testbed.coord.wire import Client
from testbed.etcd.certificates import Authority
from tests.coord.etcd_process import DEBIAN, DISTRO, EtcdProcess, client_of, post, start_server

PREFIX = "/t/"
SPAN = Span(PREFIX, end_of(PREFIX))


class Reader:
    """Reads a watch on a thread of its own, until it has so many changes or each span's with the value ``last``."""

    def __init__(self, watch: Watch, count: int, last: bytes | None = None, spans: int = 1) -> None:
        self.changes: list[Change] = []
        self.error: StoreError | None = None
        self._some = threading.Condition()
        self._watch, self._count, self._last, self._spans = watch, count, last, spans
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            for batch in self._watch:
                with self._some:
                    self.changes += batch
                    self._some.notify_all()
                self._spans -= batch[-1].value == self._last
                if len(self.changes) >= self._count or not self._spans:
                    return
        except StoreError as error:
            self.error = error

    def await_some(self, count: int) -> None:
        """Return when so many changes have come."""
        with self._some:
            assert self._some.wait_for(lambda: len(self.changes) >= count, 60), self.error

    def join(self) -> list[Change]:
        """Wait for the thread's end; what it has read."""
        self._thread.join(90)
        assert not self._thread.is_alive(), f"only {len(self.changes)} of {self._count} changes came"
        return self.changes


@pytest.fixture(params=[DISTRO, DEBIAN])
def short_tokens(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EtcdProcess]:
    """A server whose tokens live one second."""
    server = start_server(request.param, True, tmp_path, "--auth-token-ttl", "1")
    yield server
    server.close()


def test_killed_in_the_middle_of_writes_and_watches(server):
    """Kill -9 and a restart in the middle of writes: every write is done, and the watch sees each once, in order."""
    store = GatewayStore(client_of(server))
    writer = GatewayStore(client_of(server))
    reader = Reader(store.watch([Span(PREFIX + "a"), Span(PREFIX + "b")]), 10_000, b"end", spans=2)
    failed: list[StoreError] = []

    def write() -> None:
        try:
            for n in range(600):
                writer.commit([Put(PREFIX + "ab"[n % 2], str(n).encode())])
        except StoreError as error:
            failed.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    for so_many in (100, 300):
        reader.await_some(so_many)
        server.kill()
        server.start()
    thread.join(60)
    assert not thread.is_alive()
    assert not failed
    writer.commit([Put(PREFIX + "a", b"end"), Put(PREFIX + "b", b"end")])
    reader.join()
    store.close()
    writer.close()
    for odd in (0, 1):
        mine = [c for c in reader.changes if c.key == PREFIX + "ab"[odd]]
        numbers = list(dict.fromkeys(c.value for c in mine))  # a write whose answer was lost is done again
        assert numbers == [str(n).encode() for n in range(odd, 600, 2)] + [b"end"]
        assert [c.revision for c in mine] == sorted({c.revision for c in mine})


def test_history_of_the_outage_comes_after_it(server):
    """What was written while our watch was cut off comes when it is back."""
    store = GatewayStore(client_of(server))
    watch = store.watch([SPAN])
    server.kill()
    server.start()
    writer = GatewayStore(client_of(server))
    writer.commit([Put(PREFIX + "a", b"1"), Put(PREFIX + "b", b"2")])
    server.stop()
    server.start()
    writer.commit([Put(PREFIX + "c", b"3")])
    reader = Reader(watch, 3)
    assert [c.value for c in reader.join()] == [b"1", b"2", b"3"]
    store.close()
    writer.close()


def test_frozen_server(server):
    """A server that says nothing is noticed by a call, whose watch then goes on when it wakes; nothing is lost."""
    client = client_of(server, answer=0.5, patience=60)
    store = GatewayStore(client)
    reader = Reader(store.watch([SPAN]), 2)
    store.commit([Put(PREFIX + "a", b"1")])
    reader.await_some(1)
    server.freeze()
    answers: list[object] = []
    thread = threading.Thread(target=lambda: answers.append(store.commit([Put(PREFIX + "b", b"2")])))
    thread.start()
    thread.join(2)  # long enough for the call to fail and to be tried again
    assert thread.is_alive()
    server.thaw()
    thread.join(60)
    assert len(answers) == 1
    assert [c.value for c in reader.join()][:2] == [b"1", b"2"]
    store.close()


def test_frozen_for_longer_than_patience(server):
    """When patience is used up, calls and watches say which server did not answer."""
    store = GatewayStore(client_of(server, answer=1, patience=2))
    reader = Reader(store.watch([SPAN]), 1)
    server.freeze()
    with pytest.raises(Unavailable, match=server.url):
        store.range(PREFIX)
    reader.join()
    assert isinstance(reader.error, Unavailable)
    server.thaw()
    assert store.range(PREFIX).entries == ()  # and the store is good again afterwards
    store.close()


def test_closing_ends_a_call_that_waits_for_a_dead_server(server):
    """Whoever waits for a server to come back is let go by `close`."""
    store = GatewayStore(client_of(server, patience=600))
    store.range(PREFIX)
    reader = Reader(store.watch([SPAN]), 1)
    server.kill()
    errors: list[StoreError] = []

    def call() -> None:
        try:
            store.range(PREFIX)
        except StoreError as error:
            errors.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    store.close()
    thread.join(30)
    assert [str(e) for e in errors] == ["the connection to etcd is closed"]
    assert reader.join() == []
    assert reader.error is None


def test_closing_a_watch_of_a_dead_server(server):
    """A watch that tries to come back ends when it is closed, and the store lives on."""
    store = GatewayStore(client_of(server, patience=600))
    watch = store.watch([SPAN])
    reader = Reader(watch, 1)
    server.kill()
    watch.close()
    assert reader.join() == []
    server.start()
    store.range(PREFIX)
    store.close()


def test_expired_token_logs_in_again(short_tokens):
    """A token that ran out costs neither a call nor a new watch; a refused one costs its user an error."""
    store = GatewayStore(client_of(short_tokens))
    reader = Reader(store.watch([SPAN]), 2)
    for n in range(2):
        threading.Event().wait(2.2)  # the token's time must pass; etcd looks at tokens every second
        store.commit([Put(f"{PREFIX}{n}", b"")])
        watch = store.watch([Span(PREFIX + "x")])
        watch.close()
    assert len(reader.join()) == 2
    store.close()


def test_expired_token_of_a_new_watch(short_tokens):
    """A watch that is the first thing asked for with a dead token is logged in again and sees what comes."""
    store = GatewayStore(client_of(short_tokens))
    revision = store.range(PREFIX).revision
    writer = GatewayStore(client_of(short_tokens, "root"))
    threading.Event().wait(2.2)
    watch = store.watch([Span(PREFIX, end_of(PREFIX), revision + 1), Span(PREFIX + "b")])
    writer.commit([Put(PREFIX + "a", b"1")])
    assert [c.value for c in Reader(watch, 1).join()] == [b"1"]
    store.close()
    writer.close()


def test_restart_with_an_expired_token(short_tokens):
    """The watch comes back over a restart although its token died meanwhile."""
    store = GatewayStore(client_of(short_tokens))
    reader = Reader(store.watch([SPAN]), 2)
    store.commit([Put(PREFIX + "a", b"1")])
    reader.await_some(1)
    short_tokens.kill()
    threading.Event().wait(2.2)
    short_tokens.start()
    store.commit([Put(PREFIX + "b", b"2")])
    assert [c.value for c in reader.join()] == [b"1", b"2"]
    store.close()


def test_outside_of_the_own_prefix(short_tokens):
    """Reading, writing and watching outside of the own prefix is denied, not waited for."""
    store = GatewayStore(client_of(short_tokens))
    for forbidden in (
        lambda: store.range("/other/"),
        lambda: store.commit([Put("/other/a", b"")]),
        lambda: store.watch([SPAN, Span("/other/")]),
    ):
        with pytest.raises(Denied):
            forbidden()
    store.close()


def test_wrong_password_is_denied(short_tokens):
    """A wrong password is told at once."""
    store = GatewayStore(client_of(short_tokens, password="wrong"))
    with pytest.raises(Denied, match="authentication failed"):
        store.range(PREFIX)
    store.close()


def test_deleted_user_is_denied(short_tokens):
    """A stray client of a run that is over can neither read nor watch: its user is gone."""
    store = GatewayStore(client_of(short_tokens))
    store.range(PREFIX)
    ca = short_tokens.tls.authority
    token = post(short_tokens, "/v3/auth/authenticate", {"name": "root", "password": "root-secret"}, ca)["token"]
    post(short_tokens, "/v3/auth/user/delete", {"name": "runner"}, ca, str(token))
    with pytest.raises(Denied):
        store.range(PREFIX)
    with pytest.raises(Denied):
        store.watch([SPAN])
    store.close()


def test_unknown_authority_is_told_at_once(short_tokens):
    """A server that shows a foreign certificate gets no password, and nobody waits for that to change."""
    store = GatewayStore(client_of(short_tokens, ca=Authority("other").certificate, patience=3600))
    with pytest.raises(Unavailable, match="certificate verify failed"):
        store.range(PREFIX)
    store.close()


def test_plain_client_of_a_tls_server(short_tokens):
    """The wrong scheme in an endpoint is guessed from how the server behaves."""
    store = GatewayStore(Client([short_tokens.url.replace("https", "http")], patience=0.2))
    with pytest.raises(Unavailable, match="does it want https"):
        store.range(PREFIX)
    store.close()


def test_tls_client_of_a_plain_server(tmp_path):
    """TLS spoken to a plain server is guessed too."""
    server = start_server(DISTRO, False, tmp_path)
    try:
        store = GatewayStore(Client([server.url.replace("http", "https")], patience=0.2))
        with pytest.raises(Unavailable, match="does it want http"):
            store.range(PREFIX)
        store.close()
    finally:
        server.close()


def test_compacted_while_away(server):
    """A watch whose next revisions were compacted while it was away says so instead of skipping them."""
    store = GatewayStore(client_of(server))
    watch = store.watch([SPAN])
    with_root = client_of(server, "root" if server.tls else "")
    writer = GatewayStore(client_of(server))
    server.kill()
    server.start()
    for n in range(5):
        last = writer.commit([Put(PREFIX + "a", str(n).encode())]).revision
    with_root.call("/v3/kv/compaction", {"revision": str(last), "physical": True})
    reader = Reader(watch, 5)
    assert reader.join() == []
    assert isinstance(reader.error, Compacted)
    assert reader.error.revision == last
    for store_or_client in (store, writer, with_root):
        store_or_client.close()


def test_hundreds_of_spans_are_accepted_at_once(server):
    """A watch of hundreds of spans is accepted whole at the first attempt, also while others write."""
    store = GatewayStore(client_of(server, patience=0, answer=30))
    writer = GatewayStore(client_of(server))
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            writer.commit([Put(PREFIX + "x", b"")])

    thread = threading.Thread(target=write)
    thread.start()
    try:
        revision = store.range(PREFIX).revision
        for _ in range(10):
            watch = store.watch([Span(f"{PREFIX}{n}", "", revision) for n in range(400)])
            watch.close()
    finally:
        done.set()
        thread.join()
        store.close()
        writer.close()


def test_fail_over(server):
    """With several endpoints a dead one is left for a living one, by calls and watches."""
    rest = {"user": "runner", "password": "runner-secret", "ca": server.tls.authority} if server.tls else {}
    dead = server.url.rpartition(":")[0] + ":1"
    store = GatewayStore(Client([dead, server.url], **rest))
    watch = store.watch([SPAN])
    store.commit([Put(PREFIX + "a", b"1")])
    assert [c.value for c in Reader(watch, 1).join()] == [b"1"]
    store.close()


def test_nobody_there():
    """Where nobody listens, the error names every endpoint and the last reason."""
    store = GatewayStore(Client(["http://127.0.0.1:1", "http://[::1]:1"], patience=0.2))
    with pytest.raises(Unavailable, match=r"http://127.0.0.1:1, http://\[::1\]:1 .*(refused|Cannot assign)"):
        store.range(PREFIX)
    store.close()
