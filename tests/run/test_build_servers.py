"""Runs as build servers start them: without a terminal, with streams, a locale or a JUnit path of some other sort."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import testbed

SPEC = """
deployment: built
timeout: 1m
configurations:
  c:
    test: printf 'bl\\303\\244h \\377\\n' >&2; exit $TESTBED_PARAM_CODE
parameters:
  code: {type: integer, default: 0}
nodes:
  a: {configurations: [c]}
"""

Shell = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """Do a line of shell in an empty folder in which ``$testbed run deployment.yml`` would run the spec."""
    (tmp_path / "deployment.yml").write_text(SPEC)

    def run(line: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        known = {k: v for k, v in os.environ.items() if not k.startswith(("LC_", "LANG", "PYTHONIOENCODING"))}
        told = {
            **known, "TESTBED_STATE_HOME": str(tmp_path / "state"), "testbed": f"{sys.executable} -m testbed",
            "PYTHONPATH": str(Path(testbed.__file__).parent.parent), **environment,
        }  # fmt: skip
        return subprocess.run(
            ["bash", "-c", line], cwd=tmp_path, env=told, stdin=subprocess.DEVNULL, capture_output=True, timeout=100,
            check=False,
        )  # fmt: skip

    return run


def report(tmp_path: Path) -> Any:
    """The report of the only run; it is whole."""
    (path,) = (tmp_path / "state" / "runs").iterdir()
    assert ET.parse(path / "junit.xml").getroot().tag == "testsuites"
    assert not (tmp_path / "state" / "crashes").exists()
    return json.loads((path / "report.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("streams", "code"),
    [
        ("<&- >&- 2>&-", 0), ("2>/dev/full", 1), (">/dev/full 2>&1", 1), ("> >(:) 2>&1", 0),
        ("--follow 2> >(head -1)", 1), (">/dev/full", 0),
    ],
)  # fmt: skip
def test_a_run_does_not_hang_on_its_streams(shell: Shell, tmp_path: Path, streams: str, code: int) -> None:
    """Streams that are closed, full or not read on neither end a run nor change its exit code."""
    done = shell(f"$testbed run deployment.yml -p code={code} {streams}")
    assert done.returncode == code, done
    (node,) = report(tmp_path)["nodes"]
    assert (node["verdict"], node["results"]) == ("failed" if code else "passed", "collected")
    if streams == ">/dev/full":
        assert b"the report could not be printed: No space left" in done.stderr


def test_other_commands_bear_closed_streams(shell: Shell) -> None:
    """A command whose streams are all closed does what it does; one that has no room for what it prints says so."""
    assert shell("$testbed list <&- >&- 2>&-").returncode == 0
    full = shell("$testbed list --json >/dev/full")
    assert (full.returncode, full.stderr) == (
        3, b"error: No space left on device: standard output, or a file of this run\n",
    )  # fmt: skip


@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "POSIX"}, {"LC_ALL": "xx_YY.UTF-8"}, {"LANG": "xx"}, {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}],
)
def test_a_run_in_any_locale(shell: Shell, tmp_path: Path, environment: dict[str, str]) -> None:
    """A run goes through where the locale is none that Ansible takes, or not there, and prints what it can print."""
    done = shell("$testbed run deployment.yml -p code=1", **environment)
    assert (done.returncode, report(tmp_path)["verdict"]) == (1, "failed"), done
    assert b"exit code 1: bl" in done.stdout


@pytest.mark.parametrize("place", [".", "/dev/full", "deployment.yml/junit.xml", "/proc/none/junit.xml"])
def test_a_junit_file_that_cannot_be(shell: Shell, tmp_path: Path, place: str) -> None:
    """That --junit names what can't be a file is said before anything is started."""
    done = shell(f"$testbed run deployment.yml --junit {place}")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"error: ")
    assert place.encode() in done.stderr
    assert not (tmp_path / "state").exists()


