"""What becomes of a look while etcd, or the way to it, is away: nothing is lost or doubled, and it is said at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from testbed.agent.plan import Access
from testbed.coord.gateway import connect
from testbed.coord.keys import end_of
from testbed.coord.peeking import Peek, Wanted
from testbed.coord.store import Span, Unavailable
from tests.agent.machine import Machine
from tests.coord.etcd_process import EtcdProcess
from tests.coord.forwarder import Forwarder
from tests.peek.conftest import Looker, digest
from tests.peek.test_peeking import begin, log


@pytest.fixture
def way(own_etcd: EtcdProcess) -> Iterator[Forwarder]:
    """A way to etcd of the looker's own, that can be cut."""
    with closing(Forwarder(own_etcd.port)) as way:
        yield way


@pytest.fixture
def machine(own_etcd: EtcdProcess, machines: Callable[..., Machine]) -> Machine:
    """A machine beside an etcd that may be killed."""
    return machines(own_etcd.url)


def through(way: Forwarder, machine: Machine) -> None:
    """Have those who look at the machine from now on take that way."""
    machine.access = Access([f"http://127.0.0.1:{way.port}"], "")


TEXT, RANDOM = "seq 200000", "head -c 1300000 /dev/urandom"


@pytest.mark.parametrize(("piece", "cut"), [(TEXT, False), (TEXT, True), (RANDOM, True)])
def test_etcd_restarts_under_a_look(
    own_etcd: EtcdProcess, machine: Machine, way: Forwarder, look: Callable[..., Looker], piece: str, cut: bool
) -> None:
    """Etcd is killed and started again, and the looker's way to it cut meanwhile: he gets the log byte for byte."""
    begin(machine, f"for i in 1 2 3; do {piece}; testbed get -b go-$i >/dev/null; done; {piece}")
    if cut:
        through(way, machine)
    looker = look(machine, window=65536)
    looker.keeps = False
    for number in range(1, 4):
        looker.await_offset(1280000 * (number - 1) + 200000)
        if cut:
            way.cut()
        own_etcd.kill()
        own_etcd.start()
        machine.scope.set(f"go-{number}", b"")
        if cut:
            way.restore()
    machine.scope.set("end", b"")
    assert looker.await_end().well
    assert looker.sums["a.test.main", "out"].hexdigest() == digest(log(machine, "a.test.main.out"))
    assert looker.told or not cut
    assert all(looker.told[::2])
    assert not any(looker.told[1::2])


def test_that_etcd_is_away_is_said(machine: Machine, way: Forwarder, look: Callable[..., Looker]) -> None:
    """Who looks hears that etcd is away while it is, though nobody writes anything, and that it is back; once each."""
    begin(machine, "echo on; testbed get -b more; echo more")
    through(way, machine)
    looker = look(machine)
    looker.await_text(b"on\n")
    way.cut()
    looker.wait(lambda: len(looker.told) == 1)
    assert "refused" in looker.told[0] or "closed" in looker.told[0]
    way.restore()
    looker.wait(lambda: len(looker.told) == 2)
    assert looker.told[1] == ""
    machine.scope.set("more", b"")
    looker.await_text(b"more\n")


def test_an_etcd_that_never_answers(machine: Machine, way: Forwarder) -> None:
    """Where etcd does not answer from the beginning that is said before the patience ends in an error."""
    through(way, machine)
    way.cut()
    told: list[str] = []
    store = connect(machine.access, 0.5)
    with pytest.raises(Unavailable):
        for _ in Peek(store, machine.run, Wanted(("n0",)), told.append):
            pass
    store.close()
    assert len(told) == 1


def test_who_was_cut_off_lets_another_take_over(machine: Machine, way: Forwarder, look: Callable[..., Looker]) -> None:
    """A looker who is cut off for good is replaced by another, by another way, who goes on at his last byte."""
    begin(machine, "seq 100000; testbed get -b go >/dev/null; seq 100000")
    own = machine.access
    through(way, machine)
    first = look(machine, streams=("out",))
    first.await_text(b"\n100000\n")
    way.cut()
    place = first.peek.position("n0")
    assert place is not None
    machine.access = own
    second = look(machine, streams=("out",), positions={"n0": place})
    machine.scope.set("go", b"")
    machine.scope.set("end", b"")
    assert second.await_end().well
    key = ("a.test.main", "out")
    assert first.logs[key] + second.logs[key] == log(machine, "a.test.main.out").read_bytes()
    way.restore()


def test_a_looker_who_dies_ends_his_stream(machine: Machine, way: Forwarder, look: Callable[..., Looker]) -> None:
    """Of a looker who dies without a word nothing is left in etcd once his lease has run out; nothing more comes."""
    begin(machine, "seq 100000; testbed get -b more >/dev/null; seq 100000; testbed set said yes")
    through(way, machine)
    looker = look(machine, window=65536)
    looker.await_offset(400000)
    way.cut()  # he is dead to all others
    chunks, asks = machine.keys.chunks(looker.peek._request), machine.keys.asks("n0")
    watch = machine.store.watch([Span(asks, end_of(asks), 1)])
    assert any(c.value is None and c.key.endswith("/ask") for batch in watch for c in batch)
    watch.close()
    assert not machine.store.range(chunks, end_of(chunks)).entries
    machine.scope.set("more", b"")
    machine.await_line("set said")
    assert not machine.store.range(chunks, end_of(chunks)).entries
    assert not machine.store.range(asks, end_of(asks)).entries
    way.restore()
