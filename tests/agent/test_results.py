"""Results come home, and machines are given back, whatever became of the agent."""

from __future__ import annotations

import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.agent.workspace import Workspace, is_held, read_pid, wait_free
from tests.agent.machine import LIMIT, Machine, step
from tests.coord.etcd_process import EtcdProcess, post

REPORTING = 'echo out; echo err >&2; mkdir "$TESTBED_REPORTS/sub"; echo r > "$TESTBED_REPORTS/sub/r.txt"'


def kill(machine: Machine) -> None:
    """Kill -9 the agent."""
    os.kill(read_pid(machine.workspace) or 0, signal.SIGKILL)
    machine.await_end()


def test_collect(machine: Machine) -> None:
    """Logs, reports and events come as one checked archive, in chunks of any size."""
    machine.go(machine.plan(step("test", "main", REPORTING)))
    files = machine.collect(chunk=100)
    assert files == machine.collect()
    assert files["logs/a.test.main.out"] == b"out\n"
    assert files["logs/a.test.main.err"] == b"err\n"
    assert files["reports/sub/r.txt"] == b"r\n"
    journal = [json.loads(line) for line in files["events.jsonl"].splitlines()]
    assert journal == machine.events()
    assert journal[-1]["event"] == "node_ended"


def test_remove(machine: Machine, request: pytest.FixtureRequest) -> None:
    """Removing leaves nothing: neither the workspace nor the folders made for it, however they were left."""
    mess = "mkdir -p d/e/g; touch d/e/f d/e/g/h; chmod 500 d/e/g d/e; chmod 0 d; ln -s / root; mkfifo p"
    if os.geteuid() == 0:  # whom permissions would not stop
        held = machine.root.with_name(f"{machine.root.name}-python")
        no_powers = "setpriv --bounding-set=-dac_override,-dac_read_search"
        held.write_text(f'#!/bin/sh\nexec {no_powers} {sys.executable} "$@"\n')
        held.chmod(0o700)
        machine.python = str(held)
        request.addfinalizer(held.unlink)
    machine.go(machine.plan(step("test", "main", mess)))
    assert machine.ask("remove")[0] == {
        "ok": True, "killed": False, "processes": [], "removed": machine.workspace.path,
    }  # fmt: skip
    assert list(machine.root.iterdir()) == []


@pytest.mark.parametrize("first", [0, 1])
def test_the_last_node_leaves_nothing(machine: Machine, first: int) -> None:
    """Of two nodes on a machine, whichever leaves last removes the folders that were made for the first."""
    homes = [machine.workspace, Workspace(str(Path(machine.workspace.path).with_name("n1")))]
    for index, home in enumerate(homes):
        plan = machine.plan(step("clean", "main", "true"), node=f"n{index}", index=index)
        assert machine.start(plan, workspace=home.path)["ok"]
        assert wait_free(home, LIMIT)
    for home in (homes[first], homes[1 - first]):
        assert (machine.root / "lab").exists()
        machine.workspace = home
        assert machine.ask("remove")[0]["ok"]
    assert list(machine.root.iterdir()) == []


def test_remove_spares_what_is_mounted(machine: Machine) -> None:
    """What is mounted inside a workspace is never deleted with it."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    precious = machine.root / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("all of it")
    machine.go(machine.plan(step("test", "main", f"mkdir m; mount --bind {precious} m")))
    try:
        answer, _ = machine.ask("remove")
        assert (answer["ok"], answer["advice"]) == (False, f"umount {machine.workspace.path}/m, then try again")
    finally:
        subprocess.run(["umount", f"{machine.workspace.path}/m"], check=True)
    assert (precious / "thesis.txt").exists()
    assert machine.ask("remove")[0]["ok"]


def test_remove_refuses_other_folders(machine: Machine) -> None:
    """An agent's archive deletes nothing that is not marked as its workspace."""
    machine.go(machine.plan(step("test", "main", "true")))
    Path(machine.workspace.marker).unlink()
    assert machine.ask("remove")[0]["ok"] is False
    assert Path(machine.workspace.logs).exists()


def test_agent_killed(machine: Machine) -> None:
    """After kill -9 of the agent the results come all the same, and what it left running is stopped."""
    script = f"{REPORTING}; setsid sleep 300 & testbed set ready yes; sleep 301"
    assert machine.start(machine.plan(step("test", "main", script)))["ok"]
    machine.await_line("set ready")
    kill(machine)
    assert machine.left() != []
    files = machine.collect()
    assert files["logs/a.test.main.out"] == b"out\n"
    assert files["reports/sub/r.txt"] == b"r\n"
    assert b"node_started" in files["events.jsonl"]
    assert machine.left() == []
    assert machine.ask("remove")[0]["ok"]
    assert list(machine.root.iterdir()) == []


