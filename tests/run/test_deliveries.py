"""Results that come through etcd: taken in once, after their node's end, in whatever order etcd brings the two."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed import events
from testbed.coord.feed import Feed
from testbed.coord.keys import RunKeys
from testbed.coord.memory import MemoryStore
from testbed.coord.scope import Scope
from testbed.coord.store import Put, StoreError
from testbed.events import ABORT
from testbed.run import directory as directories
from testbed.run.conductor import ENDED, LEAVING, RUNNING, Conductor
from testbed.run.deliveries import Deliveries
from testbed.run.directory import RunDirectory
from testbed.run.journal import Journal
from testbed.run.link import Link
from testbed.run.phases import Phases
from testbed.run.pipeline import Options, prepare

CASES = Path(__file__).parent.parent / "cases" / "runs"
NODES = ("a", "b")


def packed(word: str) -> bytes:
    """Results as an agent packs them: one log that holds the word."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        member = tarfile.TarInfo("logs/c.test.main.out")
        member.size = len(word)
        archive.addfile(member, io.BytesIO(word.encode()))
    return whole.getvalue()


class World:
    """Deliveries of a run of two nodes that live, over a store in memory."""

    def __init__(self, store: MemoryStore, feed: Feed, directory: RunDirectory, journal: Journal) -> None:
        plan = prepare(Options(CASES / "interrupted.yml")).plan
        self.store, self.directory, self.journal = store, directory, journal
        self.keys = RunKeys(plan.run)
        self.lost: list[StoreError] = []
        self.link = Link(store, Scope(store, plan.run, "controller", feed), self.keys, self.lost.append)
        self.conductor = Conductor(NODES, "all")
        for node in NODES:
            self.conductor.started(node)
        self.deliveries = Deliveries(self.link, self.conductor, Phases(plan, directory, journal))

    def send(self, node: str, archive: bytes) -> None:
        """The node writes its results."""
        self.store.commit([Put(self.keys.results(node), archive)])

    def let_go(self, node: str) -> bool:
        """Whether the node's agent was told that its results are home."""
        return bool(self.store.range(self.keys.home(node)).entries)

    def log(self, node: str) -> str:
        """The log that came home."""
        return (self.directory.logs(node) / "c.test.main.out").read_text()

    def recorded(self, kind: type[events.Event]) -> list[str]:
        """The nodes of all events of that kind, in order."""
        return [event.node for event in self.journal.recorded if isinstance(event, kind)]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A run that lives."""
    monkeypatch.setenv("TESTBED_STATE_HOME", str(tmp_path))
    store = MemoryStore(patience=0.05)
    feed = Feed(store)
    directory = directories.create("deliveries")
    with Journal(directory.events, lambda _: None) as journal:
        yield World(store, feed, directory, journal)
    feed.close()
    store.close()


@pytest.mark.parametrize("first", ["results", "end"])
def test_either_may_be_heard_first(world: World, first: str) -> None:
    """Results and end of a node meet in either order; only then the log is home and the agent is let go."""
    if first == "results":
        world.deliveries.arrived("a", packed("hello"))
        assert (world.conductor.phase("a"), world.let_go("a")) == (RUNNING, False)
        world.conductor.ended("a")
        world.deliveries.take_in("a")
    else:
        world.conductor.ended("a")
        world.deliveries.take_in("a")
        assert (world.conductor.phase("a"), world.let_go("a")) == (ENDED, False)
        world.deliveries.arrived("a", packed("hello"))
    assert (world.conductor.phase("a"), world.let_go("a")) == (LEAVING, True)
    assert world.log("a") == "hello"
    assert world.recorded(events.ResultsCollected) == ["a"]


def test_results_are_looked_for(world: World) -> None:
    """What ended nodes have in etcd is found before the watch tells of it; what a living one sent stays there."""
    for node in NODES:
        world.send(node, packed(node))
    world.conductor.ended("a")
    world.deliveries.look()
    assert (world.log("a"), world.let_go("a")) == ("a", True)
    assert (world.conductor.phase("b"), world.let_go("b")) == (RUNNING, False)


def test_only_the_first_counts(world: World) -> None:
    """Results that are heard of again, or found again after their agent did not leave, are not unpacked twice."""
    world.conductor.ended("a")
    world.send("a", packed("first"))
    world.deliveries.look()
    world.conductor.stranded("a")
    world.deliveries.arrived("a", packed("second"))
    world.deliveries.look()
    assert world.log("a") == "first"
    assert world.recorded(events.ResultsCollected) == ["a"]
    assert world.conductor.phase("a") == ENDED


def test_damaged_results_are_left_to_ansible(world: World) -> None:
    """A node whose results cannot be unpacked is not let go: it has ended, and will be collected."""
    world.conductor.ended("a")
    world.deliveries.arrived("a", b"no archive")
    assert (world.conductor.phase("a"), world.let_go("a")) == (ENDED, False)
    assert world.recorded(events.Notice) == ["a"]


def test_etcd_that_is_lost_is_told_once(world: World) -> None:
    """The first error tells of the loss; then nothing is asked or told any more, and nobody is taken for dead."""
    for node in NODES:
        world.conductor.ended(node)
    world.store.close()
    world.deliveries.look()
    world.link.tell_home("a")
    world.link.raise_flag(ABORT, "why", {})
    assert len(world.lost) == 1
    assert world.link.is_alive("a")
    assert world.link.has_ended("a")
    assert world.link.flag(ABORT) is None
    assert [world.conductor.phase(node) for node in NODES] == [ENDED, ENDED]
