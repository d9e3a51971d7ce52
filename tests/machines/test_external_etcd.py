"""Runs on the lab's own etcd cluster: with TLS and users, on real machines and on this one."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from coord.etcd_process import DEBIAN, DISTRO, EtcdProcess, ServerTls, find_binary, post
from machines_bench import Bench, left_on

from testbed.etcd.addresses import free_port
from testbed.etcd.certificates import Authority
from testbed.lab import practice

pytestmark = pytest.mark.lab

GREETING = """\
deployment: greeting
finalise: all
configurations:
  greeter:
    test: testbed set "hello.$TESTBED_NODE" yes; for n in $TESTBED_NODES; do testbed get --block "hello.$n" -t 60s; done
nodes:
  greeter: {configurations: [greeter], count: 2}
"""
ROOT, OPERATOR = ("root", "root-secret"), ("operator", "operator-secret")
PLAIN = ("plain", "plain-secret")


@dataclass
class Cluster:
    """A server, who signed it, and where it is reached."""

    process: EtcdProcess
    authority: Authority
    url: str

    def ask(self, path: str, **body: Any) -> dict[str, Any]:
        """A request as root."""
        user, password = ROOT
        token = post(self.process, "/v3/auth/authenticate", {"name": user, "password": password}, self.ca)["token"]
        return post(self.process, path, body, self.ca, str(token))

    @property
    def ca(self) -> str:
        """The authority's certificate as PEM text."""
        return self.authority.certificate

    def leftovers(self) -> dict[str, Any]:
        """Users, roles and keys beside those that were there before any run."""
        keys = self.ask("/v3/kv/range", key=base64.b64encode(b"/").decode(), range_end=base64.b64encode(b"0").decode())
        return {
            "users": sorted(set(self.ask("/v3/auth/user/list")["users"]) - {ROOT[0], OPERATOR[0], PLAIN[0]}),
            "roles": sorted(set(self.ask("/v3/auth/role/list")["roles"]) - {"root"}),
            "keys": [base64.b64decode(kv["key"]).decode() for kv in keys.get("kvs", [])],
        }

    def environment(self, folder: Path, user: tuple[str, str] = OPERATOR) -> dict[str, str]:
        """What an operator sets, with the secrets in files."""
        ca, password = folder / "ca.pem", folder / f"password-{user[0]}"
        ca.write_text(self.ca)
        password.touch(mode=0o600)
        password.write_text(user[1] + "\n")
        return {
            "TESTBED_ETCD_USER": user[0],
            "TESTBED_ETCD_PASSWORD_FILE": str(password),
            "TESTBED_ETCD_CA": str(ca),
        }


