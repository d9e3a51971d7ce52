"""Runs whose etcd is killed, comes back, changes its leader, or stays away for long."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testbed.agent.workspace import read_pid
from testbed.coord.gateway import connect
from testbed.coord.keys import RunKeys, end_of
from testbed.coord.scope import Scope
from testbed.coord.store import Put
from testbed.events import encode
from testbed.run.phases import own_events
from tests.coord.etcd_process import DISTRO, EtcdProcess, find_binary, post
from tests.coord.etcd_process import encode as as_key
from tests.faults.cluster import Cluster
from tests.faults.conftest import MARCH, MARCHERS, PING_PONG
from tests.faults.live import LiveRun, etcd_of, on_cluster

PASSWORD = "root-secret"


def heard(count: int) -> str:
    """What a node of the ping-pong has heard when it has heard all, each once and in order."""
    return "".join(f"{n}\n" for n in range(1, count + 1))


def await_value(run: LiveRun, key: str) -> None:
    """Block until a node of the run has set that value."""
    keys = RunKeys(run.directory.run)
    store = connect(run.access())
    scope = Scope(store, keys.run, "test")
    try:
        scope.wait(key, 60)
    finally:
        scope.close()
        store.close()


def set_value(run: LiveRun, key: str, value: bytes) -> None:
    """Set a value as the controller."""
    with contextlib.closing(connect(run.access())) as store:
        store.commit([Put(RunKeys(run.directory.run).value(key), value)])


def assert_all_came_once(run: LiveRun, rounds: int) -> None:
    """Every value was heard once in order, and every event of a node came once in the order of its own journal."""
    assert run.end().judgement.exit_code == 0, run.events
    for node in ("a", "b"):
        assert run.report(node, "heard") == heard(rounds)
        waits = [e.wait for e in run.all_of("wait_started", node=node)]  # type: ignore[attr-defined]
        assert waits == sorted(set(waits))
        ends = [e.wait for e in run.all_of("wait_ended", node=node)]  # type: ignore[attr-defined]
        assert sorted(ends) == waits
        assert len(run.all_of("node_started", node=node)) == len(run.all_of("node_ended", node=node)) == 1


def test_the_runs_own_etcd_is_killed(start: Callable[..., LiveRun]) -> None:
    """Kill -9 of the run's own server, twice in the middle of blocked gets and events: it passes, nothing is lost."""
    run = start(PING_PONG.format(rounds=30))
    run.await_event("node_started", count=2)
    for key in ("pong.8", "pong.16"):
        await_value(run, key)
        os.kill(etcd_of(run.directory.path), signal.SIGKILL)
        run.await_event("notice", count=1 if key == "pong.8" else 2)
    assert_all_came_once(run, 30)
    assert [n for n in run.notices() if "SIGKILL" in n and "started again" in n] == run.notices()


def start_march(start: Callable[..., LiveRun], folder: Path, rounds: int, gates: list[int], **options: Any) -> LiveRun:
    """A run in which three nodes keep step; the gated rounds wait for `open_gate`."""
    for gate in gates:
        os.mkfifo(folder / f"gate.{gate}")
    gated = " ".join(map(str, gates))
    program = Path(__file__).with_name("march.py")
    return start(MARCH.format(program=program, folder=folder, rounds=rounds, gates=gated), **options)


def await_gate(run: LiveRun, gate: int) -> None:
    """Block until all but the last node wait at that gate's barrier."""
    for node in MARCHERS[:-1]:
        run.await_event("wait_started", node=node, what="barrier", names=[f"gate.{gate}"])


def open_gate(folder: Path, gate: int) -> None:
    """Let the last node come to that barrier."""
    (folder / f"gate.{gate}").write_text("go\n")


