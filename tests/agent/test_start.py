"""How an agent starts, and what is said and left behind when it cannot."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from testbed.agent import archive, boot
from testbed.agent.plan import to_json
from testbed.agent.workspace import is_held, read_pid
from testbed.etcd.certificates import Authority
from tests.agent.machine import Machine, member, step, tarball
from tests.coord.etcd_process import DISTRO, start_server

HELLO = step("test", "main", "echo hello")


def test_answer(machine: Machine) -> None:
    """A started agent says where and what it is, over one line, and holds no end of the connection."""
    answer = machine.start(machine.plan(step("test", "main", "testbed wait finalise")))
    assert answer["ok"] is True
    assert answer["workspace"] == machine.workspace.path
    assert answer["pid"] == read_pid(machine.workspace)
    assert answer["host"] == os.uname().nodename
    assert answer["python"] == ".".join(map(str, sys.version_info[:3]))
    assert is_held(machine.workspace)
    machine.scope.raise_flag("finalise", "enough")
    machine.await_end()
    assert machine.scope.get("host_0") == b"127.0.0.1"


def test_bootstrap_is_harmless_to_shells() -> None:
    """The command that travels needs no quoting beyond one pair of quotes, and is short."""
    assert not set(archive.BOOTSTRAP) & set("'\\$`!\n")
    assert len(archive.BOOTSTRAP) < 200


def digest_elsewhere(cache: Path) -> str:
    """The agent's digest as another process tells it that keeps what it makes in ``cache``."""
    code = "from testbed.agent import archive; print(archive.build()[1])"
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_archive_is_kept(tmp_path: Path) -> None:
    """What was made once is read again, unless it is damaged or anybody else could have written it."""
    digest = digest_elsewhere(tmp_path)
    (kept,) = (tmp_path / "testbed").iterdir()
    made = kept.stat()
    assert made.st_mode & 0o777 == 0o600
    assert digest_elsewhere(tmp_path) == digest
    assert kept.stat().st_ino == made.st_ino
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    assert digest_elsewhere(tmp_path) == digest
    assert kept.stat().st_ino != made.st_ino
    kept.chmod(0o666)
    assert digest_elsewhere(tmp_path) == digest
    assert kept.stat().st_mode & 0o777 == 0o600
    (tmp_path / "file").write_text("")
    assert digest_elsewhere(tmp_path / "file") == digest


def test_archive_is_deterministic(tmp_path: Path) -> None:
    """The same sources give the same bytes, in another process too, so that a content hash means something."""
    data, digest = archive.build()
    assert hashlib.sha256(data).hexdigest() == digest
    assert digest_elsewhere(tmp_path) == digest
    names = zipfile.ZipFile(io.BytesIO(data)).namelist()
    assert "testbed/agent/node.py" in names
    assert not [n for n in names if "memory" in n or "archive" in n]


def test_secrets_stay_in_memory(machine: Machine) -> None:
    """What the plan holds of secrets is in no file, argument or environment of the node."""
    secret = "s3cr3t-of-this-test"
    access = dataclasses.replace(machine.access, password=secret, key=secret)
    show = "env; cat /proc/$PPID/cmdline /proc/$PPID/environ | tr '\\0' '\\n'; grep -r s3cr3 . || true"
    machine.go(machine.plan(step("test", "main", show), access=access))
    for folder, _, names in os.walk(machine.root):
        for name in names:
            assert secret.encode() not in (Path(folder) / name).read_bytes(), name
    assert "TESTBED_NODE=n0" in machine.output("a.test.main")


def test_workspace_is_private(machine: Machine) -> None:
    """Nobody else may look into a workspace."""
    machine.go(machine.plan(HELLO))
    assert stat.S_IMODE(Path(machine.workspace.path).stat().st_mode) == 0o700


def test_second_start_is_refused(machine: Machine) -> None:
    """A workspace in which an agent lives is left alone, and that agent goes on."""
    plan = machine.plan(step("test", "main", "testbed wait finalise"))
    pid = machine.start(plan)["pid"]
    answer = machine.start(plan)
    assert (answer["ok"], answer["cause"]) == (False, "busy")
    assert str(pid) in answer["reason"]
    machine.scope.raise_flag("finalise", "enough")
    machine.await_end()
    assert machine.lines()[-1] == "node_ended passed"


