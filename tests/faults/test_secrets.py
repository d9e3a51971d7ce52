"""No secret of a run can be read by anybody who is not meant to: looked for while it runs and when it is over."""

from __future__ import annotations

import json
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

from testbed.coord.gateway import connect
from testbed.coord.scope import Scope
from tests.faults.live import LiveRun

SPEC = """
deployment: secrets
finalise: explicit
configurations:
  worker:
    test: |
      env > "$TESTBED_REPORTS/env"
      testbed set here yes
      testbed wait finalise
nodes:
  a: {configurations: [worker]}
  b: {configurations: [worker]}
"""


def secrets_of(run: LiveRun) -> list[bytes]:
    """Every password and private key of the run: the controller's and the nodes'."""
    accesses = [run.access(), *(run.access_of(node) for node in ("a", "b"))]
    keys = [a.key.replace("-----BEGIN PRIVATE KEY-----", "").strip().splitlines()[0] for a in accesses if a.key]
    assert len(keys) == 3
    return [secret.encode() for secret in {*(a.password for a in accesses), *keys}]


def leaking_processes(secrets: list[bytes]) -> list[str]:
    """Processes of the machine whose command line or environment holds a secret."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                text = (entry / name).read_bytes()
            except OSError:
                continue
            if any(secret in text for secret in secrets):
                found.append(f"{entry / name}: {text[:200]!r}")
    return found


def files_with(secrets: list[bytes], folder: Path) -> list[Path]:
    """The files below the folder that hold a secret, packed ones included."""
    found = []
    for path in folder.rglob("*"):
        if path.is_symlink() or not path.is_file():
            continue
        texts = [path.read_bytes()]
        if path.name.endswith(".tar.gz"):
            with tarfile.open(path) as packed:
                texts += [member.read() for m in packed if (member := packed.extractfile(m)) is not None]
        if any(secret in text for secret in secrets for text in texts):
            found.append(path)
    return found


def is_private(path: Path, top: Path) -> bool:
    """Whether only its owner reaches the file: by its own mode or by that of a folder between it and ``top``."""
    return any(stat.S_IMODE(p.stat().st_mode) & 0o077 == 0 for p in (path, *path.parents) if p.is_relative_to(top))


def test_secrets_stay_where_they_belong(start: Callable[..., LiveRun]) -> None:
    """While it runs: in no command line, no environment, no file that others can read. After it: nowhere at all."""
    run = start(SPEC)
    run.await_event("wait_started", count=2)
    secrets = secrets_of(run)
    top = run.directory.path
    assert leaking_processes(secrets) == []
    holders = files_with(secrets, top)
    assert run.directory.access in holders  # what is looked for can be found
    assert [p for p in holders if not is_private(p, top)] == []
    assert [p for p in holders if not p.is_relative_to(run.directory.private) and "etcd-" not in str(p)] == []
    for node in ("a", "b"):
        assert files_with(secrets, Path(run.workspace(node).path)) == []
    told = [json.dumps(vars(event)).encode() for event in run.events]
    assert not any(secret in text for secret in secrets for text in told)
    store = connect(run.access())
    Scope(store, run.directory.run, "test").raise_flag("finalise", "the test has seen enough")
    store.close()
    assert run.end().judgement.exit_code == 0, run.events
    assert files_with(secrets, top) == []
    assert leaking_processes(secrets) == []
    assert "TESTBED_NODE=a" in run.report("a", "env")
