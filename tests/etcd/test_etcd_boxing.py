"""What a run's user may do to what is not the run's: nothing, through the gateway and through gRPC alike."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import etcd3
import grpc
import pytest
from etcd3 import etcdrpc
from etcd_witness import ask, encode, log_in, put

from testbed.agent.plan import Access
from testbed.coord import gateway
from testbed.coord.store import Put, Unchanged
from testbed.coord.wire import Client
from testbed.errors import LabError
from testbed.etcd import advisories
from testbed.etcd.access import (
    MayNotMakeUsers,
    admit,
    borrow_scope,
    close_scope,
    connect,
    expel,
    open_scope,
    return_scope,
)
from testbed.etcd.server import EmbeddedServer

OWN = "/testbed/runs/run-1/kv/own"
FOREIGN = ("/testbed/runs/run-2/kv/secret", "/testbed/lab/machines/m1")
NESTED_LEAK = "CVE-2026-33343"


@pytest.fixture
def root(tls_server: EmbeddedServer) -> Iterator[Client]:
    """A client that may do everything."""
    with contextlib.closing(connect(tls_server.root)) as client:
        yield client


@pytest.fixture
def intruder(tls_server: EmbeddedServer, root: Client) -> Access:
    """The access of a node of run-1, on a server that holds another run and the lab's keys."""
    open_scope(root, "run-1")
    open_scope(root, "run-2")
    for key in FOREIGN:
        root.call("/v3/kv/put", {"key": encode(key), "value": encode("theirs")})
    credentials = admit(root, "run-1", ["n0"])["n0"]
    return tls_server.access_for("127.0.0.1", credentials.user, credentials.password)


def leaks(server: EmbeddedServer, advisory: str) -> bool:
    """Whether that server's version is known for that leak."""
    return advisory in [a.id for a in advisories.for_shared_use(server.binary.version)]


def value_of(root: Client, key: str) -> str:
    """The value of a key, as its owner sees it."""
    return str(root.call("/v3/kv/range", {"key": encode(key)})["kvs"][0]["value"])


GATEWAY: dict[str, Callable[[str], tuple[str, dict[str, Any]]]] = {
    "get": lambda key: ("/v3/kv/range", {"key": encode(key)}),
    "get all": lambda key: ("/v3/kv/range", {"key": encode(key[0]), "range_end": encode("\0")}),
    "put": lambda key: ("/v3/kv/put", {"key": encode(key), "value": encode("mine")}),
    "delete": lambda key: ("/v3/kv/deleterange", {"key": encode(key)}),
    "compare": lambda key: ("/v3/kv/txn", {"compare": [{"key": encode(key), "target": "VERSION", "version": "1"}]}),
    "get in a transaction": lambda key: ("/v3/kv/txn", {"success": [{"request_range": {"key": encode(key)}}]}),
    "put in a transaction": lambda key: (
        "/v3/kv/txn",
        {"success": [{"request_put": {"key": encode(key), "value": encode("mine")}}]},
    ),
    "delete in a transaction": lambda key: (
        "/v3/kv/txn",
        {"failure": [{"request_delete_range": {"key": encode(key)}}]},
    ),
}


@pytest.mark.parametrize("attempt", GATEWAY)
@pytest.mark.parametrize("key", FOREIGN)
def test_the_gateway_refuses(root: Client, intruder: Access, attempt: str, key: str) -> None:
    """Run A's node neither reads nor changes run B's keys or the lab's, whatever it tries; its own it may."""
    token = log_in(intruder)
    assert put(intruder, OWN, token).status == 200
    answer = ask(intruder, *GATEWAY[attempt](key), token)
    assert answer.status == 403, answer
    assert value_of(root, key) == encode("theirs")