def test_node_starts_once_in_a_run(machine: Machine) -> None:
    """A second agent for the same node of the same run does nothing, wherever it is started."""
    machine.go(machine.plan(HELLO))
    before = machine.lines()
    elsewhere = str(machine.root / "elsewhere")
    answer = machine.start(machine.plan(HELLO), workspace=elsewhere)
    assert (answer["ok"], answer["cause"]) == (False, "busy")
    assert machine.lines() == before
    assert not Path(elsewhere).exists()


def test_etcd_out_of_reach(machines: Callable[..., Machine]) -> None:
    """Without etcd the start fails in bounded time, names the endpoint, and leaves nothing behind."""
    machine = machines("http://127.0.0.1:9")
    answer = machine.start(machine.plan(HELLO, outage=0.5))
    assert (answer["ok"], answer["cause"]) == (False, "etcd")
    assert "127.0.0.1:9" in answer["reason"] and answer["advice"]
    assert list(machine.root.iterdir()) == []


def test_plan_that_is_none(machine: Machine) -> None:
    """A damaged plan is refused without quoting it."""
    answer = machine.start('{"password": "hunter2"')
    assert (answer["ok"], answer["cause"]) == (False, "bug")
    assert "hunter2" not in json.dumps(answer)
    assert list(machine.root.iterdir()) == []


@pytest.mark.parametrize("cut", [10, 5000, 50000, -1])
def test_connection_lost_on_the_way(machine: Machine, cut: int) -> None:
    """A payload that ends early starts nothing and leaves nothing, wherever it ends."""
    payload = archive.payload(machine.plan(HELLO), machine.workspace.path)
    header = payload.index(b"\n") + 1
    answer = machine.feed(payload[: header + cut] if cut > 0 else payload[:cut])
    assert (answer["ok"], answer["cause"]) == (False, "bug")
    assert list(machine.root.iterdir()) == []


def test_folder_of_somebody_else(machine: Machine) -> None:
    """A folder that holds other things is never taken for a workspace."""
    folder = machine.root / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("all of it")
    answer = machine.start(machine.plan(HELLO), workspace=str(folder))
    assert (answer["ok"], answer["cause"]) == (False, "permission")
    assert [p.name for p in folder.iterdir()] == ["thesis.txt"]


def test_folders_that_others_remove_meanwhile(tmp_path: Path) -> None:
    """A workspace is made also while the last node of another run removes the folder above it."""
    over = threading.Event()

    def leave() -> None:
        while not over.is_set():
            with suppress(OSError):
                (tmp_path / "lab").rmdir()

    leaving = threading.Thread(target=leave)
    leaving.start()
    try:
        for n in range(60):
            workspace = tmp_path / "lab" / f"run-{n}" / "n0"
            made: list[str] = []
            boot.make_folders(str(workspace), made)
            assert made[-1] == str(workspace)
            boot.undo(list(dict.fromkeys(made)))
    finally:
        over.set()
        leaving.join()


