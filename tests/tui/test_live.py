"""The screen's sources over runs that live: the run directory as it grows, etcd, and commands carried out."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue

import pytest

from testbed import events as ev
from testbed.agent.plan import Access
from testbed.run.directory import RunDirectory, create, find
from testbed_tui import commands, deeds
from testbed_tui.app import TestbedApp
from testbed_tui.attach import attach
from testbed_tui.courier import Courier
from testbed_tui.fleet import GONE, LIVE, RunList
from testbed_tui.launch import Launch
from testbed_tui.logs import HomeLogs, LogLine, Wanted
from testbed_tui.screens.dialogs import Ask
from testbed_tui.sources import DirectorySource, Replay, ScopeSource, Source
from testbed_tui.views import Picture

PATIENCE = 90.0

SPEC = """
deployment: pair
finalise: explicit
configurations:
  first:
    test: |
      echo "I am $TESTBED_NODE"
      testbed set greeting hello
      testbed wait finalise
  second:
    test: testbed get -b greeting && testbed wait finalise
nodes:
  a: {configurations: [first]}
  b: {configurations: [second]}
"""


class Watcher:
    """A courier and what it shows."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self.shown: SimpleQueue[tuple[Picture, str]] = SimpleQueue()
        self.courier = Courier(sources, self._show, pace=0.0)
        self.courier.start()

    def _show(self, picture: Picture, wrong: str) -> None:
        self.shown.put((picture, wrong))
        self.courier.taken()

    def until(self, holds: Callable[[Picture, str], object]) -> Picture:
        """The first picture of which that holds."""
        while True:
            picture, wrong = self.shown.get(timeout=PATIENCE)
            if holds(picture, wrong):
                return picture

    def close(self) -> None:
        """Look no more."""
        self.courier.close()


def append(directory: RunDirectory, text: str) -> None:
    """Write to the run's events as a controller does."""
    with directory.events.open("a", encoding="utf-8") as file:
        file.write(text)


@pytest.fixture
def launched(tmp_path: Path) -> tuple[Launch, str]:
    """A run of the spec, started for the screen, and its name."""
    spec = tmp_path / "pair.yml"
    spec.write_text(SPEC)
    launch = Launch(commands.start(str(spec), {}, []))
    run = launch.await_run()
    assert run is not None, launch.said()
    return launch, run


def test_a_run_is_watched_acted_upon_and_seen_to_its_end(tmp_path: Path, launched: tuple[Launch, str]) -> None:
    """A started run is seen from its directory and over etcd alike, with its values, and obeys what is asked of it."""
    launch, run = launched
    here = attach(run)
    with closing(Watcher(here.sources())) as near:
        blocked = near.until(lambda p, _: p.values.get("greeting") and all(n.waits for n in p.nodes) and p.nodes)
        assert blocked.values["greeting"].by == "a"
        near.until(lambda p, _: p.values["greeting"].text == "hello")
        assert [r.word for r in RunList().read()] == [LIVE]

        copied = tmp_path / "access.json"
        shutil.copyfile(find(run).access, copied)
        there = attach(run, copied)
        with closing(Watcher(there.sources())) as far:
            seen = far.until(lambda p, _: len(p.nodes) == 2 and all(n.waits for n in p.nodes))
            assert seen.deployment == "pair"
            assert seen.values["greeting"].text == "hello"
            assert deeds.do(commands.finalise(run), there) == (0, "")
            assert far.until(lambda p, _: "finalise" in p.flags).flags["finalise"].why == f"testbed finalise {run}"
        assert near.until(lambda p, _: p.over).verdict == "passed"
    assert launch.process.wait(PATIENCE) == 0
    assert run in launch.said(100)
    assert deeds.do(commands.abort(run), here)[0] == 2  # as the command line says of a run that is over
    assert [r.word for r in RunList().read()] == ["passed"]


def test_leaving_asks_what_becomes_of_a_run_started_for_the_screen(launched: tuple[Launch, str]) -> None:
    """Q asks; "leave it running" leaves, and the run goes on."""
    launch, run = launched
    app = TestbedApp(attach(run), own=launch)

    async def main() -> None:
        async with app.run_test() as pilot:
            while not (app.picture.nodes and all(n.waits for n in app.picture.nodes)):
                await app.told.wait()
                app.told.clear()
            await pilot.press("q")
            await pilot.pause()
            assert isinstance(app.screen, Ask)
            await pilot.press("tab", "enter")

    asyncio.run(main())
    assert launch.process.poll() is None
    assert deeds.do(commands.finalise(run), attach(run)) == (0, "")
    assert launch.process.wait(PATIENCE) == 0


def test_a_run_that_cannot_start_says_why(tmp_path: Path) -> None:
    """What a process that ends without a run has said is there to be read."""
    spec = tmp_path / "wrong.yml"
    spec.write_text("deployment: d\nnodes: {}\n")
    launch = Launch(commands.start(str(spec), {}, []))
    assert launch.await_run() is None
    assert "wrong.yml" in launch.said()
    assert launch.process.wait(PATIENCE) == 2


def test_events_are_followed_as_they_are_written() -> None:
    """Whole lines are taken as they come; half a line waits for its rest; a broken one is a warning."""
    directory = create("growing-20261121-000000-0000")
    append(directory, ev.encode(ev.RunStarted(1.0, "", directory.run, "d", "", 60.0, "all", "0.1")) + "\n")
    line = ev.encode(ev.NodeStarted(2.0, "a", "h", 1, "/w", "3.11"))
    with closing(Watcher([DirectorySource(directory)])) as watcher:
        watcher.until(lambda p, _: p.deployment == "d")
        append(directory, line[:10])
        append(directory, line[10:] + "\nnonsense\n")
        picture = watcher.until(lambda p, _: p.notices)
        assert [n.name for n in picture.nodes] == ["a"]


