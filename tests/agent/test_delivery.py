"""Small results on their way home through etcd: taken, too large, never answered for."""

from __future__ import annotations

import io
import tarfile
import threading
from pathlib import Path

from testbed.agent.workspace import is_held
from testbed.coord.store import Put, Span
from tests.agent.machine import LIMIT, Machine, step

REPORTING = step("clean", "main", 'echo out; echo r > "$TESTBED_REPORTS/r.txt"')
DELIVERY = 64 * 1024


def await_key(machine: Machine, key: str) -> bytes:
    """Block until the node has written that key; its value."""
    watch = machine.store.watch([Span(key, revision=1)])
    timer = threading.Timer(LIMIT, watch.close)
    timer.start()
    try:
        return next(change.value for batch in watch for change in batch if change.value is not None)
    except StopIteration:
        raise AssertionError(f"nobody wrote {key}\n{machine.log()}") from None
    finally:
        timer.cancel()
        watch.close()


def names_in(packed: bytes) -> set[str]:
    """The files in an archive."""
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        return set(archive.getnames())


def test_the_agent_leaves_once_its_results_are_home(machine: Machine) -> None:
    """Until it hears that they are, it stays with all it has; then it removes its workspace, and says that last."""
    assert machine.start(machine.plan(REPORTING, delivery=DELIVERY))["ok"]
    packed = await_key(machine, machine.keys.results("n0"))
    assert {"logs/a.clean.main.out", "reports/r.txt", "events.jsonl"} <= names_in(packed)
    assert is_held(machine.workspace)
    assert Path(machine.workspace.results).read_bytes() == packed
    machine.store.commit([Put(machine.keys.home("n0"), b"")])
    await_key(machine, machine.keys.left("n0"))
    assert list(machine.root.iterdir()) == []
    assert machine.store.range(machine.keys.alive("n0")).entries == ()


def test_nobody_says_that_the_results_are_home(machine: Machine) -> None:
    """When no answer comes for as long as etcd may be away, the agent ends, and its results can still be fetched."""
    machine.go(machine.plan(REPORTING, delivery=DELIVERY, outage=3.0))
    packed = await_key(machine, machine.keys.results("n0"))
    assert machine.store.range(machine.keys.left("n0")).entries == ()
    assert machine.collect()["reports/r.txt"] == b"r\n"
    assert Path(machine.workspace.results).read_bytes() == packed
    assert machine.ask("remove")[0]["ok"]
    assert list(machine.root.iterdir()) == []


def test_a_signal_ends_the_wait_for_the_answer(machine: Machine) -> None:
    """Somebody who comes to fetch the results does not wait for an answer that does not come."""
    assert machine.start(machine.plan(REPORTING, delivery=DELIVERY, outage=600.0))["ok"]
    await_key(machine, machine.keys.event("n0", len(machine.plan(REPORTING).steps) + 2))  # node_ended: it waits now
    machine.ask("stop")
    assert not is_held(machine.workspace)
    assert machine.collect()["reports/r.txt"] == b"r\n"


def test_large_results_wait_to_be_fetched(machine: Machine) -> None:
    """What is larger than the plan's limit does not go into etcd."""
    machine.go(machine.plan(step("clean", "main", "head -c 3000 /dev/urandom"), delivery=1000))
    assert machine.store.range(machine.keys.results("n0")).entries == ()
    assert len(machine.collect()["logs/a.clean.main.out"]) == 3000
