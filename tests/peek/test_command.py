"""The command ``testbed peek``, and what follows runs, against whole runs."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.cli.showing import Bytes, Lines, OneLive
from testbed.coord.chunks import Output
from testbed.errors import UsageError
from tests.cli.conftest import call, home, record
from tests.peek.blind import blind_python
from tests.run.conftest import LIMIT, Run, start

__all__ = ["call", "home", "record", "start"]

SPEC = """
deployment: shown
timeout: 5m
stall: off
configurations:
  talker:
    deploy: seq 100
    test:
      run: |
        echo "first of $TESTBED_NODE"; printf 'a\\033]0;title\\007b\\n'; echo broken >&2
        testbed get -b go; echo more; exit "$(testbed get code)"
    publish:
      ansible:
        - name: greet
          ansible.builtin.debug: {msg: good morning}
nodes:
  n: {configurations: [talker], count: 2}
"""


class Peeker:
    """One ``testbed peek`` as a process of its own."""

    def __init__(self, run: Run, *words: str, python: str = sys.executable, **environment: str) -> None:
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  closed by `end`
        self.process = subprocess.Popen(
            [python, "-m", "testbed", *words], env={**run.environment, **environment},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._said,
        )  # fmt: skip
        self._seen: list[bytes] = []

    def await_line(self, text: bytes) -> None:
        """Block until a line on stdout holds the text."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._seen.append(line)
            if text in line:
                return
        raise AssertionError((self._seen, self.end()))

    def end(self) -> tuple[int, bytes, str]:
        """Exit code, all of stdout, and stderr."""
        assert self.process.stdout is not None
        with self.process.stdout as stdout, self._said as said:
            out = b"".join(self._seen) + stdout.read()
            code = self.process.wait(LIMIT)
            said.seek(0)
            return code, out, said.read().decode()


@pytest.fixture
def begun(start: Callable[..., Run], tmp_path: Path) -> Callable[..., Run]:
    """Start a run of two nodes that talk, with the options; returns when both wait for the value `go`."""

    def begin(*options: str) -> Run:
        spec = tmp_path / "shown.yml"
        spec.write_text(SPEC)
        run = start(spec, *options)
        run.await_line("waits: get go", 2)
        return run

    return begin


def let_go(run: Run, code: str) -> None:
    """Let the nodes' step end with that exit code."""
    for key, value in (("code", code), ("go", "now")):
        assert run.testbed("set", "--run", run.name, key, value).returncode == 0


def test_peek_while_it_runs_and_after(begun: Callable[..., Run], tmp_path: Path) -> None:
    """Lines of several nodes come with node and step while they are written; the same words read the archive later."""
    run = begun()
    words = ("peek", run.name, "--from-start", "--step", "test.main")
    both = Peeker(run, *words)
    both.await_line(b"first of n-0")
    found = Peeker(run, *words, "--grep", "first|more", "--stdout")
    file = tmp_path / "bytes"
    whole = Peeker(run, *words, "n-0", "-f", str(file))
    access = tmp_path / "access.json"
    access.write_bytes(run.access.read_bytes())
    elsewhere = Peeker(run, *words, "n-1", "--access", str(access), TESTBED_STATE_HOME=str(tmp_path / "other"))
    elsewhere.await_line(b"first of n-1")
    found.await_line(b"first of")
    let_go(run, "0")
    code, out, err = both.end()
    assert (code, "n-0: talker.test.main passed, exit code 0" in err) == (0, True)
    lines = out.decode().splitlines()
    assert [line for line in lines if line.startswith("n-0 talker.test.main | ")] == [
        f"n-0 talker.test.main | {text}" for text in ("first of n-0", "ab", "now", "more")
    ]
    assert "n-1 talker.test.main ! broken" in lines
    assert {line.partition("| ")[2] for line in found.end()[1].decode().splitlines()} == {
        "first of n-0", "first of n-1", "more",
    }  # fmt: skip
    _, out, err = elsewhere.end()
    assert b"more\n" in out
    assert "exit code 0" in err
    assert whole.end()[0] == 0
    assert run.end()[0] == 0
    log = run.path / "nodes" / "n-0" / "logs" / "talker.test.main.out"
    assert file.read_bytes() == log.read_bytes()
    assert file.with_name("bytes.err").read_bytes() == b"broken\n"
    code, out, err = Peeker(run, *words).end()
    assert (code, sorted(out.decode().splitlines())) == (0, sorted(lines))
    assert "n-1: talker.test.main passed, exit code 0" in err
    _, out, _ = Peeker(run, "peek", run.name, "n-0", "--step", "deploy", "--lines", "2").end()
    assert out == b"99\n100\n"
    _, out, _ = Peeker(run, "peek", run.name, "n-0", "--step", "deploy", "--stdout", "--offset", "286").end()
    assert out == log.with_name("talker.deploy.main.out").read_bytes()[286:]


def test_following_a_run(begun: Callable[..., Run]) -> None:
    """With --follow every line of every step is on stderr, Ansible's too, and the failed step ends it as ever."""
    run = begun("--follow")
    run.await_line("first of", 2)
    let_go(run, "3")
    assert run.end()[0] == 1
    for node in ("n-0", "n-1"):
        mine = [line.partition(" | ")[2] for line in run.lines if line.startswith(f"{node} talker.") and " | " in line]
        assert mine[:100] == [str(n) for n in range(1, 101)]
        assert mine[100:103] == [f"first of {node}", "ab", "now"]
    run.check_nothing_left()