@pytest.mark.parametrize("key", FOREIGN)
def test_the_gateway_refuses_nested_transactions_where_the_version_does(
    tls_server: EmbeddedServer, root: Client, intruder: Access, key: str
) -> None:
    """A transaction in a transaction is refused, but by versions that are known to leak: those are warned of."""
    token = log_in(intruder)
    inner = {"success": [{"request_range": {"key": encode(key)}}]}
    answer = ask(intruder, "/v3/kv/txn", {"success": [{"request_txn": inner}]}, token)
    assert (encode("theirs") in json.dumps(answer.body)) is leaks(tls_server, NESTED_LEAK)
    inner = {"success": [{"request_put": {"key": encode(key), "value": encode("mine")}}]}
    ask(intruder, "/v3/kv/txn", {"success": [{"request_txn": inner}]}, token)
    assert (value_of(root, key) == encode("mine")) is leaks(tls_server, NESTED_LEAK)


@pytest.mark.parametrize("key", FOREIGN)
def test_the_gateway_refuses_to_watch(intruder: Access, key: str) -> None:
    """A watch of another's key is ended before it tells anything."""
    with contextlib.closing(connect(intruder)) as client:
        stream = client.stream("/v3/watch", [{"create_request": {"key": encode(key), "start_revision": "1"}}])
        first = next(iter(stream))["result"]
        stream.close()
    assert first["canceled"]
    assert "events" not in first


@contextlib.contextmanager
def grpc_client(server: EmbeddedServer, access: Access, folder: Path) -> Iterator[Any]:
    """The etcd3 package's client with that access."""
    for name, text in (("ca", access.ca), ("certificate", access.certificate), ("key", access.key)):
        (folder / name).write_text(text)
    with etcd3.client(
        host="127.0.0.1", port=server.port, ca_cert=str(folder / "ca"), cert_cert=str(folder / "certificate"),
        cert_key=str(folder / "key"), user=access.user, password=access.password,
    ) as client:  # fmt: skip
        yield client


def grpc_attempts(key: bytes) -> dict[str, Callable[[Any, Any], Any]]:
    """What to try by gRPC: of a key-value stub and the metadata with the token."""
    get = etcdrpc.RequestOp(request_range=etcdrpc.RangeRequest(key=key))
    change = etcdrpc.RequestOp(request_put=etcdrpc.PutRequest(key=key, value=b"mine"))
    return {
        "get": lambda kv, m: kv.Range(etcdrpc.RangeRequest(key=key), metadata=m),
        "get all": lambda kv, m: kv.Range(etcdrpc.RangeRequest(key=b"\0", range_end=b"\0"), metadata=m),
        "put": lambda kv, m: kv.Put(etcdrpc.PutRequest(key=key, value=b"mine"), metadata=m),
        "delete": lambda kv, m: kv.DeleteRange(etcdrpc.DeleteRangeRequest(key=key), metadata=m),
        "get in a transaction": lambda kv, m: kv.Txn(etcdrpc.TxnRequest(success=[get]), metadata=m),
        "put in a transaction": lambda kv, m: kv.Txn(etcdrpc.TxnRequest(success=[change]), metadata=m),
    }


def test_grpc_refuses(tls_server: EmbeddedServer, root: Client, intruder: Access, tmp_path: Path) -> None:
    """By gRPC run A's node gets no further than by the gateway; nested transactions as far as the version leaks."""
    with grpc_client(tls_server, intruder, tmp_path) as client:
        stub, metadata = etcdrpc.KVStub(client.channel), client.metadata
        client.put(OWN, "mine")
        for key in FOREIGN:
            for attempt in grpc_attempts(key.encode()).values():
                with pytest.raises(grpc.RpcError) as caught:
                    attempt(stub, metadata)
                assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
            request = etcdrpc.WatchRequest(create_request=etcdrpc.WatchCreateRequest(key=key.encode()))
            watch = etcdrpc.WatchStub(client.channel).Watch(iter([request]), metadata=metadata)
            assert next(watch).canceled
            watch.cancel()
            get = etcdrpc.RequestOp(request_range=etcdrpc.RangeRequest(key=key.encode()))
            nested = etcdrpc.RequestOp(request_txn=etcdrpc.TxnRequest(success=[get]))
            if leaks(tls_server, NESTED_LEAK):
                assert (
                    b"theirs" in stub.Txn(etcdrpc.TxnRequest(success=[nested]), metadata=metadata).SerializeToString()
                )
            else:
                with pytest.raises(grpc.RpcError):
                    stub.Txn(etcdrpc.TxnRequest(success=[nested]), metadata=metadata)
            assert value_of(root, key) == encode("theirs")


