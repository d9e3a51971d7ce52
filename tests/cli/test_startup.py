"""What a start of the command costs, and what it leaves alone until it is needed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEAVY = [
    "ansible",
    "ansible_runner",
    "cryptography",
    "etcd3",
    "grpc",
    "jinja2",
    "jsonschema",
    "junitparser",
    "networkx",
    "rich",
    "textual",
    "yaml",
]

# In a process of its own: what it has used of the CPU until then is the interpreter's start and the command's.
PROBE = """
import resource, sys
from testbed.cli.main import cli
try:
    cli.main({arguments!r})
except SystemExit as done:
    used = resource.getrusage(resource.RUSAGE_SELF)
    heavy = sorted({{name.partition(".")[0] for name in sys.modules}} & set({heavy!r}))
    print(done.code, used.ru_utime + used.ru_stime, *heavy, file=sys.stderr)
"""


def probe(*arguments: str) -> tuple[int, float, set[str]]:
    """Exit code of the command, seconds of CPU, and which of the heavy libraries it has imported."""
    code = PROBE.format(arguments=list(arguments), heavy=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    )
    status, seconds, *heavy = done.stderr.splitlines()[-1].split()
    return int(status), float(seconds), set(heavy)


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("run", "--help"), ("get", "--help")])
def test_help_is_cheap(arguments: tuple[str, ...]) -> None:
    """Help costs less than 0.2 s of CPU and imports none of the heavy libraries."""
    status, seconds, heavy = probe(*arguments)
    assert (status, heavy) == (0, set())
    assert seconds < 0.2


def test_validate_leaves_ansible_alone() -> None:
    """To validate a spec takes neither Ansible nor anything that a run alone needs."""
    status, _, heavy = probe("validate", "examples/hello/deployment.yml")
    assert status == 0
    assert heavy <= {"jsonschema", "yaml"}