@pytest.fixture(scope="module", params=[DISTRO, DEBIAN])
def cluster(
    request: pytest.FixtureRequest, practice_lab: practice.Lab, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A server of each version at hand, listening where the practice hosts reach it."""
    binary = find_binary(request.param)
    if not binary:
        pytest.skip(f"etcd {request.param} is not installed")
    folder = tmp_path_factory.mktemp("cluster")
    authority = Authority("lab")
    issued = authority.issue_server(["127.0.0.1", "localhost", practice_lab.controller])
    (folder / "server.pem").write_text(issued.certificate)
    (folder / "server.key").write_text(issued.key)
    tls = ServerTls(folder / "server.pem", folder / "server.key", authority.certificate)
    port = free_port(["127.0.0.1"])
    outside = f"https://{practice_lab.controller}:{port}"
    listen = ("--listen-client-urls", f"https://127.0.0.1:{port},{outside}")
    process = EtcdProcess(binary, tls=tls, options=listen, port=port).start()
    try:
        for name, password in (ROOT, OPERATOR, PLAIN):
            post(process, "/v3/auth/user/add", {"name": name, "password": password}, authority.certificate)
        post(process, "/v3/auth/role/add", {"name": "root"}, authority.certificate)
        for name, _ in (ROOT, OPERATOR):
            post(process, "/v3/auth/user/grant", {"user": name, "role": "root"}, authority.certificate)
        post(process, "/v3/auth/enable", {}, authority.certificate)
        yield Cluster(process, authority, outside)
    finally:
        process.close()


def test_run_on_the_labs_cluster(bench: Bench, cluster: Cluster, practice_lab: practice.Lab, tmp_path: Path) -> None:
    """A run of SSH hosts passes on the lab's cluster; its user, its role and its keys are gone afterwards."""
    spec = bench.spec(GREETING)
    done = bench.run(
        spec, "-i", practice_lab.inventory, "--etcd", cluster.url, environment=cluster.environment(tmp_path)
    )
    assert done.code == 0, done.said
    assert cluster.leftovers() == {"users": [], "roles": [], "keys": []}
    assert left_on(practice_lab) == {}
    assert not (done.directory / "etcd").exists(), "a server of the run's own was started"


def test_failed_run_leaves_nothing_on_the_cluster(bench: Bench, cluster: Cluster, tmp_path: Path) -> None:
    """The cluster is as before also after a run that failed."""
    spec = bench.spec(GREETING.replace("test: ", "test: false; "))
    environment = {**cluster.environment(tmp_path, ROOT), "TESTBED_ETCD": cluster.url}
    done = bench.run(spec, environment=environment)
    assert done.code == 1, done.said
    assert cluster.leftovers() == {"users": [], "roles": [], "keys": []}


def test_wrong_users_of_the_cluster(bench: Bench, cluster: Cluster, tmp_path: Path) -> None:
    """A wrong password, and a user who may not make users, are told with what to set; nothing was begun."""
    spec = bench.spec(GREETING)
    for user, words in (
        ((OPERATOR[0], "wrong"), ("TESTBED_ETCD_PASSWORD_FILE", "password")),
        (PLAIN, ("role root", "docs/etcd.md")),
    ):
        done = bench.run(spec, "--etcd", cluster.url, environment=cluster.environment(tmp_path, user))
        assert done.code == 3, done.said
        for word in (cluster.url, *words):
            assert word in done.err
        assert "Traceback" not in done.said
        assert user[1] not in done.said
    assert cluster.leftovers() == {"users": [], "roles": [], "keys": []}


def test_cluster_signed_by_somebody_else(bench: Bench, cluster: Cluster, tmp_path: Path) -> None:
    """A server that the named authority did not sign gets no password."""
    environment = cluster.environment(tmp_path)
    Path(environment["TESTBED_ETCD_CA"]).write_text(Authority("other").certificate)
    done = bench.run(bench.spec(GREETING), "--etcd", cluster.url, environment=environment)
    assert done.code == 3, done.said
    assert cluster.url in done.err
    assert "certificate" in done.err


@pytest.fixture
def open_server() -> Iterator[EtcdProcess]:
    """A server that asks nobody for a password."""
    process = EtcdProcess(find_binary(DISTRO)).start()
    try:
        yield process
    finally:
        process.close()


SETTINGS = {"TESTBED_ETCD_USER": "root", "TESTBED_ETCD_PASSWORD": "root-secret"}


def test_cluster_without_authentication(bench: Bench, open_server: EtcdProcess) -> None:
    """A cluster that lets everybody in is refused, with the command that changes it."""
    done = bench.run(bench.spec(GREETING), "--etcd", open_server.url, environment=SETTINGS)
    assert done.code == 3, done.said
    assert "authentication is off" in done.err
    assert "etcdctl auth enable" in done.err


def test_cluster_that_is_not_there(bench: Bench) -> None:
    """A cluster that does not answer is named with what to check."""
    url = f"https://127.0.0.1:{free_port(['127.0.0.1'])}"
    done = bench.run(bench.spec(GREETING), "--etcd", url, environment=SETTINGS)
    assert done.code == 3, done.said
    assert url in done.err
    assert "firewall" in done.err


@pytest.mark.parametrize(
    ("url", "settings", "words"),
    [
        ("https://etcd:2379", {}, "TESTBED_ETCD_USER"),
        ("http://192.0.2.1:2379", SETTINGS, "https://"),
        ("ftp://etcd:2379", SETTINGS, "https://etcd1:2379"),
        ("https://etcd:2379", {"TESTBED_ETCD_USER": "root"}, "TESTBED_ETCD_PASSWORD_FILE"),
    ],
)
def test_settings_that_cannot_be(bench: Bench, url: str, settings: dict[str, str], words: str) -> None:
    """A setting that is missing or wrong is a usage error with the way out; nothing was begun."""
    done = bench.run(bench.spec(GREETING), "--etcd", url, environment=settings)
    assert done.code == 2, done.said
    assert words in done.err
    assert not done.directory.exists()
