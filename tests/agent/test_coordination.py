"""Two nodes as real processes that meet by every word, from scripts and from Python."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.agent.plan import Plan
from testbed.coord.store import Span
from tests.agent.conftest import PYTHON38
from tests.agent.machine import Machine, step
from tests.coord.etcd_process import EtcdProcess

Pair = tuple[Machine, Machine]


@pytest.fixture(params=["this", "oldest"])
def pair(request: pytest.FixtureRequest, shared_etcd: EtcdProcess, machines: Callable[..., Machine]) -> Pair:
    """Two machines of one run, on this Python and on the oldest that nodes may have."""
    if request.param == "oldest" and not PYTHON38:
        pytest.skip("no Python 3.8 on this machine")
    python = sys.executable if request.param == "this" else PYTHON38
    first = machines(shared_etcd.url, python=python)
    second = machines(shared_etcd.url, python=python)
    second.rename(first.run)
    return first, second


def plans(pair: Pair, first: str, second: str) -> tuple[Plan, Plan]:
    """A script for each of the two; the run ends when both are through."""
    made = []
    for index, (machine, script) in enumerate(zip(pair, (first, second), strict=True)):
        done = f"{script}\ntestbed barrier done -t 30\n"
        plan = machine.plan(step("test", "main", done), node=f"n{index}", index=index, finalise="n0")
        made.append(plan)
    return made[0], made[1]


def go(pair: Pair, first: str, second: str) -> tuple[str, str]:
    """Run a script on each; what they wrote, if both passed."""
    for machine, plan in zip(pair, plans(pair, first, second), strict=True):
        assert machine.start(plan)["ok"]
    for machine in pair:
        machine.await_end()
    written = tuple(machine.output("a.test.main") for machine in pair)
    ends = {event["node"]: event["verdict"] for event in all_events(pair[0]) if event["event"] == "node_ended"}
    assert ends == {"n0": "passed", "n1": "passed"}, written
    return written[0], written[1]


def all_events(machine: Machine) -> list[dict[str, object]]:
    """The events of both nodes."""
    prefix = machine.keys.events
    return [json.loads(entry.value) for entry in machine.store.range(prefix, prefix + "~").entries]


def test_every_word_from_scripts(pair: Pair) -> None:
    """Values, sequences, streams, services and barriers do between two nodes what they say."""
    first = """
        testbed whoami; testbed nodes; testbed hosts
        testbed barrier begin
        testbed service publish --port 80 web
        testbed publish log one; printf two | testbed publish log -
        testbed get -b --value green light
        testbed get -b --any nothing light
        testbed subscribe --count 3 log
        testbed next s >&2; testbed next s >&2
    """
    second = """
        testbed barrier begin
        testbed set light red; testbed set light green; testbed set flag
        testbed publish log three
        testbed service discover web
        testbed get --all flag light; testbed keys; testbed unset flag; testbed get flag || echo $?
    """
    one, two = go(pair, first, second)
    assert one.startswith("n0\nn0\nn1\n127.0.0.1 n0\n192.0.2.7 n1\ngreen\nlight green\n")
    assert sorted(re.findall("one|two|three", one)) == ["one", "three", "two"]
    assert one.index("one") < one.index("two")
    assert one.endswith("0\n1\n")
    expected = "127.0.0.1 80 n0\n\ngreen\nflag\nhost_0\nhost_1\nlight\n1\ntestbed get: flag is not set\n"
    assert two == expected


def test_a_lock_excludes_and_passes_on_exit_codes(pair: Pair) -> None:
    """Two nodes that add to one file under a lock lose nothing of each other; the exit code is the command's."""
    shared = pair[0].root / "count"
    shared.write_text("0")
    add = f"""
        for turn in 1 2 3 4 5; do
            testbed lock l -- sh -c 'n=$(cat {shared}); test $TESTBED_LOCK_TOKEN -gt 0; echo $((n + 1)) > {shared}'
        done
        testbed lock l -- sh -c 'exit 7' || echo "code $?"
        testbed lock l -- /no/such/program || echo "code $?"
        cd /; testbed lock l -- pwd
    """
    for written in go(pair, add, add):
        assert written.startswith("code 7\ncode 127\n/\n")
    assert shared.read_text() == "10\n"


def test_first_words_at_once(pair: Pair) -> None:
    """Words that a node's scripts say for the first time, and all at one instant, are all understood."""
    script = """
        for n in 1 2 3 4 5 6 7 8; do
            testbed lock l$n -- echo held &
            testbed publish t$n x || echo lost &
        done
        wait
    """
    assert go(pair, script, script) == (8 * "held\n", 8 * "held\n")


def test_a_killed_holder_frees_the_lock(pair: Pair) -> None:
    """A lock is held for as long as its command lives, and free when that is killed."""
    first = """
        testbed lock l -- sh -c 'testbed set held yes; exec sleep 300' & holder=$!
        testbed get -b --value yes held
        testbed get -b waiting
        kill -9 $holder
    """
    second = """
        testbed get -b held
        testbed lock -t 0 l -- true || echo "code $?"
        testbed set waiting yes
        testbed lock -t 30 l -- echo mine
    """
    _, two = go(pair, first, second)
    assert "code 4\nmine\n" in two
    assert "the lock 'l' did not get free" in two
    assert "held by: n0\n  n0: is in a.test.main since" in two