def test_a_dead_controller_is_noticed() -> None:
    """A run without a verdict whose controller is gone is told to be so, with what to do."""
    directory = create("dead-20261121-000000-0000")
    append(directory, ev.encode(ev.RunStarted(1.0, "", directory.run, "d", "", 60.0, "all", "0.1")) + "\n")
    with closing(Watcher([DirectorySource(directory)])) as watcher:
        watcher.until(lambda _, wrong: f"testbed clean {directory.run}" in wrong)
    assert [r.word for r in RunList().read()] == [GONE]


def test_etcd_away_is_said_and_ends_nothing() -> None:
    """Without etcd there is a banner, and the screen still closes at once."""
    access = Access(["http://127.0.0.1:1"], "user", "secret")
    with closing(Watcher([ScopeSource(access, "run", events=True)])) as watcher:
        watcher.until(lambda _, wrong: "etcd is away" in wrong and "trying again" in wrong)


def test_a_replay_shows_every_event_in_order(recorded: RunDirectory) -> None:
    """Played back at any speed, a recording comes to the same end as the run."""
    whole = Watcher([DirectorySource(recorded)])
    played = Watcher([Replay(recorded.read_events(), 1e6)])
    with closing(whole), closing(played):
        end = whole.until(lambda p, _: p.over)
        assert played.until(lambda p, _: p.over) == end


def test_a_paused_replay_stands_still(recorded: RunDirectory) -> None:
    """Nothing but what was shown is shown while it is paused; it goes on when told."""
    replay = Replay(recorded.read_events(), 1e6, paused=True)
    with closing(Watcher([replay])) as watcher:
        first, _ = watcher.shown.get(timeout=PATIENCE)
        moment = replay.now()
        assert replay.now() == moment
        assert not first.over
        replay.set(paused=False)
        watcher.until(lambda p, _: p.over)


def test_logs_come_merged_and_then_as_they_grow(recorded: RunDirectory) -> None:
    """First what there is, by the times that the events tell, then what is added; other nodes' workspaces too."""
    heard: SimpleQueue[LogLine] = SimpleQueue()

    def hear(lines: Sequence[LogLine]) -> None:
        for line in lines:
            heard.put(line)

    listening = HomeLogs(recorded).listen(Wanted(("modality-0", "store")), hear)
    with closing(listening):
        first = [heard.get(timeout=PATIENCE) for _ in range(17)]
        assert [line.at for line in first] == sorted(line.at for line in first)
        texts = [line.text for line in first]
        sent = next(n for n, text in enumerate(texts) if text.startswith("study 8"))
        assert texts.index("listening on port 11112") < texts.index("study 1 of 20 sent to 127.0.0.1") < sent
        assert sent < texts.index("modality-0 is through")  # the store waited for what modality-0 sets behind it
        folder = recorded.workspaces / "store" / ".testbed" / "logs"
        folder.mkdir(parents=True)
        (folder / "store.late.main.err").write_text("\x1b[31mlate\n")
        while (line := heard.get(timeout=PATIENCE)).step != "store.late.main":
            pass
        assert (line.text, line.stream) == ("late", "err")


def test_workspaces_that_go_while_their_logs_are_read(tmp_path: Path) -> None:
    """Who looks at the logs of nodes on this machine goes on when these end, and their workspaces go."""
    nodes = tuple(f"n-{n}" for n in range(10))
    for _ in range(40):
        for node in nodes:
            logs = tmp_path / "workspaces" / node / ".testbed" / "logs"
            logs.mkdir(parents=True)
            (logs / "c.test.main.out").write_text("here\n")
        heard: SimpleQueue[Sequence[LogLine]] = SimpleQueue()
        with closing(HomeLogs(RunDirectory(tmp_path)).listen(Wanted(nodes), heard.put)):
            shutil.rmtree(tmp_path / "workspaces")
            home = tmp_path / "nodes" / "n-0" / "logs"
            home.mkdir(parents=True)
            (home / "c.test.main.err").write_text("home\n")
            while not any(line.text == "home" for line in heard.get(timeout=PATIENCE)):
                pass
        shutil.rmtree(tmp_path / "nodes")


def test_links_in_what_came_home_are_not_followed(recorded: RunDirectory, tmp_path: Path) -> None:
    """A node cannot show the operator's own files by a link among its logs."""
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    folder = recorded.logs("modality-2")
    (folder / "modality.late.main.out").symlink_to(secret)
    heard: list[str] = []
    done: SimpleQueue[None] = SimpleQueue()

    def hear(lines: Sequence[LogLine]) -> None:
        heard.extend(line.text for line in lines)
        done.put(None)

    with closing(HomeLogs(recorded).listen(Wanted(("modality-2",)), hear)):
        done.get(timeout=PATIENCE)
    assert heard
    assert "secret" not in heard


def test_a_slow_screen_misses_pictures() -> None:
    """The next picture is shown only when the one before was taken in."""
    directory = create("busy-20261121-000000-0000")
    shown: SimpleQueue[Picture] = SimpleQueue()
    courier = Courier([DirectorySource(directory)], lambda picture, _: shown.put(picture), pace=0.0)
    courier.start()
    with closing(courier):
        assert shown.get(timeout=PATIENCE).events == 0
        with closing(Watcher([DirectorySource(directory)])) as quick:
            for number in range(500):
                append(directory, ev.encode(ev.NodeStarted(2.0, f"n{number}", "h", 1, "/w", "3.11")) + "\n")
            quick.until(lambda p, _: p.events == 500)
        assert shown.empty()
        courier.taken()
        assert shown.get(timeout=PATIENCE).events > 0