def test_ansible_steps_are_shown_task_by_task(begun: Callable[..., Run]) -> None:
    """What Ansible says of each task is seen as the step's output, and the logs' follower shows all steps."""
    run = begun()
    peeker = Peeker(run, "peek", run.name, "n-0", "--step", "publish")
    follower = Peeker(run, "logs", run.name, "n-0", "--follow")
    follower.await_line(b"first of n-0")
    let_go(run, "0")
    peeker.await_line(b"TASK [greet]")
    peeker.await_line(b"good morning")
    _, out, _ = follower.end()
    code, _, err = peeker.end()
    assert (code, err.count("==> n-0 talker.publish.main <==")) == (0, 1)
    assert run.end()[0] == 0
    logs = run.path / "nodes" / "n-0" / "logs"
    for name in ("deploy.main.out", "test.main.out", "publish.main.out"):
        assert (logs / f"talker.{name}").read_bytes() in out.replace(b"broken\n", b"")


def test_nodes_that_do_not_answer(begun: Callable[..., Run]) -> None:
    """Of a node whose agent stands still that is said, and -T bounds how long it, and its logs, are waited for."""
    run = begun()
    os.kill(run.pid_of_agent("n-0"), signal.SIGSTOP)
    code, out, err = Peeker(run, "peek", run.name, "n-0", "-T", "1").end()
    assert (code, out) == (3, b"")
    assert "n-0: does not answer; waited for 1 s" in err
    assert "its logs are not home" in err
    assert run.process.poll() is None
    os.kill(run.pid_of_agent("n-0"), signal.SIGCONT)
    let_go(run, "0")
    assert run.end()[0] == 0


def test_followers_on_a_machine_without_inotify(begun: Callable[..., Run], tmp_path: Path) -> None:
    """Who follows where the kernel does not tell that files change sees all of it too, to the end."""
    run = begun()
    follower = Peeker(run, "logs", run.name, "n-0", "--follow", python=blind_python(tmp_path))
    follower.await_line(b"first of n-0")
    let_go(run, "0")
    code, out, err = follower.end()
    assert run.end()[0] == 0
    assert (code, "Traceback" in err) == (0, False), err
    logs = run.path / "nodes" / "n-0" / "logs"
    for name in ("deploy.main.out", "test.main.out", "publish.main.out"):
        assert (logs / f"talker.{name}").read_bytes() in out.replace(b"broken\n", b"")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--lines", "3", "--from-start"), "do not go together"),
        (("--stdout", "--stderr"), "do not go together"),
        (("--offset", "3"), "--offset is a place in one step"),
        (("--grep", "("), "--grep"),
        (("nobody",), "no node `nobody`"),
        (("--step", "tset"), "no step is called `tset`"),
        (("-H", "127.0.0.1"), "no user of the etcd at http://127.0.0.1:2379 is known"),
        (("-H", "127.0.0.1", "-U", "me"), "give --password-file"),
    ],
)
def test_mistakes(
    record: Callable[..., object], call: Callable[..., object], words: tuple[str, ...], said: str
) -> None:
    """A mistake of the user is said in a sentence, with exit code 2."""
    record("pass")
    result = call("peek", "last", *words)
    assert result.exit_code == 2, result.output  # type: ignore[attr-defined]
    assert said in result.output  # type: ignore[attr-defined]


def test_a_file_that_cannot_be_written() -> None:
    """A file that cannot be written is told as the user's, with the reason."""
    shown = Bytes(Path("/nowhere/log"), 1, 1)
    with pytest.raises(UsageError, match="written to /nowhere/log: No such file"):
        shown("n", Output("a.test.main", "out", 0, b"x"))


def test_lines_are_harmless() -> None:
    """Escapes, broken UTF-8, bars of progress and endless lines are shown as lines that drive no terminal."""
    out = io.BytesIO()
    lines = Lines(out, ("n",), colour=False, raw=False, grep=None)
    for data in (b"1%\r", b"50%\r10", b"0%\r\nred \x1b[31", b"mtext\xff\n", b"x" * 200_000, b"\nlast"):
        lines("n", Output("a.test.main", "out", 0, data))
    lines.close()
    shown = out.getvalue().decode().split("\n")
    assert shown[:3] == ["50%", "100%", "red text\ufffd"]
    assert "".join(shown[3:-2]) == "x" * 200_000
    assert shown[-2:] == ["last", ""]


def test_a_line_without_an_end_is_shown_on_a_terminal() -> None:
    """Of one node on a terminal the line that is being written is seen, and bars of progress are drawn over."""
    out = io.BytesIO()
    lines = OneLive(out, "n")

    def shown(data: bytes, stream: str = "out") -> bytes:
        before = out.tell()
        lines("n", Output("a.test.main", stream, 0, data))
        return out.getvalue()[before:]

    assert shown(b"one\nPassword: ") == b"one\nPassword: "
    assert shown(b"given") == b"given"
    assert shown(b"oops\nwhy", "err") == b"\noops\nwhy"
    assert shown(b"\n") == b"\nPassword: given\n"
    assert shown(b" now\n", "err") == b"why now\n"
    assert shown(b"1%\r") == b"1%"
    assert shown(b"50%\r10") == b"\r\x1b[K10"
    assert shown(b"0%\r\nred \x1b[31") == b"0%\nred 31"
    assert shown(b"m\x1b[2Jtext\xff") == b"\r\x1b[Kred text\xef\xbf\xbd"
    assert shown(b"x" * 200_000).count(b"\n") == 3
    assert shown(b"\n") == b"\n"
    shown(b"last")
    lines.close()
    assert out.getvalue().endswith(b"last\n")
