"""``testbed peek -H HOST -P PORT -U USER -W FILE``: from anywhere, at a run on a cluster with users and TLS."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.coord.etcd_process import DEBIAN, DISTRO, EtcdProcess, start_server
from tests.coord.forwarder import Forwarder
from tests.run.conftest import LIMIT, Run, start

__all__ = ["start"]

SPEC = """
deployment: elsewhere
timeout: 5m
stall: off
configurations:
  talker:
    test: |
      head -c 300000 /dev/urandom; testbed get -b go; echo more
    publish: testbed get -b leave
nodes:
  n: {configurations: [talker]}
"""


@dataclass
class Operator:
    """Somebody on another machine, with a user of the cluster and nothing of the run."""

    server: EtcdProcess
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """What names the cluster's authority."""
        assert self.server.tls is not None
        ca = self.folder / "ca.pem"
        ca.write_text(self.server.tls.authority)
        return {"TESTBED_ETCD_CA": str(ca)}

    def secret(self, password: str = "root-secret") -> str:
        """A file with a password."""
        file = self.folder / f"password-{password}"
        file.touch(mode=0o600)
        file.write_text(password + "\n")
        return str(file)

    def peek(self, run: str, *words: str, port: int = 0, password: str = "root-secret") -> subprocess.Popen[bytes]:
        """Look at the run, as root of the cluster."""
        there = ["-H", "127.0.0.1", "-P", str(port or self.server.port), "-U", "root", "-W", self.secret(password)]
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TESTBED_")},
            **self.environment, "TESTBED_STATE_HOME": str(self.folder / "nothing"),
        }  # fmt: skip
        command = [sys.executable, "-m", "testbed", "peek", run, *there, *words]
        return subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def fail(self, run: str, *words: str, **more: object) -> tuple[int | None, str]:
        """Look, in vain; exit code and stderr."""
        process = self.peek(run, *words, **more)  # type: ignore[arg-type]
        _, said = process.communicate(timeout=LIMIT)
        return process.returncode, said.decode()


@pytest.fixture(params=[DISTRO, DEBIAN])
def operator(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Operator]:
    """An operator with a cluster of each version."""
    folder = tmp_path / "operator"
    folder.mkdir()
    server = start_server(request.param, True, folder)
    yield Operator(server, folder)
    server.close()


@pytest.fixture
def run(operator: Operator, start: Callable[..., Run], tmp_path: Path) -> Run:
    """A run on that cluster whose node waits for the value `go`."""
    spec = tmp_path / "elsewhere.yml"
    spec.write_text(SPEC)
    user = {"TESTBED_ETCD_USER": "root", "TESTBED_ETCD_PASSWORD_FILE": operator.secret()}
    run = start(spec, "--etcd", operator.server.url, **operator.environment, **user)
    run.await_line("waits: get go")
    return run


def test_from_anywhere(operator: Operator, run: Run) -> None:
    """A user of the cluster sees the step's bytes and its end by host, port, user and password file alone."""
    whole = operator.peek(run.name, "n", "--step", "test.main", "--from-start", "--stdout")
    assert whole.stdout is not None
    seen = whole.stdout.read(300000)
    assert run.testbed("set", "--run", run.name, "go", "on").returncode == 0
    rest, said = whole.communicate(timeout=LIMIT)
    assert whole.returncode == 0, said
    assert "talker.test.main passed, exit code 0" in said.decode()
    assert run.testbed("set", "--run", run.name, "leave", "1").returncode == 0
    assert run.end()[0] == 0
    assert seen + rest == (run.path / "nodes" / "n" / "logs" / "talker.test.main.out").read_bytes()


def test_what_goes_wrong(operator: Operator, run: Run) -> None:
    """A wrong password, a run that is not there, and a way that is cut are told in a sentence each."""
    code, said = operator.fail(run.name, password="wrong")
    assert (code, "authentication failed" in said, "--password-file" in said) == (3, True, True), said
    code, said = operator.fail("nobody-1")
    assert (code, "there is no run `nobody-1`" in said) == (2, True), said
    way = Forwarder(operator.server.port)
    way.cut()
    code, said = operator.fail(run.name, "-T", "1", port=way.port)
    assert (code, "does not answer" in said, "waiting for up to 1 s" in said) == (3, True, True), said
    assert "Traceback" not in said
    for key in ("go", "leave"):
        assert run.testbed("set", "--run", run.name, key, "1").returncode == 0
    assert run.end()[0] == 0
