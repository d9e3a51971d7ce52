"""The embedded server: started, boxed, watched, and gone without a trace."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from etcd_witness import ask, encode, log_in, put

from testbed.coord import gateway
from testbed.coord.keys import RunKeys
from testbed.coord.store import Denied, Put, Span
from testbed.coord.wire import Client
from testbed.errors import LabError
from testbed.etcd.access import connect, open_scope
from testbed.etcd.addresses import free_port
from testbed.etcd.binary import Binary, watch_limit
from testbed.etcd.certificates import Authority
from testbed.etcd.server import EmbeddedServer

CHILD = """
import sys, threading
from pathlib import Path
from testbed.etcd.addresses import free_port
from testbed.etcd.binary import Binary
from testbed.etcd.server import EmbeddedServer
with EmbeddedServer(Binary(Path(sys.argv[1]), (3, 5, 1)), Path(sys.argv[2])) as server:
    print(server.pid, flush=True)
    threading.Event().wait()
"""


def gone(pid: int) -> bool:
    """Whether no process has that id."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def left_in(directory: Path) -> list[str]:
    """Name what lies in the directory, at any depth."""
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*"))


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    """A loopback port that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as holder:
        yield int(holder.getsockname()[1])


def test_answers_with_authentication_on(server: EmbeddedServer) -> None:
    """On entry the server is healthy, knows its root user, and that user may write."""
    assert ask(server.root, "/health").body["health"] == "true"
    assert put(server.root, "a", log_in(server.root)).status == 200


def test_refuses_without_credentials(server: EmbeddedServer) -> None:
    """Nobody reads, writes or watches without a token, or with an invented one."""
    assert put(server.root, "a", "").status in (400, 403)
    assert put(server.root, "a", "invented.1").body["code"] == 16
    assert ask(server.root, "/v3/kv/range", {"key": encode("a")}).status != 200


def test_refuses_a_wrong_password(server: EmbeddedServer) -> None:
    """A wrong password gets no token."""
    wrong = replace(server.root, password=server.root.password + "x")
    answer = ask(wrong, "/v3/auth/authenticate", {"name": "root", "password": wrong.password})
    assert answer.status != 200
    assert "token" not in answer.body


def test_two_servers_know_nothing_of_each_other(binary: Binary, tmp_path: Path) -> None:
    """Two servers run at once, and neither takes the other's certificates or passwords."""
    with EmbeddedServer(binary, tmp_path / "1") as one, EmbeddedServer(binary, tmp_path / "2") as two:
        assert one.port != two.port
        stranger = replace(two.root, endpoints=one.root.endpoints)
        with pytest.raises(ssl.SSLCertVerificationError):
            ask(stranger, "/health")
        with pytest.raises(OSError):
            ask(replace(stranger, ca=one.root.ca), "/health")  # trusts the server, but is not trusted
        inside = replace(one.root, password=two.root.password)
        assert ask(inside, "/v3/auth/authenticate", {"name": "root", "password": inside.password}).status != 200


def test_takes_only_its_own_certificates(tls_server: EmbeddedServer) -> None:
    """A client without a certificate, or with one of an authority of the same name, is turned away at the handshake."""
    impostor = Authority("one").issue_client("controller")
    with pytest.raises(OSError):
        ask(replace(tls_server.root, certificate="", key=""), "/health")
    with pytest.raises(OSError):
        ask(replace(tls_server.root, certificate=impostor.certificate, key=impostor.key), "/health")


def test_speaks_no_plain_http_beside_tls(tls_server: EmbeddedServer) -> None:
    """The TLS port gives a plain client nothing."""
    plain = replace(tls_server.root, endpoints=[f"http://127.0.0.1:{tls_server.port}"])
    with pytest.raises(OSError):
        ask(plain, "/health")


def test_a_node_gets_in_with_its_own_certificate(tls_server: EmbeddedServer) -> None:
    """What `access_for` gives works at the address it was made for, and its certificate carries no common name."""
    access = tls_server.access_for("127.0.0.1", "root", tls_server.root.password)
    assert access.certificate != tls_server.root.certificate
    assert put(access, "a", log_in(access)).status == 200


@pytest.mark.parametrize("address", ["127.0.0.2", "::1"])
def test_listens_only_where_it_was_told(one_binary: Binary, address: str, tmp_path: Path) -> None:
    """Clients reach it on loopback and the given address under a matching certificate, and on no other."""
    with EmbeddedServer(one_binary, tmp_path, [address]) as server:
        for host in ("127.0.0.1", address):
            access = server.access_for(host, "root", server.root.password)
            assert access.endpoints == server.endpoints_for(host)
            assert ask(access, "/health").status == 200
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.3", server.port)).close()


