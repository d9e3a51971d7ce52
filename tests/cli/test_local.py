"""Local scopes: nodes that are played by hand in terminals of this machine."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.agent.plan import Access
from testbed.coord.gateway import connect
from testbed.coord.keys import RunKeys, end_of
from testbed.coord.store import Span
from testbed.run import local

TESTBED = Path(sys.executable).parent / "testbed"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory of the test's own; no scope is up in it afterwards."""
    monkeypatch.setenv("TESTBED_STATE_HOME", str(tmp_path / "state"))
    yield tmp_path / "state"
    for scope in local.registered():
        local.teardown(scope.run)


def testbed(*words: str, **more: object) -> subprocess.CompletedProcess[str]:
    """The command, run to its end."""
    return subprocess.run([TESTBED, *words], capture_output=True, text=True, timeout=60, check=False, **more)  # type: ignore[call-overload, no-any-return]


testbed.__test__ = False  # type: ignore[attr-defined]


def terminal(text: str, node: str, script: str) -> subprocess.Popen[str]:
    """A terminal that was given a node's line, and a script in it."""
    (line,) = [line for line in text.splitlines() if line.startswith("export ") and f"TESTBED_NODE={node} " in line]
    command = f"{line}\nPATH={TESTBED.parent}:$PATH\nset -e\n{script}"
    return subprocess.Popen(["/bin/sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def processes_of(path: Path) -> list[str]:
    """Command lines of living processes that name the path."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                here = str((entry / "cwd").readlink())
            except OSError:
                continue
            if str(path) in line or here.startswith(str(path)):
                found.append(line)
    return found


def test_scripts_by_hand(home: Path, tmp_path: Path) -> None:
    """Scripts in terminals meet as nodes do; a word with --uuid pokes from outside; teardown leaves nothing."""
    file = tmp_path / "nodes.sh"
    made = testbed("local-setup", "2", "-o", str(file))
    assert (made.returncode, made.stderr) == (0, "")
    run = made.stdout.strip()
    text = file.read_text("utf-8")
    first = terminal(
        text,
        "node-0",
        'testbed get -b go; testbed barrier b -t 50; cat > "$TESTBED_REPORTS/x" </dev/null; testbed hosts',
    )
    program = (
        "from testbed.coord import Scope\nwith Scope.here() as s: s.barrier('b', timeout=50); print(s.whoami()['name'])"
    )
    second = terminal(text, "node-1", f'{sys.executable} -c "{program}"; testbed lock l -- echo "$TESTBED_INDEX"')
    assert testbed("set", "--uuid", run, "go", "now").returncode == 0
    assert first.communicate(timeout=60)[0] == "now\n127.0.0.1 node-0\n127.0.0.1 node-1\n"
    assert second.communicate(timeout=60)[0] == "node-1\n1\n"
    assert (first.returncode, second.returncode) == (0, 0)
    assert testbed("get", "--uuid", run[:-2], "host_1").stdout == "127.0.0.1\n"
    assert testbed("whoami", "--uuid", run).stdout == "controller\n"
    assert processes_of(home)
    gone = testbed("local-teardown", run)
    assert (gone.returncode, gone.stdout) == (0, f"local scope {run} is gone\n")
    assert processes_of(home) == []
    assert list((home / "local").iterdir()) == []
    late = terminal(text, "node-0", "testbed get go")
    assert "is gone" in late.communicate(timeout=60)[0]
    assert late.returncode == 2


def test_a_time_out_tells_what_the_others_wait_for(home: Path) -> None:
    """Who waits in vain is told what the node in the other terminal waits for; what waits no more is not told."""
    text = testbed("local-setup", "2").stdout
    (run,) = [scope.run for scope in local.registered()]
    place = local.find(run)
    assert place is not None
    access = Access(**json.loads(place.file(local.BY_HAND).read_text())["access"])
    prefix = RunKeys(run).waiting("node-0", "")
    with contextlib.closing(connect(access)) as store:
        watch = store.watch([Span(prefix, end_of(prefix))])
        first = terminal(text, "node-0", "testbed get -b go; testbed set went yes")
        told = iter(watch)
        assert json.loads(next(told)[0].value or b"")["names"] == ["go"]
        second = terminal(text, "node-1", "testbed barrier -t 1 b || testbed set go yes; testbed get -b went")
        said = second.communicate(timeout=60)[0]
        assert "missing: node-0" in said
        assert re.search(r"node-0: is played by hand; waits since \d+ s: get go", said), said
        assert next(told)[0].value is None
        assert first.communicate(timeout=60)[0] == "yes\n"
        watch.close()
    assert home.exists()


def test_several_scopes_and_secrets(home: Path) -> None:
    """Scopes know nothing of each other; passwords are in files for their owner alone, and on no screen."""
    texts = [testbed("local-setup", "1").stdout for _ in range(2)]
    scopes = local.registered()
    assert len(scopes) == 2
    assert testbed("set", "--uuid", scopes[0].run, "k", "v").returncode == 0
    assert testbed("get", "--uuid", scopes[1].run, "k").returncode == 1
    for scope in scopes:
        assert stat.S_IMODE(scope.path.stat().st_mode) == 0o700
        told = json.loads(scope.file("node-0").read_text("utf-8"))
        assert stat.S_IMODE(scope.file("node-0").stat().st_mode) == 0o600
        assert told["access"]["password"] not in "".join(texts)
        assert all(told["access"]["password"] not in line for line in processes_of(home))


def test_an_unused_scope_ends_by_itself(home: Path) -> None:
    """Where nothing has been written for long enough, server, holder and files go."""
    scope = local.setup(1, unused=3.0)
    with scope.lock.open("r+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until its holder has ended
    assert not scope.path.exists()
    assert processes_of(home) == []


@pytest.mark.usefixtures("home")
def test_a_killed_holder_is_cleared_away() -> None:
    """A scope whose holder was killed has no server any more, and teardown removes its files."""
    scope = local.setup(1)
    with scope.lock.open("r+b") as lock:
        os.kill(int(lock.read()), 9)
        fcntl.flock(lock, fcntl.LOCK_EX)
    assert testbed("local-teardown", scope.run).returncode == 0
    assert not scope.path.exists()


@pytest.mark.parametrize(
    "words",
    [("local-setup", "0"), ("local-setup", "101"), ("local-teardown", "local-no"), ("get", "--uuid", "local-x", "k")],
)
def test_mistakes(home: Path, words: tuple[str, ...]) -> None:
    """What cannot be is told in a sentence, and nothing is made."""
    done = testbed(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert not (home / "local").exists() or list((home / "local").iterdir()) == []


@pytest.mark.usefixtures("home")
def test_endless_input() -> None:
    """An input without end is refused for the value's limit, once one byte more than that was read."""
    run = re.findall(r"local-\S+", testbed("local-setup", "1").stdout)[0]
    with Path("/dev/zero").open("rb") as endless:
        done = testbed("set", "--uuid", run, "k", "-", stdin=endless)
    assert done.returncode == 2
    assert "the value of 'k' holds 1048577 bytes; the limit is 1048576 bytes" in done.stderr
