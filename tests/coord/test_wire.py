"""The client against a server that behaves badly on purpose, and the model of the memory store."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from testbed.coord.faults import judge
from testbed.coord.gateway import GatewayStore
from testbed.coord.http1 import parse_endpoint
from testbed.coord.memory import MemoryStore
from testbed.coord.store import Change, Delete, Put, Span, StoreError, Unavailable, Unchanged
from testbed.coord.wire import Client
from tests.coord.etcd_process import encode

OK = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
Script = Callable[[socket.socket, str, list[dict[str, object]]], None]


class Scripted:
    """A server that does to its n-th connection what the n-th script says; keeps what it was asked."""

    def __init__(self, *scripts: Script) -> None:
        self.asked: list[list[dict[str, object]]] = []
        self._scripts = scripts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        for script in self._scripts:
            connection, _ = self._listener.accept()
            with connection, connection.makefile("rb") as file:
                head = b"".join(iter(file.readline, b"\r\n")).decode()
                found = re.search(r"(?i)content-length: (\d+)", head)
                assert found
                body = [json.loads(line) for line in file.read(int(found[1])).splitlines()]
                self.asked.append(body)
                script(connection, head, body)

    def close(self) -> None:
        """Wait until all scripts are done."""
        self._thread.join(30)
        self._listener.close()
        assert not self._thread.is_alive()


def chunks(*pieces: bytes) -> bytes:
    """The pieces as chunks."""
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces)


def created(watch: int, revision: int) -> bytes:
    """The line that acknowledges a watch."""
    return (
        json.dumps(
            {"result": {"header": {"revision": str(revision)}, "watch_id": str(watch), "created": True}}
        ).encode()
        + b"\n"
    )


def event(watch: int, key: str, revision: int) -> bytes:
    """The line that tells of a put."""
    kv = {"key": encode(key), "value": encode(str(revision)), "mod_revision": str(revision)}
    return (
        json.dumps({"result": {"header": {"revision": "99"}, "watch_id": str(watch), "events": [{"kv": kv}]}}).encode()
        + b"\n"
    )


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[Scripted, GatewayStore]]]:
    """Make a scripted server and a store that speaks to it."""
    made: list[tuple[Scripted, GatewayStore]] = []

    def make(*scripts: Script, patience: float = 30) -> tuple[Scripted, GatewayStore]:
        server = Scripted(*scripts)
        made.append((server, GatewayStore(Client([server.url], patience=patience))))
        return made[-1]

    yield make
    for server, store in made:
        store.close()
        server.close()


def say(*data: bytes) -> Script:
    """Send the data and hang up."""
    return lambda connection, _head, _body: [connection.sendall(d) for d in data] and None


def test_what_came_before_the_last_acknowledgement_is_kept(serve):
    """An event of one span, then a hang-up before the other's acknowledgement: kept, and not asked for again."""
    server, store = serve(
        say(OK, chunks(created(0, 10), event(0, "a", 11))),
        say(OK, chunks(created(0, 12), created(1, 12), event(0, "a", 12), event(1, "b", 13))),
    )
    watch = iter(store.watch([Span("a"), Span("b", "", 5)]))
    assert [next(watch)[0].revision for _ in range(3)] == [11, 12, 13]
    starts = [[b["create_request"].get("start_revision") for b in bodies] for bodies in server.asked]
    assert starts == [[None, "5"], ["12", "5"]]


def test_gap_after_the_acknowledgement_is_asked_for(serve):
    """A watch from now that lost its connection before any event goes on from when it was acknowledged."""
    server, store = serve(say(OK, chunks(created(0, 10))), say(OK, chunks(created(0, 20), event(0, "a", 12))))
    watch = iter(store.watch([Span("a")]))
    assert next(watch)[0].revision == 12
    assert server.asked[1][0]["create_request"]["start_revision"] == "11"


def test_what_was_seen_is_not_given_again(serve):
    """A server that repeats itself after a reconnect doubles nothing."""
    _, store = serve(
        say(OK, chunks(created(0, 10), event(0, "a", 11), event(0, "a", 12))),
        say(OK, chunks(created(0, 20), event(0, "a", 11), event(0, "a", 12), event(0, "a", 13))),
    )
    watch = iter(store.watch([Span("a")]))
    assert [next(watch)[0].revision for _ in range(3)] == [11, 12, 13]


def test_lines_may_come_in_any_pieces(serve):
    """Messages cut anywhere over chunks, and several in a chunk, are read as they were meant."""
    data = created(0, 10) + event(0, "a", 11) + event(0, "é", 12) + event(0, "a", 13)
    _, store = serve(say(OK, *(chunks(data[n : n + 7]) for n in range(0, len(data), 7))))
    watch = iter(store.watch([Span("a")]))
    assert [next(watch)[0].key for _ in range(3)] == ["a", "é", "a"]


