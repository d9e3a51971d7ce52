"""Results that come through etcd damaged, or that no agent of ours has packed."""

from __future__ import annotations

import contextlib
import gzip
import io
import tarfile
from collections.abc import Callable

import pytest

from testbed.coord.gateway import connect
from testbed.coord.keys import RunKeys
from testbed.coord.store import Put
from tests.faults.live import LiveRun

SPEC = """
deployment: parcels
finalise: all
configurations:
  worker:
    test: |
      head -c 100000 /dev/urandom > "$TESTBED_REPORTS/large"
      testbed get -b go
nodes:
  a: {configurations: [worker]}
"""
"""Its results are too large for etcd: what lies there under its name does not come from its agent."""


def packed(name: str) -> bytes:
    """An archive of one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return out.getvalue()


PARCELS = {
    "empty": b"",
    "no archive": b"not an archive",
    "torn": packed("reports/x")[:-20],
    "a wrong checksum": packed("reports/x")[:-8] + b"\0" * 8,
    "not compressed": gzip.decompress(packed("reports/x")),
    "leads out": packed("../../../report.json"),
    "absolute": packed("/etc/testbed-hostile"),
}


@pytest.mark.parametrize("parcel", PARCELS)
def test_damaged_parcel(start: Callable[..., LiveRun], parcel: str) -> None:
    """It is told, nothing of it lies outside of its node's folder, and the results are fetched from the machine."""
    run = start(SPEC)
    run.await_event("wait_started", node="a")
    keys = RunKeys(run.directory.run)
    with contextlib.closing(connect(run.access_of("a"))) as node:
        node.commit([Put(keys.results("a"), PARCELS[parcel])])
        node.commit([Put(keys.value("go"), b"")])
    assert run.end().judgement.exit_code == 0, run.events
    (told,) = [n for n in run.notices() if "fetched again" in n]
    assert "results.tar.gz" in told
    assert (run.directory.reports("a") / "large").stat().st_size == 100_000
    assert len(run.all_of("results_collected", node="a")) == 1
    assert not (run.directory.nodes / "a" / "results.tar.gz").exists()