def test_a_wildcard_listens_everywhere_under_the_given_names(one_binary: Binary, tmp_path: Path) -> None:
    """For a machine behind an address that is not its own, any address is listened on and the name is vouched for."""
    with EmbeddedServer(one_binary, tmp_path, ["0.0.0.0"], names=["127.0.0.4"]) as server:
        access = server.access_for("127.0.0.4", "root", server.root.password)
        assert ask(access, "/health").status == 200


def test_never_without_tls_for_other_machines(one_binary: Binary, tmp_path: Path) -> None:
    """Plain HTTP is for loopback only."""
    with pytest.raises(ValueError, match="TLS"):
        EmbeddedServer(one_binary, tmp_path, ["192.0.2.1"], tls=False)


def test_leaves_only_its_log(binary: Binary, tmp_path: Path) -> None:
    """After the end, also by an exception, process, data and keys are gone; the log stays."""
    with EmbeddedServer(binary, tmp_path / "etcd") as server:
        pid = server.pid
        assert len(left_in(tmp_path / "etcd")) > 1
    assert gone(pid)
    assert left_in(tmp_path / "etcd") == ["etcd.log"]
    with pytest.raises(RuntimeError, match="mine"), EmbeddedServer(binary, tmp_path / "etcd") as server:
        pid = server.pid
        raise RuntimeError("mine")
    assert gone(pid)
    assert left_in(tmp_path / "etcd") == ["etcd.log"]


def test_stop_twice_is_no_error(one_binary: Binary, tmp_path: Path) -> None:
    """Stopping what is stopped does nothing, and an ordered end is no failure."""
    told: list[LabError] = []
    with EmbeddedServer(one_binary, tmp_path) as server:
        server.on_exit(told.append)
        server.stop()
        server.stop()
    assert server.failed is None
    assert told == []


def test_a_server_that_dies_is_told(one_binary: Binary, tmp_path: Path) -> None:
    """Whoever asked learns that the server is gone for good and how, also if asking late; its data still go."""
    told: queue.Queue[LabError] = queue.Queue()
    with EmbeddedServer(one_binary, tmp_path, restarts=0) as server:
        assert server.failed is None
        server.on_exit(told.put)
        os.kill(server.pid, signal.SIGKILL)
        loss = told.get(timeout=60)
        assert "SIGKILL" in loss.message
        assert str(server.log) in loss.help
        assert server.failed is not None
        server.on_exit(told.put)
        assert "SIGKILL" in told.get(timeout=60).message
    assert left_in(tmp_path) == ["etcd.log"]


def test_a_killed_server_comes_back_with_all_it_had(server: EmbeddedServer) -> None:
    """Killed in the middle of writes, it runs again on its port with every write done once, and says what happened."""
    told: queue.Queue[str] = queue.Queue()
    server.on_restart(told.put)
    port = server.port
    store = gateway.connect(server.root)
    with contextlib.closing(store):
        seen: list[bytes | None] = []
        watch = store.watch([Span("k", "l", 1)])
        for n in range(300):
            if n in (100, 200):
                os.kill(server.pid, signal.SIGKILL)
            store.commit([Put("k", b"%d" % n)])
        for batch in watch:
            seen += [change.value for change in batch]
            if batch[-1].value == b"299":
                break
        assert list(dict.fromkeys(seen)) == [b"%d" % n for n in range(300)]
    assert [told.get(timeout=60), told.get(timeout=60)] == [told_of_kill()] * 2
    assert server.port == port
    assert server.failed is None
    assert put(server.root, "a", "").status in (400, 403)  # authentication is on as before


def told_of_kill() -> str:
    """What is said of a server that was killed and came back."""
    return "the run's etcd server on this machine was ended by SIGKILL; it was started again on its data"


def test_a_server_that_dies_again_and_again_is_given_up(one_binary: Binary, tmp_path: Path) -> None:
    """After so many restarts its next end is its last, and is told."""
    revived: queue.Queue[str] = queue.Queue()
    gone_for_good: queue.Queue[LabError] = queue.Queue()
    with EmbeddedServer(one_binary, tmp_path, restarts=2) as server:
        server.on_restart(revived.put)
        server.on_exit(gone_for_good.put)
        for _ in range(2):
            os.kill(server.pid, signal.SIGKILL)
            revived.get(timeout=60)
        os.kill(server.pid, signal.SIGKILL)
        assert "SIGKILL" in gone_for_good.get(timeout=60).message
        assert revived.empty()
    assert left_in(tmp_path) == ["etcd.log"]


def test_a_server_that_cannot_come_back_is_given_up(one_binary: Binary, tmp_path: Path) -> None:
    """Where it cannot be started again, its end is told as the cause."""
    told: queue.Queue[LabError] = queue.Queue()
    program = tmp_path / "program"
    program.symlink_to(one_binary.path)
    with EmbeddedServer(replace(one_binary, path=program), tmp_path / "etcd") as server:
        server.on_exit(told.put)
        program.unlink()
        os.kill(server.pid, signal.SIGKILL)
        assert "SIGKILL" in told.get(timeout=60).message