def assert_all_kept_step(run: LiveRun, rounds: int) -> None:
    """Nobody went through a barrier alone; each number, message, wait and event came once and in its order."""
    assert run.end().judgement.exit_code == 0, run.events
    taken = [int(n) for node in MARCHERS for n in run.report(node, "taken").split()]
    assert sorted(taken) == list(range(rounds * len(MARCHERS)))
    heard = [run.report(node, "messages").splitlines() for node in MARCHERS]
    assert heard[0] == heard[1] == heard[2]
    for node in MARCHERS:
        assert [m for m in heard[0] if m.startswith(node)] == [f"{node} {n}" for n in range(rounds)]
        assert len(run.all_of("value_set", node=node, key=f"at.{node}")) == rounds
        own = [encode(e) for e in own_events(run.directory.nodes / node / "events.jsonl", node)]
        told = [encode(e) for e in run.events if e.node == node]
        assert [line for line in told if line in own] == own
        started = [e.wait for e in run.all_of("wait_started", node=node)]  # type: ignore[attr-defined]
        assert sorted(e.wait for e in run.all_of("wait_ended", node=node)) == started  # type: ignore[attr-defined]


def test_etcd_is_killed_among_barriers(start: Callable[..., LiveRun], tmp_path: Path) -> None:
    """Kill -9 while nodes wait at a barrier, and twice more among hundreds: all stay in step, nothing is done twice."""
    run = start_march(start, tmp_path, 150, [30])
    await_gate(run, 30)
    os.kill(etcd_of(run.directory.path), signal.SIGKILL)
    open_gate(tmp_path, 30)
    run.await_event("notice", count=1)
    for kill, key in ((2, "go.60"), (3, "go.100")):
        await_value(run, key)
        os.kill(etcd_of(run.directory.path), signal.SIGKILL)
        run.await_event("notice", count=kill)
    assert_all_kept_step(run, 150)
    assert [n for n in run.notices() if "SIGKILL" in n and "started again" in n] == run.notices()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Three members with authentication."""
    members = Cluster(find_binary(DISTRO), PASSWORD)
    try:
        members.start()
        yield members
    finally:
        members.close()


def test_the_leader_of_a_cluster_is_killed(start: Callable[..., LiveRun], cluster: Cluster) -> None:
    """A lab's cluster that loses its leader in the middle goes on with another one, and so does the run."""
    run = start(PING_PONG.format(rounds=30), etcd=on_cluster(cluster.urls, PASSWORD))
    run.await_event("node_started", count=2)
    await_value(run, "pong.8")
    cluster.kill_leader()
    assert_all_came_once(run, 30)
    assert cluster.users() == ["root"]
    assert any("CVE-2026-33343" in n for n in run.notices())  # this version's leaks are named


def test_leaders_are_killed_among_barriers(start: Callable[..., LiveRun], cluster: Cluster, tmp_path: Path) -> None:
    """Two leaders of a cluster are killed, while nodes wait at a barrier and among many: all stay in step."""
    run = start_march(start, tmp_path, 150, [30], etcd=on_cluster(cluster.urls, PASSWORD))
    await_gate(run, 30)
    cluster.kill_leader()
    open_gate(tmp_path, 30)
    await_value(run, "go.60")
    cluster.revive()
    cluster.kill_leader()
    assert_all_kept_step(run, 150)
    assert cluster.users() == ["root"]


@pytest.fixture
def lab_etcd() -> Iterator[EtcdProcess]:
    """A server of the lab's with authentication, that the test may kill."""
    server = EtcdProcess(find_binary(DISTRO)).start()
    try:
        for path, body in (
            ("user/add", {"name": "root", "password": PASSWORD}),
            ("role/add", {"name": "root"}),
            ("user/grant", {"user": "root", "role": "root"}),
            ("enable", {}),
        ):
            post(server, f"/v3/auth/{path}", body)
        yield server
    finally:
        server.close()


def test_etcd_is_away_for_longer_than_a_lease(
    start: Callable[..., LiveRun], lab_etcd: EtcdProcess, tmp_path: Path
) -> None:
    """Agents go on with their step and keep their events; when etcd is back within the outage the run passes."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    run = start(
        f"""
deployment: away
finalise: all
configurations:
  worker:
    test:
      pre: testbed set ready yes
      run: cat {gate}; echo done > {tmp_path}/worked
    publish: testbed set published yes
  waiter:
    test: testbed get -b published
