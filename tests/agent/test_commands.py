"""The command `testbed` as scripts on a node use it."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.agent import words
from testbed.coord.memory import MemoryStore
from testbed.coord.scope import Scope
from tests.agent.conftest import PYTHON38
from tests.agent.machine import Machine, step
from tests.coord.etcd_process import EtcdProcess

SERVING = step("test", "main", "testbed wait finalise")


@pytest.fixture
def node(machine: Machine) -> Machine:
    """A node whose test goes on until the run finalises."""
    assert machine.start(machine.plan(SERVING))["ok"]
    machine.await_line("wait_started wait finalise")
    return machine


def call(machine: Machine, *arguments: str | bytes, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """The command `testbed` of that node, run to its end."""
    command = [machine.workspace.own("bin", "testbed"), *arguments]
    return subprocess.run(command, input=data, capture_output=True, cwd="/", timeout=60, check=False)


VALUES = {
    "plain": b"yes",
    "empty": b"",
    "nul and newlines": b"a\0b\n\nc\r\n\0",
    "not UTF-8": bytes(range(256)),
    "1 MiB": b"x" * (1 << 20),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_from_stdin(node: Machine, name: str) -> None:
    """Any bytes up to 1 MiB come out as they went in, with a line end only where there was none."""
    value = VALUES[name]
    assert call(node, "set", "k", "-", data=value).returncode == 0
    assert node.scope.get("k") == value
    out = call(node, "get", "k").stdout
    assert out == (value if value.endswith(b"\n") else value + b"\n")


def test_value_from_argument(node: Machine) -> None:
    """An argument is a value whatever it looks like and whatever its encoding."""
    for value in (b"--block", b"-5", b"\xff\xfe", "grün".encode()):
        assert call(node, "set", "k", value).returncode == 0
        assert node.scope.get("k") == value


def test_value_too_large(node: Machine) -> None:
    """One byte more than 1 MiB is refused with the limit's name."""
    done = call(node, "set", "k", "-", data=b"x" * ((1 << 20) + 1))
    assert done.returncode == words.USAGE
    assert b"1 MiB" in done.stderr
    assert node.scope.get("k") is None


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["get", "nope"], 1, "nope is not set"),
        (["get", "--block", "nope", "-t", "0.1s"], 4, "'nope' did not come within 0.1"),
        (["get"], 2, "too few arguments"),
        (["get", "a", "b"], 2, "too many arguments: 'b'"),
        (["get", "a", "-t", "5"], 2, "--timeout goes with --block"),
        (["get", "-b", "a", "-t", "soon"], 2, "not a time: 'soon'"),
        (["get", ""], 2, "must not be empty"),
        (["gte", "a"], 2, "no such word: 'gte'"),
        (["get", "--frob", "a"], 2, "--frob"),
        (["wait", "godot"], 2, "cannot wait for 'godot'"),
        ([], 2, "usage: testbed"),
    ],
)
def test_mistakes(node: Machine, arguments: list[str], code: int, says: str) -> None:
    """Every mistake has its exit code and is named on stderr alone."""
    done = call(node, *arguments)
    assert (done.returncode, done.stdout) == (code, b"")
    assert says in done.stderr.decode()


def test_help(node: Machine) -> None:
    """Help names every word; a word's help its options."""
    text = call(node, "--help").stdout.decode()
    assert all(word.synopsis in text for word in words.WORDS.values())
    assert "--timeout" in call(node, "get", "--help").stdout.decode()


def test_blocked_get_wakes(node: Machine) -> None:
    """A blocked get ends when somebody sets the key; everybody can see meanwhile what it waits for."""
    waiting = subprocess.Popen([node.workspace.own("bin", "testbed"), "get", "-b", "k"], stdout=subprocess.PIPE)
    node.await_line("wait_started get k")
    key = node.keys.waiting("n0", 1)
    node.scope.set("k", b"now")
    assert waiting.communicate(timeout=60)[0] == b"now\n"
    node.await_line("wait_ended met")
    node.scope.raise_flag("finalise", "enough")
    node.await_end()
    assert node.store.range(key).entries == ()


