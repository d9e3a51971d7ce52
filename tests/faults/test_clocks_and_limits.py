"""Clocks that differ by an hour, and what etcd holds: many keys, large values, a database that is full."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.coord.gateway import GatewayStore, connect
from testbed.coord.scope import Scope
from testbed.coord.store import MAX_VALUE, Full, Put, Span, TooLarge
from testbed.etcd.binary import find
from testbed.etcd.server import EmbeddedServer
from tests.coord.etcd_process import DISTRO, EtcdProcess, client_of, find_binary
from tests.faults.live import LiveRun

CLOCKS = """
deployment: clocks
finalise: all
configurations:
  ahead:
    test: |
      testbed set now "$(date +%s)"
      testbed get -b answer -t 30s
    timeout: 60s
  here:
    test: |
      then=$(testbed get -b now -t 30s)
      [ $((then - $(date +%s))) -gt 3000 ]
      testbed set answer yes
nodes:
  fast: {configurations: [ahead]}
  right: {configurations: [here]}
"""


def test_clocks_that_differ_by_an_hour(start: Callable[..., LiveRun], tmp_path: Path) -> None:
    """A node whose clock is an hour ahead takes part over TLS; no deadline and no lease goes by the clock."""
    faketime = shutil.which("faketime")
    if faketime is None:
        pytest.skip("Debian's package faketime is not installed")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec {faketime} -f +1h {sys.executable} "$@"\n')
    python.chmod(0o755)
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(
        "all:\n  hosts:\n"
        f"    one: {{ansible_connection: local, ansible_python_interpreter: {python}}}\n"
        f"    two: {{ansible_connection: local, ansible_python_interpreter: {sys.executable}}}\n"
    )
    run = start(CLOCKS.replace("    timeout: 60s\n", ""), {"liveness": 3}, inventories=(str(inventory),))
    assert run.end().judgement.exit_code == 0, run.events
    begun = [e.at for e in run.all_of("node_started")]
    assert max(begun) - min(begun) > 3000  # the clock was ahead indeed


@pytest.fixture
def store(tmp_path: Path) -> Iterator[GatewayStore]:
    """A run's own server."""
    with (
        EmbeddedServer(find(environment={"PATH": ""}), tmp_path / "etcd") as server,
        contextlib.closing(connect(server.root)) as made,
    ):
        yield made


def test_ten_thousand_keys_of_any_letters(store: GatewayStore) -> None:
    """So many keys, with letters of every kind, are set, listed in order, watched from the start, and deleted."""
    scope = Scope(store, "run", "n0")
    keys = [f"{'aé汉🙂'[n % 4]}/{n:05d} {chr(0x300 + n % 0x400)}" for n in range(10_000)]
    prefix = scope.keys_of.values
    first = store.range(prefix).revision
    for begin in range(0, len(keys), 100):
        store.commit([Put(prefix + key, key.encode()) for key in keys[begin : begin + 100]])
    assert scope.keys() == sorted(keys, key=str.encode)
    assert scope.get(keys[9_999]) == keys[9_999].encode()
    seen = []
    watch = store.watch([Span(prefix, prefix[:-1] + "0", first + 1)])
    for batch in watch:
        seen += [change.key[len(prefix) :] for change in batch]
        if len(seen) == len(keys):
            break
    watch.close()
    assert seen == keys
    scope.close()


def test_values_up_to_the_limit(store: GatewayStore) -> None:
    """A value of 1 MiB, of bytes of every kind, comes back as it was; one byte more is refused with the limit named."""
    scope = Scope(store, "run", "n0")
    value = bytes(range(256)) * (MAX_VALUE // 256)
    scope.set("big", value)
    assert scope.get("big") == value
    with pytest.raises(TooLarge, match="1048577 bytes; the limit is 1048576 bytes"):
        scope.set("big", value + b"x")
    assert scope.get("big") == value
    scope.close()


def test_a_full_database_is_told() -> None:
    """When etcd's quota is used up the error says so and what to do, and what was there can still be read."""
    server = EtcdProcess(find_binary(DISTRO), options=("--quota-backend-bytes", str(8 * 1024 * 1024))).start()
    try:
        with contextlib.closing(GatewayStore(client_of(server))) as store:
            with pytest.raises(Full, match="--quota-backend-bytes"):
                for n in range(500):  # etcd counts what lies on its disk, and writes that ten times a second
                    store.commit([Put(f"k{n}", bytes(1024 * 1024))])
            assert len(store.range("k0").entries[0].value) == 1024 * 1024
    finally:
        server.close()