@pytest.mark.parametrize(
    "ending",
    [
        chunks(b'{"error":{"grpc_code":14,"http_code":503,"message":"server stopped"}}\n'),
        chunks(b""),
        b"zz\r\n",
        chunks(b"no json\n"),
        b"5\r\nab",
        chunks(b'{"result":{"watch_id":"77","events":[]}}\n'),
        chunks(b'{"result":{"canceled":true,"cancel_reason":"no leader"}}\n'),
        chunks(b'{"result":{"canceled":true,"watch_id":"0"}}\n'),
    ],
    ids=["error", "end", "garbled-chunk", "no-json", "half-a-chunk", "unknown-watch", "no-leader", "no-reason"],
)
def test_every_end_of_a_stream_is_resumed(serve, ending):
    """However a stream ends, the watch goes on with the next revision."""
    server, store = serve(
        say(OK, chunks(created(0, 10), event(0, "a", 11)), ending),
        say(OK, chunks(created(0, 20), event(0, "a", 12))),
    )
    watch = iter(store.watch([Span("a")]))
    assert [next(watch)[0].revision for _ in range(2)] == [11, 12]
    assert server.asked[1][0]["create_request"]["start_revision"] == "12"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\noops",
        b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * 200,
        b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy",
    ],
)
def test_strange_answers_are_an_unavailable_server(serve, answer):
    """What is no answer of etcd ends in an error that names the endpoint, never in a traceback of ours."""
    server, store = serve(say(answer), patience=0)
    with pytest.raises(Unavailable, match=re.escape(server.url)):
        store.range("a")


def test_not_etcd_is_told(serve):
    """A web server that knows no such page is told with its own words."""
    _, store = serve(say(b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nnot found"), patience=0)
    with pytest.raises(StoreError, match="HTTP 404: not found"):
        store.range("a")


def test_body_until_the_end_of_the_connection(serve):
    """An answer without a length ends with its connection."""
    _, store = serve(say(b'HTTP/1.0 200 OK\r\n\r\n{"header":{"revision":"7"}}'))
    assert store.range("a").revision == 7


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://10.0.0.1:2379", "http://10.0.0.1:2379"),
        ("https://etcd.lab:1/", "https://etcd.lab:1"),
        ("lab", "http://lab:2379"),
        ("https://[fe80::1]:99", "https://[fe80::1]:99"),
        ("http://[::1]", "http://[::1]:2379"),
    ],
)
def test_endpoints(url, text):
    """Endpoints with and without scheme and port, IPv6 in brackets."""
    assert str(parse_endpoint(url)) == text


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://",
        "ftp://a:1",
        "http://a:b",
        "http://a:0",
        "http://a:65536",
        "http://[::1:1",
        "http://[::1]x",
        "http://::1:2379",
    ],
)
def test_no_endpoints(url):
    """What is no endpoint is refused with what one looks like."""
    with pytest.raises(ValueError, match="not an etcd endpoint"):
        parse_endpoint(url)


NAMES = ["a", "b", "b/x", "c"]
OPERATION = st.one_of(
    st.builds(Put, st.sampled_from(NAMES), st.binary(max_size=2)),
    st.builds(Delete, st.sampled_from(NAMES)),
    st.just(Delete("b", "c")),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.lists(OPERATION, min_size=1, max_size=3), st.sampled_from([None, *NAMES]), st.booleans())))
def test_memory_store_is_a_dict_whose_watch_replays_it(commits):
    """Random commits leave what a dict would hold, and a watch from the beginning rebuilds it change by change."""
    store = MemoryStore()
    model: dict[str, bytes] = {}
    for operations, guarded, absent in commits:
        revision = next((e.revision for e in store.range(guarded).entries), 0) if guarded else 0
        conditions = [Unchanged(guarded, 0 if absent else revision)] if guarded else []
        before = store.range("a", "z")
        try:
            committed = store.commit(operations, conditions)
        except StoreError:
            assert store.range("a", "z") == before
            continue
        assert committed.succeeded == all(c.revision == revision for c in conditions)
        if not committed.succeeded:
            assert store.range("a", "z") == before
            continue
        for operation in operations:
            if isinstance(operation, Put):
                model[operation.key] = operation.value
            else:
                for key in [k for k in model if Span(operation.key, operation.end).holds(k)]:
                    del model[key]
    assert {e.key: e.value for e in store.range("a", "z").entries} == model
    end = store.commit([Put("end", b"")]).revision
    replayed: dict[str, bytes] = {}
    seen = 1
    for batch in store.watch([Span("a", "z", 2)]):
        assert {c.revision for c in batch} == {seen + 1}
        seen += 1
        for change in batch:
            apply(replayed, change)
        if seen == end:
            break
    assert replayed == {**model, "end": b""}
    store.close()


def apply(state: dict[str, bytes], change: Change) -> None:
    """Do the change to a dict; a deletion must find its key."""
    if change.value is None:
        del state[change.key]
    else:
        state[change.key] = change.value


def test_a_stopping_servers_torn_gateway_is_tried_again() -> None:
    """What a gateway answers when its server stops under it is an outage, not a refusal."""
    torn = b'{"error":"OK: HTTP status code 200; transport: missing content-type field","code":2}'
    with pytest.raises(OSError, match="missing content-type"):
        judge(500, torn)