def test_killed_command_ends_its_wait(node: Machine) -> None:
    """When a waiting command dies, its wait is over and recorded as gone."""
    waiting = subprocess.Popen([node.workspace.own("bin", "testbed"), "get", "-b", "never"])
    node.await_line("wait_started get never")
    waiting.kill()
    waiting.wait()
    node.await_line("wait_ended gone")


def test_abort_ends_waits(machine: Machine) -> None:
    """An abort ends a blocked command with exit code 5, who and why."""
    hold = "trap '' TERM; mkfifo hold; testbed set up yes; read line < hold"  # the agent is not to go first
    assert machine.start(machine.plan(step("test", "main", hold)))["ok"]
    machine.await_line("set up")
    command = [machine.workspace.own("bin", "testbed"), "get", "-b", "never"]
    waiting = subprocess.Popen(command, stderr=subprocess.PIPE)
    machine.await_line("wait_started get never")
    machine.scope.raise_flag("abort", "the reactor is hot")
    assert b"aborted by controller: the reactor is hot" in waiting.communicate(timeout=60)[1]
    assert waiting.returncode == words.ABORTED
    (Path(machine.workspace.path) / "hold").write_text("go\n")


def test_many_wait_at_once(node: Machine) -> None:
    """A hundred blocked commands cost one watch and wake together."""
    command = [node.workspace.own("bin", "testbed"), "get", "-b", "k"]
    waiting = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(100)]
    wanted = 100
    for line in node.happenings():
        wanted -= line == "wait_started get k"
        if not wanted:
            break
    node.scope.set("k", b"go")
    assert {p.communicate(timeout=60)[0] for p in waiting} == {b"go\n"}


def test_agent_gone(node: Machine) -> None:
    """Where no agent answers any more the command says so and ends."""
    node.scope.raise_flag("finalise", "enough")
    node.await_end()
    done = call(node, "get", "k")
    assert done.returncode == words.NO_ETCD
    assert b"not there any more" in done.stderr


def test_garbage_on_the_socket(node: Machine) -> None:
    """What is no request is hung up on, and the agent goes on."""
    import os
    import socket

    for garbage in (b"GET / HTTP/1.1\r\n\r\n", b"-1 -1\n", b"9" * 100, b"1 0\n99999999999\n" + b"x" * 70000):
        here = Path.cwd()
        os.chdir(node.workspace.own())
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as knock:
            knock.connect("agent.sock")
            os.chdir(here)
            knock.settimeout(20)
            knock.sendall(garbage)
            knock.shutdown(socket.SHUT_WR)
            assert knock.recv(100) == b""
    assert call(node, "set", "k", "v").returncode == 0


@pytest.mark.parametrize(
    ("text", "value"), [("5", 5), ("1.5", 1.5), ("500ms", 0.5), ("60s", 60), ("1h30m", 5400), ("2d", 172800), ("0", 0)]
)
def test_times(text: str, value: float) -> None:
    """Times are seconds or have units."""
    assert words.seconds(text) == value