def test_collect_ends_a_living_agent(machine: Machine) -> None:
    """Collecting from an agent that lives makes it finalise and end first."""
    steps = [step("test", "main", "testbed set ready yes; sleep 300"), step("finalise", "main", "echo bye")]
    assert machine.start(machine.plan(*steps))["ok"]
    machine.await_line("set ready")
    assert machine.collect()["logs/a.finalise.main.out"] == b"bye\n"
    assert not is_held(machine.workspace)
    assert machine.lines()[-1] == "node_ended aborted"
    flag = machine.scope.flag("abort")
    assert flag is not None
    assert "told to stop (SIGTERM)" in flag.why


def test_collect_waits_when_asked(machine: Machine) -> None:
    """With --wait an agent comes to its own end first."""
    assert machine.start(machine.plan(step("test", "main", "read line < /dev/null || sleep 1; echo done")))["ok"]
    assert machine.collect("--wait")["logs/a.test.main.out"] == b"done\n"
    assert machine.lines()[-1] == "node_ended passed"


def test_what_cannot_be_packed_is_named(machine: Machine) -> None:
    """Links out of the workspace, pipes and the like are left out and named; links inside travel as files."""
    script = 'cd "$TESTBED_REPORTS"; ln -s /etc/hostname out; echo x > x; ln -s x in; mkfifo pipe; ln -s gone dangling'
    lines = machine.go(machine.plan(step("test", "main", script)))
    files = machine.collect()
    assert {n for n in files if n.startswith("reports/")} == {"reports/x", "reports/in"}
    assert files["reports/in"] == b"x\n"
    left_out = json.loads(files["notes.json"])["left_out"]
    assert sorted(text.split(":")[0] for text in left_out) == ["reports/dangling", "reports/out", "reports/pipe"]
    assert any(line.startswith("notice 3 files are not among the results") for line in lines)


def test_full_disk_at_the_end(machine: Machine) -> None:
    """Results come home from a disk that a step has filled."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = machine.root / "lab"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], check=True)
    try:
        fill = "echo before; cat /dev/zero > filler || true; cat /dev/zero > filler2 || true"
        lines = machine.go(machine.plan(step("test", "main", fill)))
        told = "notice the results are not packed (No space left on device); collecting will try again"
        assert lines[-2:] == ["node_ended passed", told]
        files = machine.collect(chunk=300)
        assert files["logs/a.test.main.out"] == b"before\n"
        assert machine.ask("remove")[0]["ok"]
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_etcd_restarts(own_etcd: EtcdProcess, machines: Callable[..., Machine]) -> None:
    """An etcd that is killed and comes back costs nothing: the wait goes on, every event is there once, in order."""
    machine = machines(own_etcd.url)
    script = "testbed set ready yes; testbed get --block go; echo got"
    steps = [step("test", "main", script), *[step("publish", "main", "true", f"c{i}") for i in range(20)]]
    assert machine.start(machine.plan(*steps))["ok"]
    machine.await_line("wait_started get go")
    own_etcd.kill()
    own_etcd.start()
    machine.scope.set("go", b"1")
    machine.await_line("step_ended a.test.main passed 0")
    own_etcd.kill()
    own_etcd.start()
    machine.await_end()
    assert machine.lines()[-1] == "node_ended passed", machine.log()
    journal = [json.loads(line) for line in Path(machine.workspace.journal).read_text().splitlines()]
    assert machine.events() == journal


def test_etcd_lost(own_etcd: EtcdProcess, machines: Callable[..., Machine]) -> None:
    """Without etcd for longer than the plan bears the node finalises by itself and keeps its results."""
    machine = machines(own_etcd.url)
    steps = [step("test", "main", "testbed set ready yes; sleep 300"), step("finalise", "main", "echo bye")]
    assert machine.start(machine.plan(*steps, outage=3.0, liveness=4.0))["ok"]
    machine.await_line("set ready")
    own_etcd.kill()
    machine.await_end()
    files = machine.collect()
    assert files["logs/a.finalise.main.out"] == b"bye\n"
    ended = json.loads(files["events.jsonl"].splitlines()[-1])
    assert (ended["event"], ended["verdict"]) == ("node_ended", "error")
    assert "etcd was lost" in ended["reason"]


AWAY = """
echo ready > {folder}/over
read _ < {folder}/gate
try() {{
  word=$1; shift
  code=0; testbed $word -t 1 "$@" 2> {folder}/err.$word.$1 || code=$?
  echo "$word $code $(tr '\\n' ' ' < {folder}/err.$word.$1)"
}}
for words in "set k v" "unset k" "publish s m" "next n" "get -b k" "get --all -b j k" "barrier b" \\
    "subscribe --count 1 s" "service discover d" "lock l -- true" "wait finalise"; do
  try $words &
