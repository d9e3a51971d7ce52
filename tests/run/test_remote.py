"""The command lines that go to machines, through a real shell; and what comes back."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from testbed.run.remote import (
    MARK,
    agent_command,
    check,
    parse_answer,
    pauses,
    persist,
    python_command,
    quote_path,
    turned_away,
)  # fmt: skip

NASTY = [
    "plain",
    "with space",
    "quo'te",
    'dou"ble',
    "dol$lar",
    "back\\slash",
    "semi;colon",
    "star*",
    "new\nline",
    "-dash",
]


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What /bin/sh makes of it."""
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environment}
    return subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True, env=env, timeout=60, check=False)


def fake_agent(workspace: Path) -> None:
    """An archive that prints what it is called with."""
    (workspace / ".testbed").mkdir(parents=True)
    (workspace / ".testbed" / "agent-0.pyz").write_text("import sys; print(sys.argv)")


@pytest.mark.parametrize("name", NASTY)
def test_agent_command_in_any_folder(name: str, tmp_path: Path) -> None:
    """The agent is found in a workspace of whatever name, and gets its words."""
    workspace = tmp_path / name
    fake_agent(workspace)
    done = shell(agent_command(str(workspace), "collect --wait 0 10"))
    assert done.returncode == 0, done
    assert done.stdout.strip() == str([f"{workspace}/.testbed/agent-0.pyz", "collect", "--wait", "0", "10"])


@pytest.mark.parametrize("name", NASTY)
def test_agent_command_below_home(name: str, tmp_path: Path) -> None:
    """A workspace that begins with ~ is found below the home that the machine's shell knows."""
    fake_agent(tmp_path / name)
    done = shell(agent_command(f"~/{name}", "stop"), HOME=str(tmp_path))
    assert done.stdout.strip() == str([f"{tmp_path}/{name}/.testbed/agent-0.pyz", "stop"]), done


def test_no_agent(tmp_path: Path) -> None:
    """Where no agent is the answer says so, and in which folder."""
    done = shell(agent_command(str(tmp_path / "it's gone"), "stop"))
    found = parse_answer(done.stdout)
    assert done.returncode == 1
    assert found is not None
    assert found[0]["cause"] == "gone"
    assert "it's gone" in found[0]["reason"]


@pytest.mark.parametrize("interpreter", [sys.executable, "", "auto", "auto_silent", "auto_legacy"])
def test_interpreter(interpreter: str) -> None:
    """The inventory's Python is used; its words for `find one` find one."""
    done = shell(python_command("-c 'import sys; print(sys.executable)'", interpreter))
    assert done.returncode == 0, done
    if interpreter.startswith("/"):
        assert done.stdout.strip() == interpreter


@pytest.mark.parametrize("interpreter", NASTY)
def test_interpreter_with_a_difficult_path(interpreter: str, tmp_path: Path) -> None:
    """A Python at a path that a shell would tear apart is run all the same."""
    python = tmp_path / interpreter
    python.symlink_to(sys.executable)
    done = shell(python_command("-c 'print(7)'", str(python)))
    assert done.stdout.strip() == "7", done


def test_no_python(tmp_path: Path) -> None:
    """A machine without any Python answers with that cause."""
    done = shell(python_command("-c 'print(7)'", str(tmp_path / "none")))
    found = parse_answer(done.stdout)
    assert done.returncode == 1
    assert found is not None
    assert found[0]["cause"] == "no_python"
    assert str(tmp_path / "none") in found[0]["reason"]


def test_a_look_is_one_line(tmp_path: Path) -> None:
    """What a machine is asked comes on stdin, whose lines no login shell sees; it has no way to etcd and tells why."""
    command = python_command("-", sys.executable)
    assert "\n" not in command
    asked = check(str(tmp_path / "it's not\nthere"), ("127.0.0.1", 1))
    done = subprocess.run(["/bin/sh", "-c", command], input=asked, capture_output=True, timeout=60, check=True)
    found = parse_answer(done.stdout.decode())
    assert found is not None
    assert found[0]["folder"] == str(tmp_path)
    assert found[0]["writable"]
    assert found[0]["etcd"]