@pytest.mark.parametrize("text", ["", "-5", "5x", "m", "1h-3m", "1 m", "٣s", "nan", "inf", "1e3"])
def test_no_times(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(words.Usage):
        words.seconds(text)


def test_words_over_any_store() -> None:
    """The words need no agent: over a memory store they do the same."""
    store = MemoryStore()
    scope = Scope(store, "r", "controller")
    assert words.run(["set", "a", "1"], scope) == words.Reply()
    assert words.run(["get", "a"], scope).out == b"1\n"
    got: list[words.Reply] = []
    thread = threading.Thread(target=lambda: got.append(words.run(["get", "-b", "b"], scope)))
    thread.start()
    words.run(["set", "b", "-"], scope, words.Caller(b"2\n"))
    thread.join(30)
    assert got == [words.Reply(out=b"2\n")]
    assert words.run(["finalise"], scope).code == 0
    other = Scope(store, "r", "n")
    assert b"controller was first" in words.run(["finalise"], other).err
    other.close()
    scope.close()


def test_foreign_words_are_harmless() -> None:
    """What another node gave as its reason reaches nobody's terminal as more than text."""
    store = MemoryStore()
    scope = Scope(store, "r", "n")
    scope.raise_flag("abort", "red \x1b[31m \u202e\r over \udcff")
    for done in (words.run(["get", "-b", "k"], scope), words.run(["abort"], scope)):
        assert done.err.endswith(b": red  [31m    over \\udcff\n")
    scope.close()


def test_environment(machine: Machine) -> None:
    """Commands get run, node, peers and parameters by environment and as a file, and Python can import testbed."""
    script = """
        test "$TESTBED_NODE $TESTBED_INDEX $TESTBED_NODES" = "n0 0 n0 n1"
        test "$TESTBED_HOST_0 $TESTBED_HOST_1" = "127.0.0.1 192.0.2.7"
        test "$TESTBED_PARAM_STUDIES $TESTBED_PARAM_NAME $TESTBED_PARAM_LIST" = '3 a b ["x",{"y":null}]'
        test "$TESTBED_CONFIGURATION.$TESTBED_TARGET.$TESTBED_STEP" = a.test.main
        test "$PWD" = "$TESTBED_WORKSPACE"
        test -d "$TESTBED_REPORTS"
        grep -q 192.0.2.7 "$TESTBED_TOPOLOGY"
        test -z "$(cat)"
    """
    parameters = {"studies": 3, "name": "a b", "list": ["x", {"y": None}]}
    lines = machine.go(machine.plan(step("test", "main", script), parameters=parameters))
    assert lines[-1] == "node_ended passed", machine.output("a.test.main")


def test_no_settings_of_ansible(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the Ansible that starts an agent is told by environment stays its own; the rest of it reaches commands."""
    for name in ("ANSIBLE_STDOUT_CALLBACK", "AWX_ISOLATED_DATA_DIR", "RUNNER_OMIT_EVENTS", "RUNNER_TEMP"):
        monkeypatch.setenv(name, "foreign")
    machine.go(machine.plan(step("test", "main", "env | grep =foreign")))
    assert machine.output("a.test.main") == "RUNNER_TEMP=foreign\n"


@pytest.mark.skipif(not PYTHON38, reason="no Python 3.8 on this machine")
def test_oldest_python(shared_etcd: EtcdProcess, machines: Callable[..., Machine]) -> None:
    """All of it works on the oldest Python that Ansible takes on a node."""
    machine = machines(shared_etcd.url, python=PYTHON38)
    main = "testbed set k v; testbed get -b k; sleep 300 & testbed get -b never -t 0.1 || echo $?"
    steps = [
        step("test", "main", main),
        step("test", "post", "sleep 300", timeout=0.3),
        step("finalise", "main", "true"),
    ]
    lines = machine.go(machine.plan(*steps))
    assert machine.events()[0]["python"].startswith("3.8.")
    assert [line for line in lines if line.startswith("step_ended")] == [
        "step_ended a.test.main passed 0",
        "step_ended a.test.post timeout -15",
        "step_ended a.finalise.main passed 0",
    ]
    assert lines[-2:] == ["processes_stopped SIGTERM", "node_ended timeout"]
    assert machine.output("a.test.main").startswith("v\n4\n")
    assert "logs/a.test.main.out" in machine.collect()
    assert machine.ask("remove")[0]["ok"]
    assert list(machine.root.iterdir()) == []


def test_events_tell_how_much_was_written_by_then(machine: Machine) -> None:
    """Events of waits and values carry the sizes of the running step's logs, so that lines can be put in order."""
    script = "echo 1; testbed set a b; echo 22; echo e >&2; testbed get -b c >/dev/null; echo 333"
    assert machine.start(machine.plan(step("test", "main", script)))["ok"]
    machine.await_line("wait_started get c")
    machine.scope.set("c", b"")
    machine.await_line("step_ended a.test.main passed 0")
    told = [(e["event"], e["out"], e["err"]) for e in machine.events() if "out" in e]
    assert told[:3] == [("value_set", 2, 0), ("wait_started", 5, 2), ("wait_ended", 5, 2)]
    machine.scope.raise_flag("finalise", "over")
    machine.await_end()