def test_stopped_while_it_comes_back(one_binary: Binary, tmp_path: Path) -> None:
    """A stop right after its death ends it all the same, and leaves nothing."""
    with EmbeddedServer(one_binary, tmp_path) as server:
        os.kill(server.pid, signal.SIGKILL)
    assert gone(server.pid)
    assert left_in(tmp_path) == ["etcd.log"]


def test_cut_ends_the_watch_of_a_deleted_user(tls_server: EmbeddedServer) -> None:
    """Etcd lets an open watch outlive its user; after the cut it hears no more, and everybody else goes on."""
    with contextlib.ExitStack() as scope:
        root = scope.enter_context(contextlib.closing(connect(tls_server.root)))
        user = open_scope(root, "run-1")
        access = tls_server.access_for("127.0.0.1", user.user, user.password)
        keys = RunKeys("run-1")
        lost = scope.enter_context(contextlib.closing(gateway.connect(access, patience=30)))
        kept = scope.enter_context(contextlib.closing(gateway.connect(tls_server.root)))
        lost_watch, kept_watch = iter(lost.watch([Span(*keys.span)])), iter(kept.watch([Span(*keys.span)]))
        root.call("/v3/auth/user/delete", {"name": user.user})
        kept.commit([Put(keys.value("a"), b"1")])
        assert [c.value for c in next(lost_watch)] == [b"1"]  # what the cut is for
        tls_server.cut()
        kept.commit([Put(keys.value("a"), b"2")])
        with pytest.raises(Denied):
            next(lost_watch)
        assert [c.value for batch in (next(kept_watch), next(kept_watch)) for c in batch] == [b"1", b"2"]


def test_dies_with_a_killed_controller(binary: Binary, tmp_path: Path) -> None:
    """After kill -9 of the process that started it the server is gone."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, binary.path, tmp_path], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )
    assert child.stdout is not None
    with child, child.stdout:
        watched = os.pidfd_open(int(child.stdout.readline()))
        try:
            child.kill()
            assert select.select([watched], [], [], 60)[0], "the server outlived its controller"
        finally:
            os.close(watched)


def test_outlives_the_thread_that_started_it(one_binary: Binary, tmp_path: Path) -> None:
    """A server started in a worker thread goes on when that thread has ended."""
    with contextlib.ExitStack() as scope:
        started: list[EmbeddedServer] = []
        worker = threading.Thread(
            target=lambda: started.append(scope.enter_context(EmbeddedServer(one_binary, tmp_path)))
        )
        worker.start()
        worker.join()
        assert put(started[0].root, "a", log_in(started[0].root)).status == 200


def test_is_out_of_reach_of_the_operators_interrupt(server: EmbeddedServer) -> None:
    """It leads its own session, so that the terminal's Ctrl-C does not reach it."""
    assert os.getsid(server.pid) == server.pid
    assert os.getpgid(server.pid) == server.pid


def test_tells_no_secret(server: EmbeddedServer) -> None:
    """Neither its command line nor its environment, log or `repr` holds a password or a key."""
    process = Path(f"/proc/{server.pid}")
    access = server.root
    told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes() + server.log.read_bytes()
    told += repr((server, access, server.access_for("127.0.0.1", "n", "sesame"))).encode()
    for secret in (access.password, "sesame", "PRIVATE KEY"):
        assert secret.encode() not in told


@pytest.mark.usefixtures("tls_server")
def test_its_files_are_for_this_user_only(tmp_path: Path) -> None:
    """The private directory is 0700, keys and certificates in it 0600."""
    homes = [p for p in (tmp_path / "etcd").iterdir() if p.is_dir()]
    assert len(homes) == 1
    assert stat.S_IMODE(homes[0].stat().st_mode) == 0o700
    keys = list(homes[0].glob("*.pem")) + list(homes[0].glob("*.key"))
    assert {k.name for k in keys} == {"ca.pem", "server.pem", "server.key"}
    assert {stat.S_IMODE(k.stat().st_mode) for k in keys} == {0o600}


