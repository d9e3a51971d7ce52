"""How processes of steps are found and stopped."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.agent import process

HEAR = f"""#!{sys.executable} -IS
import os, signal, subprocess, sys
own, *below = sys.argv[1:]
signal.signal(signal.SIGTERM, lambda *_: (open("heard", "a").write(own + " "), sys.exit()))
children = [subprocess.Popen(["./hear", name]) for name in below]
open("ready", "w").write(own + " ")
signal.pause()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder; what runs in it is killed at the end."""
    yield tmp_path
    process.stop(lambda: process.find((), mark_of(tmp_path)), 0)


def mark_of(folder: Path) -> tuple[bytes, ...]:
    """What shells that were started in the folder have in their environment."""
    return (b"PWD=" + os.fsencode(folder),)


def launch(folder: Path, script: str) -> tuple[subprocess.Popen[bytes], threading.Event]:
    """Start a step's main process in a folder with the script ``hear``; the event is its end."""
    ended = threading.Event()
    (folder / "hear").write_text(HEAR)
    (folder / "hear").chmod(0o700)
    os.mkfifo(folder / "ready")
    out, err = str(folder / "out"), str(folder / "err")
    main = process.launch(["/bin/sh", "-c", script], str(folder), os.environ, out, err, lambda *_: ended.set())
    return main, ended


def await_ready(folder: Path, count: int) -> None:
    """Block until so many have said that they are there."""
    said: list[str] = []
    while len(said) < count:
        said += (folder / "ready").read_text().split()


def test_all_of_a_session_hear_once_that_they_shall_end(folder: Path) -> None:
    """TERM comes once to a main process, to what is below it, and to what is left of its session beside that."""
    main, ended = launch(folder, "(./hear orphan &); exec ./hear main child")
    await_ready(folder, 3)
    stopped = process.stop_session(main.pid, 60)
    assert sorted((folder / "heard").read_text().split()) == ["child", "main", "orphan"]
    assert {p["signal"] for p in stopped} == {"SIGTERM"}
    assert main.pid in {p["pid"] for p in stopped}
    assert process.find((main.pid,)) == []
    assert ended.wait(60)
    main.poll()


def test_what_is_below_a_leader_is_found_without_a_look_at_all_else(folder: Path) -> None:
    """The leader and what lives below it in its session are found; what has left the session is not."""
    main, ended = launch(folder, "setsid ./hear gone & exec ./hear main child")
    await_ready(folder, 3)
    names = {p.command.partition("hear ")[2] for p in process.find_below(main.pid)}
    escaped = [p for p in process.find((), mark_of(folder)) if "hear gone" in p.command]
    assert names == {"child", "main child"}
    process.stop_session(main.pid, 60)
    assert [process.lives(p.pid) for p in escaped] == [True]
    process.stop(lambda: process.find((escaped[0].pid,)), 60)
    assert ended.wait(60)
    main.poll()


def test_marks_count_only_for_those_who_are_young_enough(folder: Path) -> None:
    """Whoever was born before the asked time does not have to be looked at."""
    main, ended = launch(folder, "exec ./hear main")
    await_ready(folder, 1)
    birth = process.born(main.pid)
    found = [p.pid for p in process.find((), mark_of(folder), birth)]
    later = [p.pid for p in process.find((), mark_of(folder), birth + 10**9)]
    process.stop_session(main.pid, 60)
    assert ended.wait(60)
    main.poll()
    assert main.pid in found
    assert later == []
    assert process.born(main.pid) == 0