@pytest.fixture
def small_disk(machine: Machine) -> Iterator[Path]:
    """A file system of 256 KiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    place = machine.root / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("free", [0, 16 * 1024, 128 * 1024])
def test_full_disk(machine: Machine, small_disk: Path, free: int) -> None:
    """A full disk is called so, whether the agent or the staged files do not fit, and what was written is gone."""
    filler = small_disk / "filler"
    filler.write_bytes(bytes(256 * 1024 - free - 4096 * 2))
    files = tarball((member("big"), os.urandom(200 * 1024)))
    answer = machine.start(machine.plan(HELLO), files, workspace=str(small_disk / "deep" / "n0"))
    assert (answer["ok"], answer["cause"]) == (False, "disk_full"), answer
    assert [p.name for p in small_disk.iterdir()] == ["filler"]


def test_read_only_disk(machine: Machine, small_disk: Path) -> None:
    """A file system that takes no writing is called so."""
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    answer = machine.start(machine.plan(HELLO), workspace=str(small_disk / "n0"))
    assert (answer["ok"], answer["cause"]) == (False, "read_only")
    assert str(small_disk) in answer["reason"]


def test_folder_without_permission(machine: Machine) -> None:
    """A place where the user may not write is called so."""
    answer = machine.start(machine.plan(HELLO), workspace="/proc/testbed/n0")
    assert (answer["ok"], answer["cause"]) == (False, "permission")


def test_staged_files(machine: Machine) -> None:
    """Files, folders and links arrive with their permissions, at the top of the workspace, before anything runs."""
    files = tarball(
        (member("bin", tarfile.DIRTYPE, mode=0o755), b""),
        (member("bin/run.sh", mode=0o755), b"#!/bin/sh\necho ran\n"),
        (member("data/x.txt", mode=0o640), b"x"),
        (member("link", tarfile.SYMTYPE, "data/x.txt"), b""),
    )
    machine.go(machine.plan(step("test", "main", "./bin/run.sh; cat link; stat -c %a data/x.txt")), files)
    assert machine.output("a.test.main") == "ran\nx640\n"


HOSTILE = {
    "absolute": [(member("/tmp/testbed-hostile"), b"x")],
    "parent": [(member("../testbed-hostile"), b"x")],
    "deep parent": [(member("a/../../testbed-hostile"), b"x")],
    "own folder": [(member(".testbed/agent.pid"), b"x")],
    "link out": [(member("l", tarfile.SYMTYPE, "/etc/passwd"), b"")],
    "link up": [(member("l", tarfile.SYMTYPE, "../../x"), b"")],
    "link through link": [
        (member("d", tarfile.SYMTYPE, "."), b""),
        (member("e", tarfile.SYMTYPE, "d/.."), b""),
        (member("e/testbed-hostile"), b"x"),
    ],
    "write through link": [(member("d", tarfile.SYMTYPE, "."), b""), (member("d/x"), b"x")],
    "hard link": [(member("h", tarfile.LNKTYPE, "/etc/passwd"), b"")],
    "device": [(member("n", tarfile.CHRTYPE), b"")],
    "pipe": [(member("p", tarfile.FIFOTYPE), b"")],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files(machine: Machine, name: str) -> None:
    """Nothing that is staged leads out of the workspace or into the agent's own folder; then nothing starts."""
    answer = machine.start(machine.plan(HELLO), tarball(*HOSTILE[name]))
    assert (answer["ok"], answer["cause"]) == (False, "bug"), answer
    assert "staged files" in answer["reason"]
    assert list(machine.root.iterdir()) == []
    assert not Path("/tmp/testbed-hostile").exists()
    assert machine.lines() == []


def test_long_path(machine: Machine) -> None:
    """A workspace may have a path that no socket could have."""
    deep = machine.root.joinpath(*["x" * 100] * 3) / "lab" / "n0"
    machine.workspace = type(machine.workspace)(str(deep))
    lines = machine.go(machine.plan(step("test", "main", "testbed set k v")))
    assert lines[-1] == "node_ended passed"


def test_client_of_an_odd_python(machine: Machine) -> None:
    """The command `testbed` works where the interpreter's path has spaces or is too long for a `#!` line."""
    folder = machine.root / "it's a folder"
    folder.mkdir()
    odd = folder / "python"
    odd.symlink_to(os.path.realpath(sys.executable))
    machine.python = str(odd)
    lines = machine.go(machine.plan(step("test", "main", "testbed set k 'v w'; testbed get k")))
    assert lines[-1] == "node_ended passed", machine.log() + machine.output("a.test.main")
    assert machine.output("a.test.main") == "v w\n"


def test_users_and_tls(machines: Callable[..., Machine], tmp_path: Path) -> None:
    """Over TLS and with a password an agent does the same; with a wrong password or another CA the lab is told why."""
    server = start_server(DISTRO, True, tmp_path)
    try:
        good = {"user": "root", "password": "root-secret", "ca": server.tls.authority}
        machine = machines(server.url, **good)
        lines = machine.go(machine.plan(step("test", "main", "testbed set k v; testbed get -b k")))
        assert lines[-1] == "node_ended passed"
        for bad in ({"password": "guessed"}, {"ca": Authority("other").certificate}):
            wrong = dataclasses.replace(machine.access, **bad)
            answer = machine.start(machine.plan(HELLO, access=wrong), workspace=str(machine.root / "x"))
            assert (answer["ok"], answer["cause"]) == (False, "etcd")
            assert "guessed" not in json.dumps(answer)
            assert not (machine.root / "x").exists()
    finally:
        server.close()


def test_payload_takes_text(machine: Machine) -> None:
    """A plan's JSON text will do as well as the plan."""
    plan = machine.plan(HELLO)
    assert archive.payload(plan, "/x") == archive.payload(to_json(plan), "/x")
