"""A child process that is bound to this one."""

from __future__ import annotations

import queue
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.etcd.process import BoundProcess

READY = """
import os, signal, socket
signal.signal(signal.SIGTERM, signal.{disposition})
print("said it", flush=True)
socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
signal.pause()
"""

Start = Callable[[str], BoundProcess]


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Start a Python program in a directory of its own."""

    def begin(program: str) -> BoundProcess:
        own = Path(tempfile.mkdtemp(dir=tmp_path))
        return BoundProcess([sys.executable, "-c", program], own, tmp_path / "log", {"A": "b"})

    return begin


def test_waits_until_the_program_is_ready(start: Start, tmp_path: Path) -> None:
    """Readiness is what the program says, not that it runs; its output is in the log; TERM ends it."""
    process = start(READY.format(disposition="SIG_DFL"))
    assert process.wait_ready(60)
    process.stop(60)
    assert process.exit_code == -signal.SIGTERM
    assert (tmp_path / "log").read_text() == "said it\n"


def test_a_program_that_heeds_no_term_is_killed(start: Start) -> None:
    """Stopping is bounded: after the grace the process is gone by force."""
    process = start(READY.format(disposition="SIG_IGN"))
    assert process.wait_ready(60)
    process.stop(0.1)
    assert process.exit_code == -signal.SIGKILL


def test_a_program_that_ends_or_stays_silent_is_not_ready(start: Start) -> None:
    """Waiting for readiness ends with the program, and with its time."""
    ended = start("raise SystemExit(7)")
    assert not ended.wait_ready(60)
    assert ended.exit_code == 7
    ended.stop(0)
    silent = start("import signal; signal.pause()")
    assert not silent.wait_ready(0.05)
    silent.stop(60)
    assert silent.exit_code == -signal.SIGTERM


def test_everybody_who_asked_learns_of_the_end(start: Start) -> None:
    """Each callback gets the exit code once, whether it was there before the end or came after."""
    told: queue.Queue[tuple[str, int]] = queue.Queue()
    process = start("raise SystemExit(3)")
    process.on_exit(lambda code: told.put(("before", code)))
    assert told.get(timeout=60) == ("before", 3)
    process.stop(0)
    process.on_exit(lambda code: told.put(("after", code)))
    assert told.get(timeout=60) == ("after", 3)
    assert told.empty()


def test_only_the_environment_given_reaches_it(start: Start, tmp_path: Path) -> None:
    """Nothing of this process's environment is passed on."""
    process = start("import os; print(sorted(set(os.environ) - {'LC_CTYPE'}))")
    assert not process.wait_ready(60)
    process.stop(0)
    assert (tmp_path / "log").read_text() == "['A', 'NOTIFY_SOCKET']\n"


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """What cannot be started raises OSError and leaves no thread waiting."""
    with pytest.raises(FileNotFoundError):
        BoundProcess(["/bin/true"], tmp_path / "none", tmp_path / "log", {})
    with pytest.raises(IsADirectoryError):
        BoundProcess(["/bin/true"], tmp_path, tmp_path, {})