done
wait
echo over > {folder}/over
testbed lock -t 30 l -- echo held
testbed barrier --nodes n0 -t 30 b && echo met
"""
"""Each word that takes a time-out, while etcd does not answer; then those that might have left something in the way."""


def test_time_outs_hold_while_etcd_is_away(
    own_etcd: EtcdProcess, machines: Callable[..., Machine], tmp_path: Path
) -> None:
    """Whatever has a time-out ends by it although etcd does not answer, says so, and leaves nothing in the way."""
    os.mkfifo(tmp_path / "gate")
    os.mkfifo(tmp_path / "over")
    gate, over = (os.open(tmp_path / name, os.O_RDWR) for name in ("gate", "over"))
    machine = machines(own_etcd.url)
    plan = machine.plan(step("test", "main", AWAY.format(folder=tmp_path)), outage=60.0, liveness=60.0)
    assert machine.start(plan)["ok"]
    assert select.select([over], [], [], LIMIT)[0]
    assert os.read(over, 100) == b"ready\n"
    own_etcd.freeze()
    os.write(gate, b"go\n")
    came, _, _ = select.select([over], [], [], LIMIT)
    own_etcd.thaw()
    machine.await_end()
    os.close(gate)
    os.close(over)
    assert came
    lines = machine.collect()["logs/a.test.main.out"].decode().splitlines()
    assert lines[-2:] == ["held", "met"]
    ends = [line.split(" ", 2) for line in lines[:-2]]
    assert len(ends) == 11
    assert [line for line in ends if line[1] != "4" or "etcd does not answer" not in line[2]] == []


def test_shut_out(own_etcd: EtcdProcess, machines: Callable[..., Machine]) -> None:
    """A node whose user is deleted finalises, and says that the run has shut it out, not that etcd was lost."""
    for path, body in (
        ("user/add", {"name": "root", "password": "secret"}),
        ("user/add", {"name": "node", "password": "secret"}),
        ("role/add", {"name": "root"}),
        ("user/grant", {"user": "root", "role": "root"}),
        ("user/grant", {"user": "node", "role": "root"}),
        ("enable", {}),
    ):
        post(own_etcd, f"/v3/auth/{path}", body)
    machine = machines(own_etcd.url, user="root", password="secret")
    script = "testbed get --block go; sleep 300"
    plan = machine.plan(step("test", "main", script), step("finalise", "main", "echo bye"), liveness=2.0)
    assert machine.start(dataclasses.replace(plan, access=dataclasses.replace(machine.access, user="node")))["ok"]
    machine.await_line("wait_started get go")
    machine.store.client.call("/v3/auth/user/delete", {"name": "node"})
    machine.scope.set("go", b"yes")  # which it has to tell
    machine.await_end()
    files = machine.collect()
    assert files["logs/a.finalise.main.out"] == b"bye\n"
    ended = json.loads(files["events.jsonl"].splitlines()[-1])
    assert (ended["event"], ended["verdict"]) == ("node_ended", "error")
    assert ended["reason"].startswith("the run has shut this node out: it took it for dead, or is over")


def test_liveness(machine: Machine) -> None:
    """The node is seen alive exactly as long as its agent lives."""
    assert machine.start(machine.plan(step("test", "main", "testbed wait finalise")))["ok"]
    alive = machine.keys.alive("n0")
    assert machine.store.range(alive).entries[0].lease != 0
    machine.scope.raise_flag("finalise", "enough")
    machine.await_end()
    assert machine.store.range(alive).entries == ()


def test_memory(machine: Machine) -> None:
    """An agent with all its parts at work never needs 17 MB, on any Python."""
    script = "testbed set k v; testbed get -b k; cat /proc/$(cat $TESTBED_WORKSPACE/.testbed/agent.pid)/status"
    machine.go(machine.plan(step("test", "main", script)))
    (peak,) = (line for line in machine.output("a.test.main").splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 17 * 1024