def test_takes_no_settings_meant_for_another_etcd(
    one_binary: Binary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator's `ETCD_*` variables do not reach it."""
    monkeypatch.setenv("ETCD_DATA_DIR", str(tmp_path / "theirs"))
    monkeypatch.setenv("ETCD_DISCOVERY", "https://192.0.2.1/")
    with EmbeddedServer(one_binary, tmp_path / "etcd") as server:
        assert ask(server.root, "/health").status == 200
    assert not (tmp_path / "theirs").exists()


def test_a_long_path_is_no_obstacle(one_binary: Binary, tmp_path: Path) -> None:
    """The directory's path may be longer than that of a Unix socket."""
    with EmbeddedServer(one_binary, tmp_path / ("d" * 120) / "etcd") as server:
        assert ask(server.root, "/health").status == 200


def test_goes_on_to_the_next_port(binary: Binary, tmp_path: Path) -> None:
    """A port that somebody else took is passed over."""
    with taken_port() as taken, EmbeddedServer(binary, tmp_path, ports=[taken, free_port(["127.0.0.1"])]) as server:
        assert ask(server.root, "/health").status == 200
        assert server.port != taken


def test_says_that_its_port_is_taken(binary: Binary, tmp_path: Path) -> None:
    """Where no port is left, the error names the port and what to do; nothing stays."""
    with taken_port() as taken, pytest.raises(LabError) as caught, EmbeddedServer(binary, tmp_path, ports=[taken]):
        pass
    assert "port is taken" in caught.value.message
    assert str(taken) in caught.value.message
    assert "ss -ltnp" in caught.value.help
    assert left_in(tmp_path) == ["etcd.log"]


def test_says_that_an_address_is_not_this_machines(one_binary: Binary, tmp_path: Path) -> None:
    """An address of another machine cannot be listened on, and the error says which."""
    with pytest.raises(LabError, match=r"192\.0\.2\.1") as caught, EmbeddedServer(one_binary, tmp_path, ["192.0.2.1"]):
        pass
    assert "--etcd-advertise" in caught.value.help


def test_says_that_the_disk_is_full(binary: Binary, tmpfs: Path) -> None:
    """Too small a disk ends the start with that cause."""
    with pytest.raises(LabError, match="disk is full") as caught, EmbeddedServer(binary, tmpfs / "etcd"):
        pass
    assert "--run-dir" in caught.value.help
    assert left_in(tmpfs / "etcd") == ["etcd.log"]


def test_says_that_the_directory_is_read_only(one_binary: Binary, tmpfs: Path) -> None:
    """A directory that cannot be written is named, with what to do."""
    subprocess.run(["mount", "-o", "remount,ro", tmpfs], check=True)
    with pytest.raises(LabError, match="cannot be written") as caught, EmbeddedServer(one_binary, tmpfs / "etcd"):
        pass
    assert str(tmpfs) in caught.value.message
    assert "--run-dir" in caught.value.help


def test_says_that_a_file_is_in_the_way(one_binary: Binary, tmp_path: Path) -> None:
    """A file where the directory should be is a plain message too."""
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match="cannot have its files"), EmbeddedServer(one_binary, tmp_path / "file" / "etcd"):
        pass


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("#!/bin/sh\necho of no use >&2\nexit 7\n", "exit code 7"),
        ("#!/bin/sh\nkill -9 $$\n", "SIGKILL"),
        ("\x7fELF of another machine", "not for this kind of machine"),
        (None, "No such file"),
    ],
)
def test_a_program_that_is_no_etcd_is_told(content: str | None, says: str, tmp_path: Path) -> None:
    """A program that does not become a server ends the start with how it ended and what it said."""
    program = tmp_path / "program"
    if content is not None:
        program.write_text(content)
        program.chmod(0o755)
    with pytest.raises(LabError, match=says), EmbeddedServer(Binary(program, (3, 5, 1)), tmp_path / "etcd"):
        pass
    assert left_in(tmp_path / "etcd") == ["etcd.log"]


def test_as_many_nodes_as_promised_can_watch(tls_server: EmbeddedServer) -> None:
    """With 200 watches open over TLS, on every version, a value still gets through and all of them see it."""
    limit = watch_limit(tls_server.binary.version, tls=True)
    watchers = limit.nodes if limit else 200
    body = {"create_request": {"key": encode("a")}}
    with contextlib.closing(connect(tls_server.root)) as client, contextlib.ExitStack() as scope:
        streams = []
        for _ in range(watchers):
            stream = client.stream("/v3/watch", [body])
            scope.callback(stream.close)
            streams.append(iter(stream))
            assert next(streams[-1])["result"]["created"]
        client.call("/v3/kv/put", {"key": encode("a"), "value": encode("b")})
        for messages in streams:
            assert len(next(messages)["result"]["events"]) == 1


def test_its_log_is_machine_readable(binary: Binary, tmp_path: Path) -> None:
    """Every version logs JSON lines, which causes are told from."""
    with EmbeddedServer(binary, tmp_path) as server, contextlib.closing(connect(server.root)) as client:
        assert isinstance(client, Client)
        client.call("/v3/maintenance/status", {})
    lines = (tmp_path / "etcd.log").read_text().splitlines()
    assert sum(isinstance(json.loads(line), dict) for line in lines if line.startswith("{")) > 10
