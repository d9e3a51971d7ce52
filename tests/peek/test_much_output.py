"""However much a step prints and somebody looks at, the run's etcd stays small and the step is not slowed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.coord.gateway import connect
from testbed.coord.keys import RunKeys, end_of
from testbed.events import ResultsCollected
from testbed.run.scopes import read_access
from tests.peek.conftest import Looker, digest
from tests.run.conftest import Run, start

__all__ = ["start"]

MIB = 1024 * 1024
SPEC = """
deployment: much
timeout: 10m
stall: off
configurations:
  talker:
    test:
      run: |
        testbed get -b go
        {print}
        testbed set printed yes
        testbed get -b end >/dev/null
nodes:
  n0: {{configurations: [talker]}}
"""


class Remote:
    """A run as `Looker` needs to know it."""

    def __init__(self, run: Run) -> None:
        self.run, self.access = run.name, read_access(run.access)
        self.keys, self.store = RunKeys(run.name), connect(self.access)

    def set(self, key: str) -> None:
        """Set a value."""
        from testbed.coord.store import Put

        self.store.commit([Put(self.keys.value(key), b"")])

    def await_printed(self) -> None:
        """Block until the step has printed all."""
        from testbed.coord.store import Span

        watch = self.store.watch([Span(self.keys.value("printed"), revision=1)])
        next(iter(watch))
        watch.close()

    def held(self, request: str) -> int:
        """Bytes of output that etcd holds for a request."""
        prefix = self.keys.chunks(request)
        return sum(len(e.value) for e in self.store.range(prefix, end_of(prefix)).entries)


@pytest.fixture
def begun(start: Callable[..., Run], tmp_path: Path) -> Callable[[str], tuple[Run, Remote]]:
    """Start a run whose step prints by that command."""

    def begin(command: str) -> tuple[Run, Remote]:
        spec = tmp_path / "much.yml"
        spec.write_text(SPEC.format(print=command))
        run = start(spec)
        run.await_line("waits: get go")
        return run, Remote(run)

    return begin


def test_a_gibibyte(begun: Callable[[str], tuple[Run, Remote]]) -> None:
    """A step prints 1 GiB while its only looker reads nothing; etcd holds his window, and he gets every byte later."""
    run, remote = begun("yes 'the quick brown fox jumps over the lazy dog' | head -c 1073741824")
    looker = Looker(remote, connect(remote.access), step="test.main")  # type: ignore[arg-type]
    looker.keeps = False
    looker.wait(lambda: bool(looker.begun))
    looker.pause()
    remote.set("go")
    remote.await_printed()  # though nobody reads
    held = remote.held(looker.peek._request)
    assert 128 * 1024 < held <= 256 * 1024
    looker.resume()
    looker.await_offset(1024 * MIB)
    remote.set("end")
    assert looker.await_end().well
    assert run.end()[0] == 0
    assert looker.sums["talker.test.main", "out"].hexdigest() == digest(
        run.path / "nodes" / "n0" / "logs" / "talker.test.main.out"
    )


def test_etcd_forgets_what_was_looked_at(begun: Callable[[str], tuple[Run, Remote]]) -> None:
    """Of 64 MiB that do not get smaller by packing the run's etcd keeps a fraction, and the run ends as ever."""
    run, remote = begun("head -c 67108864 /dev/urandom")
    looker = Looker(remote, connect(remote.access), step="test.main")  # type: ignore[arg-type]
    looker.keeps = False
    remote.set("go")
    looker.await_offset(64 * MIB)
    size = int(remote.store.client.call("/v3/maintenance/status", {})["dbSize"])
    assert size < 48 * MIB
    remote.set("end")
    assert looker.await_end().well
    assert run.end()[0] == 0
    collected = [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()]
    assert [e["node"] for e in collected if e["event"] == ResultsCollected.kind] == ["n0"]
    assert looker.sums["talker.test.main", "out"].hexdigest() == digest(
        run.path / "nodes" / "n0" / "logs" / "talker.test.main.out"
    )