def test_a_junit_file_that_cannot_be_any_more(shell: Shell, tmp_path: Path) -> None:
    """A JUnit file that can't be written at the end costs neither the report nor the run's own JUnit file."""
    spec = tmp_path / "deployment.yml"
    spec.write_text(spec.read_text().replace("printf", f"rm -r {tmp_path}/made; printf"))
    done = shell("$testbed run deployment.yml --junit made/here/junit.xml")
    assert done.returncode == 3
    assert done.stdout.startswith(b"PASSED")
    assert b"error: cannot write made/here/junit.xml: No such file or directory" in done.stderr
    assert report(tmp_path)["verdict"] == "passed"


def test_a_home_that_cannot_be_written(shell: Shell, tmp_path: Path) -> None:
    """Where the user's home cannot be written to, a run with --run-dir goes through, and is found by its path."""
    (tmp_path / "hosts").write_text("h ansible_connection=local\n")
    homeless = {"HOME": "/dev/null", "TESTBED_STATE_HOME": ""}
    done = shell("$testbed run deployment.yml -i hosts --run-dir here", **homeless)
    assert (done.returncode, done.stdout[:6]) == (0, b"PASSED"), done
    assert f"only as {tmp_path / 'here'} is this run found again".encode() in done.stderr
    assert shell("$testbed status here", **homeless).stdout.endswith(b"passed\n")
    assert shell("$testbed list", **homeless).returncode == 0
    refused = shell("$testbed run deployment.yml", **homeless)
    assert (refused.returncode, refused.stdout) == (3, b"")
    assert b"/dev/null/.local" in refused.stderr


def test_a_home_that_is_none(shell: Shell) -> None:
    """A place for runs below a home that nobody has is a mistake of the caller's."""
    done = shell("$testbed list", TESTBED_STATE_HOME="~no-such-user/state")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"no home is known for ~no-such-user/state" in done.stderr


def test_a_run_outlives_its_terminal(shell: Shell, tmp_path: Path) -> None:
    """A run under nohup goes on when its terminal is closed."""
    spec = tmp_path / "deployment.yml"
    hang_up = "kill -HUP $TESTBED_PARAM_CODE; testbed get --block never --timeout 2s || exit 0; printf"
    spec.write_text(spec.read_text().replace("printf", hang_up))
    done = shell("exec nohup $testbed run deployment.yml -p code=$$")
    assert (done.returncode, report(tmp_path)["verdict"]) == (0, "passed"), done


def test_a_run_links_to_nothing(shell: Shell, tmp_path: Path) -> None:
    """A run directory beside its spec can be archived with all links followed: of those for Ansible none is left."""
    for content in ("roles/r/tasks/main.yml", "action_plugins/own.py"):
        (tmp_path / content).parent.mkdir(parents=True)
        (tmp_path / content).write_text("")
    for place in ("one", "results/two"):
        assert shell(f"TESTBED_STATE_HOME=state $testbed run deployment.yml --run-dir {place}").returncode == 0
        assert [p for p in (tmp_path / place).rglob("*") if p.is_symlink()] == []
        assert (tmp_path / place / "playbooks/a.yml").exists()
    assert (tmp_path / "roles/r/tasks/main.yml").exists()
    assert (tmp_path / "action_plugins/own.py").exists()


def test_an_empty_inventory_option(shell: Shell) -> None:
    """An inventory that is the empty string is a mistake, and not the folder that the caller stands in."""
    done = shell('$testbed run deployment.yml -i "$NO_SUCH"')
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"-i names no inventory" in done.stderr


def test_a_path_that_is_no_text(shell: Shell, tmp_path: Path) -> None:
    """A path whose bytes are not UTF-8 is refused before a run is begun: its plan and reports could not name it."""
    done = shell("d=$(printf 'n\\377'); mkdir $d; cp deployment.yml $d; $testbed run $d/deployment.yml")
    assert (done.returncode, done.stdout) == (2, b"")
    assert rb"n\udcff is not UTF-8" in done.stderr
    assert not (tmp_path / "state" / "runs").exists()


def test_a_folder_that_is_gone(shell: Shell) -> None:
    """Who stands in a folder that was removed is told so."""
    done = shell('spec=$PWD/deployment.yml; mkdir gone; cd gone; rmdir ../gone; $testbed run "$spec"')
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"the current folder has been removed" in done.stderr