def test_an_expelled_node_writes_no_more(tls_server: EmbeddedServer, root: Client) -> None:
    """A lost node's user goes at once, its token too; its peers' and the run's own stay, and closing takes them all."""
    own = open_scope(root, "run-1")
    users = admit(root, "run-1", ["n0", "n1"])
    accesses = {n: tls_server.access_for("127.0.0.1", u.user, u.password) for n, u in users.items()}
    tokens = {n: log_in(a) for n, a in accesses.items()}
    assert all(put(a, OWN, tokens[n]).status == 200 for n, a in accesses.items())
    expel(root, "run-1", "n0")
    expel(root, "run-1", "n0")
    assert put(accesses["n0"], OWN, tokens["n0"]).status != 200
    assert ask(accesses["n0"], "/v3/kv/range", {"key": encode(OWN)}, tokens["n0"]).status != 200
    again = {"name": accesses["n0"].user, "password": accesses["n0"].password}
    assert ask(accesses["n0"], "/v3/auth/authenticate", again).status != 200
    assert put(accesses["n1"], OWN, tokens["n1"]).status == 200
    assert put(tls_server.access_for("127.0.0.1", own.user, own.password), OWN, tokens["n1"]).status == 200
    close_scope(root, "run-1")
    assert root.call("/v3/auth/user/list", {})["users"] == ["root"]


def test_closing_a_run_leaves_others_of_a_longer_name(root: Client) -> None:
    """A run's end takes none of the users of a run whose name begins with its own."""
    open_scope(root, "run-1")
    open_scope(root, "run-10")
    admit(root, "run-10", ["n0"])
    close_scope(root, "run-1")
    assert root.call("/v3/auth/user/list", {})["users"] == ["root", "testbed-run-10", "testbed-run-10.n0"]


def test_a_user_that_may_make_none_can_be_shared(tls_server: EmbeddedServer, root: Client) -> None:
    """Without the right to make users, the error names the way out; the shared user works below its own prefix only."""
    open_scope(root, "run-1")
    lab = admit(root, "run-1", ["lab"])["lab"]
    access = tls_server.access_for("127.0.0.1", lab.user, lab.password)
    with contextlib.closing(connect(access)) as client:
        with pytest.raises(MayNotMakeUsers) as caught:
            open_scope(client, "run-2")
        assert "--shared-credentials" in caught.value.help
        borrow_scope(client, "run-1")
        assert put(access, OWN, log_in(access)).status == 200
        return_scope(client, "run-1")
        assert "kvs" not in root.call("/v3/kv/range", {"key": encode(OWN)})
        with pytest.raises(LabError, match="runs/run-2"):
            borrow_scope(client, "run-2")


def test_users_come_and_go_beside_work(tls_server: EmbeddedServer, root: Client) -> None:
    """Users that are made and deleted meanwhile, of other runs too, cost nobody a write, a lease or a log-in."""
    own = open_scope(root, "run-1")
    access = tls_server.access_for("127.0.0.1", own.user, own.password)
    over = threading.Event()

    def work(n: int) -> int:
        with contextlib.closing(gateway.connect(access)) as store:
            done = 0
            while not over.is_set():
                lease = store.lease(60)
                store.commit([Put(f"{OWN}/{n}", b"x", lease.id)])
                store.commit([Put(f"{OWN}/{n}", b"y")], [Unchanged(f"{OWN}/{n}/nothing")])
                assert store.range(f"{OWN}/{n}").entries[0].value == b"y"
                lease.refresh()
                lease.revoke()
                done += 1
            return done

    with ThreadPoolExecutor(4) as pool:
        working = [pool.submit(work, n) for n in range(4)]
        try:
            admit(root, "run-1", [f"n{n}" for n in range(150)])
            for n in range(150):
                expel(root, "run-1", f"n{n}")
        finally:
            over.set()
        assert all(w.result() > 10 for w in working)