def test_old_python(tmp_path: Path) -> None:
    """A Python that is too old is passed over for one that is not."""
    for name, answer in (("python3", "exit 1"), ("python3.14", f'exec {shlex.quote(sys.executable)} "$@"')):
        script = tmp_path / name
        script.write_text(f"#!/bin/sh\n{answer}\n")
        script.chmod(0o755)
    done = shell(python_command("-c 'print(7)'"), PATH=f"{tmp_path}:/bin")
    assert done.stdout.strip() == "7", done


@pytest.mark.parametrize("path", ["~", "~/x", "~/it's", "/a b", "a"])
def test_quote_path(path: str, tmp_path: Path) -> None:
    """A path means to the shell what it says; only a leading ~ is the shell's."""
    done = shell(f"printf %s {quote_path(path)}", HOME=str(tmp_path))
    assert done.stdout == (str(tmp_path) + path[1:] if path.startswith("~") else path)


ANSWER = MARK + json.dumps({"ok": True})


@pytest.mark.parametrize(
    ("stdout", "found"),
    [
        (ANSWER, ({"ok": True}, "")),
        (f"Welcome!\nBECOME-SUCCESS-x\n{ANSWER}\nrest\nmore", ({"ok": True}, "rest\nmore")),
        (f"no line end{ANSWER}\r\n", ({"ok": True}, "")),
        ("nothing", None),
        ("", None),
        (f"{MARK}not json", None),
        (f"{MARK}[1]", None),
        (f"{MARK}", None),
    ],
)
def test_parse_answer(stdout: str, found: object) -> None:
    """The marked line is found in whatever a machine prints around it; anything else is no answer."""
    assert parse_answer(stdout) == found


NOT_SENT = 'Data could not be sent to remote host "10.0.0.1". Make sure this host can be reached over ssh: '


@pytest.mark.parametrize(
    ("said", "again"),
    [
        ("kex_exchange_identification: read: Connection reset by peer\r\nConnection reset by 10.0.0.1 port 22", True),
        (NOT_SENT + "kex_exchange_identification: Connection closed by remote host", True),
        ("Data could not be sent to remote host '10.0.0.1'. Make sure this host can be reached over SSH.", True),
        (NOT_SENT + "root@10.0.0.1: Permission denied (publickey).", False),
        (NOT_SENT + "Connection closed by 10.0.0.1 port 22", False),
        ("channel 0: open failed: connect failed: No route\r\nkex_exchange_identification: Connection closed", False),
        ("ssh: connect to host 10.0.0.1 port 22: Connection refused", False),
    ],
)  # fmt: skip
def test_turned_away(said: str, again: bool) -> None:
    """Only where a server has not listened at all, or nobody knows yet why, a connection is tried again."""
    assert turned_away(said) is again


def test_persistence_ends() -> None:
    """It is tried until it is done, or another failure comes, or the pauses are used up: the last failure tells."""

    def attempts(*outcomes: str) -> str:
        left = list(outcomes)

        def do() -> str:
            said = left.pop(0)
            if said.startswith("done"):
                return said
            raise ConnectionError(said)

        return persist(do, ConnectionError, lambda: iter((0.0, 0.0)))

    crowded = "kex_exchange_identification: "
    assert attempts("done at once") == "done at once"
    assert attempts(f"{crowded}1", f"{crowded}2", "done") == "done"
    with pytest.raises(ConnectionError, match="3"):
        attempts(f"{crowded}1", f"{crowded}2", f"{crowded}3", "done")
    with pytest.raises(ConnectionError, match="denied"):
        attempts(f"{crowded}1", "Permission denied", "done")


def test_pauses_end() -> None:
    """Pauses are short, and about half a minute in all."""
    taken = list(pauses())
    assert all(0.125 <= pause <= 4.0 for pause in taken)
    assert 15 < sum(taken) < 40