nodes:
  a: {{configurations: [worker]}}
  b: {{configurations: [waiter]}}
""",
        {"liveness": 2, "outage": 60},
        etcd=on_cluster([lab_etcd.url], PASSWORD),
    )
    run.await_event("step_started", node="a", step="main", target="test")
    run.await_event("wait_started", node="b")
    lab_etcd.kill()
    with gate.open("w") as opened:  # the step goes on while there is no etcd, and ends
        opened.write("go\n")
    threading.Event().wait(5)  # the fault itself: two leases and more
    lab_etcd.start()
    assert run.end().judgement.exit_code == 0, run.events
    assert (tmp_path / "worked").exists()
    assert run.all_of("node_lost") == []
    targets = [(e.target, e.step) for e in run.all_of("step_ended", node="a")]  # type: ignore[attr-defined]
    assert targets == [("test", "pre"), ("test", "main"), ("publish", "main")]


@pytest.fixture
def suspended() -> Iterator[Callable[[LiveRun], Callable[[], None]]]:
    """Suspends the etcd server of a run, and gives what lets it go on; it goes on in any case."""
    stopped: list[int] = []

    def suspend(run: LiveRun) -> Callable[[], None]:
        server = etcd_of(run.directory.path)
        stopped.append(server)
        os.kill(server, signal.SIGSTOP)
        return lambda: os.kill(stopped.pop(), signal.SIGCONT)

    yield suspend
    for server in stopped:
        os.kill(server, signal.SIGCONT)


LONG = """
deployment: long
finalise: all
configurations:
  worker:
    test: testbed set "here.$TESTBED_NODE" yes; testbed get -b go
nodes:
  a: {configurations: [worker]}
  b: {configurations: [worker]}
"""


def test_etcd_is_suspended_for_longer_than_a_lease(
    start: Callable[..., LiveRun], suspended: Callable[[LiveRun], Callable[[], None]]
) -> None:
    """Nobody is taken for dead because the server slept until all leases had ended: the run goes on, and passes."""
    run = start(LONG, {"liveness": 2, "outage": 60})
    for node in "ab":
        run.await_event("wait_started", node=node)
    resume = suspended(run)
    threading.Event().wait(6)  # the fault itself: three leases
    resume()
    set_value(run, "go", b"1")
    assert run.end().judgement.exit_code == 0, run.events
    assert run.all_of("node_lost") == []


def test_who_dies_while_etcd_is_suspended(
    start: Callable[..., LiveRun], suspended: Callable[[LiveRun], Callable[[], None]]
) -> None:
    """A node that has died meanwhile is taken for dead, though later; the others are not."""
    run = start(LONG, {"liveness": 2, "outage": 60})
    for node in "ab":
        run.await_event("wait_started", node=node)
    agent = read_pid(run.workspace("b"))
    assert agent is not None
    resume = suspended(run)
    os.kill(agent, signal.SIGKILL)
    threading.Event().wait(6)  # the fault itself: three leases
    resume()
    assert run.end().judgement.exit_code == 3, run.events
    assert [e.node for e in run.all_of("node_lost")] == ["b"]


def test_nothing_of_a_run_stays_on_the_labs_etcd(start: Callable[..., LiveRun], lab_etcd: EtcdProcess) -> None:
    """After the run its users, its role and all of its keys are gone from the lab's cluster."""
    run = start(PING_PONG.format(rounds=1), etcd=on_cluster([lab_etcd.url], PASSWORD))
    assert run.end().judgement.exit_code == 0
    token = str(post(lab_etcd, "/v3/auth/authenticate", {"name": "root", "password": PASSWORD})["token"])
    assert post(lab_etcd, "/v3/auth/user/list", {}, token=token)["users"] == ["root"]
    assert post(lab_etcd, "/v3/auth/role/list", {}, token=token)["roles"] == ["root"]
    everything = {"key": as_key("/"), "range_end": as_key(end_of("/")), "count_only": True}
    assert "count" not in post(lab_etcd, "/v3/kv/range", everything, token=token)