def test_a_time_out_says_what_the_others_do(pair: Pair) -> None:
    """At a barrier's time-out the message names who is missing, its step, its wait, and the last line of its log."""
    first = "testbed get -b go; testbed barrier -t 3 meet || echo code $?; testbed set on yes"
    second = "echo 'sending 3 of 20'; testbed set go yes; testbed get -b on"
    one, _ = go(pair, first, second)
    assert "code 4" in one
    assert "the barrier 'meet' did not open within 3 s; arrived: n0; missing: n1" in one
    (line,) = [line for line in one.splitlines() if line.startswith("  n1: ")]
    assert re.search(r"is in a\.test\.main since \d+ s", line), line
    assert re.search(r'; waits since \d s: get on; its log ends with "sending 3 of 20"', line), line


def test_a_node_that_has_ended_breaks_the_barrier(pair: Pair) -> None:
    """Who waits at a barrier for a node that has ended fails at once with its name."""
    first, second = pair
    waiting = first.plan(step("test", "main", "testbed barrier meet || echo code $?"))
    assert first.start(waiting)["ok"]
    first.await_line("wait_started barrier meet")
    clean = step("clean", "main", "true")  # nothing but clean: it does not wait for the run's end
    assert second.start(second.plan(clean, node="n1", index=1, finalise="explicit"))["ok"]
    second.await_end()
    first.await_end()
    assert "code 1" in first.output("a.test.main")
    assert "the barrier 'meet' can never open: n1 has ended (passed)" in first.output("a.test.main")


PROGRAM = """
import sys
from testbed.coord import Scope
from testbed.coord.waiting import WaitTimeout

with Scope.here() as scope:
    assert scope.whoami()["name"] == "n0", scope.whoami()
    assert [node["name"] for node in scope.nodes()] == ["n0", "n1"]
    scope.set("bytes", bytes(range(256)))
    assert scope.get("bytes") == bytes(range(256)) and scope.get("none") is None
    scope.set("text", "gr\\u00fcn")
    assert scope.wait_all(["text", "bytes"]) == ["gr\\u00fcn".encode(), bytes(range(256))]
    scope.wait_value("bytes", bytes(range(256)), timeout=20)
    assert scope.wait_any(["none", "text"]) == ("text", "gr\\u00fcn".encode())
    scope.unset("text")
    assert scope.keys("b") == ["bytes"]
    assert [scope.next("s"), scope.next("s")] == [0, 1]
    with scope.lock("l", timeout=20) as token:
        assert token > 0
        try:
            with scope.lock("l", timeout=0.1):
                raise AssertionError("two at a time")
        except WaitTimeout as late:
            assert "did not get free" in str(late)
    with scope.lock("l", timeout=20):
        pass
    for message in (b"", b"two\\n"):
        scope.publish("t", message)
    assert list(scope.subscribe("t", count=2)) == [b"", b"two\\n"]
    scope.publish_service("web", 80)
    assert scope.discover("web").port == 80
    scope.barrier("b", count=1)
    try:
        scope.set("", b"")
        raise AssertionError("an empty key")
    except ValueError as wrong:
        assert "empty" in str(wrong)
    scope.finalise()
    scope.wait_finalise(timeout=20)
print("python", sys.version_info[:2])
"""


def test_from_python(pair: Pair) -> None:
    """A target's program imports Scope from the agent's archive and has all words as methods."""
    machine = pair[0]
    script = f"{machine.python} - <<'END'\n{PROGRAM}END"
    lines = machine.go(machine.plan(step("test", "main", script)))
    assert lines[-1] == "node_ended passed", machine.output("a.test.main")
    assert machine.output("a.test.main").startswith("python (3, ")


def test_the_documented_program(machine: Machine) -> None:
    """The program in the documentation runs as it stands there."""
    page = (Path(__file__).parents[2] / "docs/coordination.md").read_text("utf-8")
    program = page.partition("```python\n")[2].partition("```")[0]
    script = f"{machine.python} - <<'END'\n{program}END"
    lines = machine.go(machine.plan(step("test", "main", script)))
    assert lines[-1] == "node_ended passed", machine.output("a.test.main")
    assert machine.output("a.test.main") == "n0 has shard 0\n"


def test_what_a_wait_tells(machine: Machine) -> None:
    """While a command blocks, etcd says what it waits for, as documented."""
    serving = step("test", "main", "testbed wait finalise")
    assert machine.start(machine.plan(serving))["ok"]
    machine.await_line("wait_started wait finalise")
    command = [machine.workspace.own("bin", "testbed"), "barrier", "meet", "--nodes", "n0,n1", "-t", "50"]
    waiting = subprocess.Popen(command)
    machine.await_line("wait_started barrier meet")
    watch = machine.store.watch([Span(machine.keys.waiting("n0", 1), revision=1)])
    told = next(json.loads(change.value) for batch in watch for change in batch if change.value is not None)
    watch.close()
    assert told["until"] - told["since"] == pytest.approx(50)
    members = {name: told[name] for name in ("what", "names", "generation", "participants", "count")}
    assert members == {
        "what": "barrier", "names": ["meet"], "generation": 0, "participants": ["n0", "n1"], "count": None,
    }  # fmt: skip
    waiting.kill()  # nobody knows whether the agent, which the abort ends, would be the first to go
    waiting.wait()
    machine.scope.raise_flag("abort", "enough")
