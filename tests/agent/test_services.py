"""Services that are ready when their port is; the rest of their ways is in tests/cases/agent/service-*.yml."""

from __future__ import annotations

import socket
import sys

from testbed.agent.plan import PlannedStep
from tests.agent.machine import Machine, step

LISTENS = """exec {python} -c '
import socket
server = socket.socket()
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind(("127.0.0.1", {port}))
open("bound", "w").close()
open("go").read()
server.listen()
while True:
    print("a visit", flush=True)
    server.accept()
'"""
"""Binds its port at once, but takes connections only when somebody has said so."""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def service(port: int, script: str) -> PlannedStep:
    """A service that is ready when it listens."""
    return step("service", "web", script, kind="service", timeout=30.0, ready={"port": port})


def test_port_that_listens_is_ready_and_published(machine: Machine) -> None:
    """A service is ready when its port takes connections, not before, and is then found with address and port."""
    port = free_port()
    script = f"(read -r word < bound || true; touch said; : > go) &\n{LISTENS.format(python=sys.executable, port=port)}"
    lines = machine.go(
        machine.plan(
            step("init", "main", "mkfifo bound go"),
            service(port, script),
            step("test", "main", "test -e said; testbed service discover web; testbed service discover --json web"),
        )
    )
    assert "step_ended a.service.web passed None" in lines
    assert lines[-1] == "node_ended passed", machine.output("a.test.main")
    host = f'{{"host": "127.0.0.1", "port": {port}, "node": "n0"}}'
    assert machine.output("a.test.main").splitlines() == [f"127.0.0.1 {port} n0", host]
    assert machine.output("a.service.web").splitlines()[0] == "a visit"


def test_port_of_somebody_else_is_no_readiness(machine: Machine) -> None:
    """A port on which something listens before the service runs is told, and the service is not started."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        machine.go(machine.plan(service(port, "touch started; exec sleep 300")))
    assert f"port {port} is taken" in machine.events()[-1]["reason"]
    abort = machine.scope.flag("abort")
    assert abort is not None
    assert (abort.cause["target"], abort.cause["step"]) == ("service", "web")
    assert not (machine.root / "lab" / machine.run / "n0" / "started").exists()
