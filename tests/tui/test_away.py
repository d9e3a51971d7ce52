"""A run of another machine, of which only its etcd can be reached: real agents, a real etcd that comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from textual.pilot import Pilot
from textual.widgets import Static

from testbed import events as ev
from testbed.coord.store import Change, Put
from testbed_tui.app import TestbedApp
from testbed_tui.attach import Attachment
from testbed_tui.logs import NOTE, OUT
from testbed_tui.sources import ScopeSource
from testbed_tui.views import WAITING, KeyChange
from testbed_tui.widgets.logview import LogView
from testbed_tui.widgets.table import Table
from tests.agent.conftest import machine, machines, own_etcd, shared_etcd
from tests.agent.machine import Machine, step
from tests.coord.etcd_process import EtcdProcess

__all__ = ["machine", "machines", "own_etcd", "shared_etcd"]

TALKS = "echo one; testbed set half done; testbed get -b more; echo broken >&2; testbed get -b end"


async def until(app: TestbedApp, holds: Callable[[], object]) -> None:
    """Wait until that holds; the test's own time-out bounds it."""
    while not holds():
        await app.told.wait()
        app.told.clear()


async def line(app: TestbedApp, pilot: Pilot[None], text: str) -> LogView:
    """Wait until the log shows a line with that text."""
    view = app.screen.query_one(LogView)
    while not any(text in shown.text for shown in view.lines):
        await view.grown.wait()
        view.grown.clear()
    await pilot.pause()
    return view


def begin(machine: Machine) -> None:
    """Start a node that waits, and tell of the run what a controller tells."""
    run = ev.RunStarted(1.0, "", machine.run, "far", "", 600.0, "all", "0.1")
    planned = ev.NodePlanned(1.0, "n0", 0, "lab-1", "192.0.2.1", ["a"], [["test", "a", ["main"]]])
    for number, event in enumerate((run, planned)):
        tell(machine, number, ev.encode(event).encode())
    assert machine.start(machine.plan(step("test", "main", TALKS)))["ok"]
    machine.await_line("wait_started get more")


def tell(machine: Machine, number: int, what: bytes) -> None:
    """Write an event of the controller, or what it is not."""
    machine.store.commit([Put(machine.keys.event("controller", number), what)])


def test_a_far_run_shows_its_logs(machine: Machine) -> None:
    """Over etcd alone the log shows what nodes have written and write, and how their steps end."""
    begin(machine)
    app = TestbedApp(Attachment(machine.run, None, machine.access))

    async def main() -> None:
        async with app.run_test(size=(120, 32)) as pilot:
            await until(app, lambda: app.picture.nodes and app.picture.nodes[0].waits)
            await pilot.press("3")
            view = await line(app, pilot, "one")
            machine.scope.set("more", b"two")
            await line(app, pilot, "two")
            await line(app, pilot, "broken")
            machine.scope.set("end", b"")
            await line(app, pilot, "passed")
            streams = [(shown.stream, shown.text) for shown in view.lines]
            assert (OUT, "one") in streams
            assert ("err", "broken") in streams
            assert streams[-1][0] == NOTE

    asyncio.run(main())
    machine.scope.raise_flag("finalise", "over")
    machine.await_end()


def test_a_far_run_names_its_machines(machine: Machine) -> None:
    """Without an inventory and without runs of its own a screen shows the machines of the run it looks at."""
    begin(machine)
    app = TestbedApp(Attachment(machine.run, None, machine.access))

    async def main() -> None:
        async with app.run_test(size=(120, 32)) as pilot:
            await until(app, lambda: app.picture.nodes)
            await pilot.press("5")
            for worker in [w for w in app.workers if w.group == "machines"]:
                await worker.wait()
            await pilot.pause()
            cells = [cell.text for cell in app.screen.query_one(Table).cells_at(0)]
            assert cells[:2] == ["lab-1", "192.0.2.1:22"]
            assert cells[3] == f"n0 of {machine.run}"

    asyncio.run(main())
    machine.scope.raise_flag("abort", "over")
    machine.await_end()


def test_etcd_goes_and_comes_back(own_etcd: EtcdProcess, machines: Callable[..., Machine]) -> None:
    """While etcd is away a banner says so and keys are obeyed; when it is back all goes on, whatever nonsense comes."""
    machine = machines(own_etcd.url)
    begin(machine)
    app = TestbedApp(Attachment(machine.run, None, machine.access))

    def banner() -> str:
        shown = app.screen.query_one("#banner", Static)
        return str(shown.render()) if shown.has_class("on") else ""

    async def main() -> None:
        async with app.run_test(size=(120, 32)) as pilot:
            await until(app, lambda: app.picture.nodes and app.picture.nodes[0].waits)
            await pilot.press("3")
            await line(app, pilot, "one")
            own_etcd.kill()
            await until(app, lambda: "etcd is away" in app.wrong)
            for key, mode in (("2", "run"), ("4", "coordination"), ("3", "log")):
                await pilot.press(key)
                await pilot.pause()
                assert app.current_mode == mode
                assert "trying again" in banner()
            own_etcd.start()
            await until(app, lambda: not app.wrong)
            await pilot.pause()
            assert banner() == ""
            tell(machine, 2, b"\xff nonsense")
            machine.store.commit(
                [Put(machine.keys.waiting("n0", 7), b"[]"), Put(machine.keys.values + "\x1b[2J", b"\0")]
            )
            machine.scope.set("more", b"two")
            await until(app, lambda: app.picture.notices and "more" in app.picture.values)
            await line(app, pilot, "two")
            assert app.picture.nodes[0].name == "n0"

    asyncio.run(main())
    machine.scope.set("end", b"")
    machine.scope.raise_flag("finalise", "over")
    machine.await_end()


def test_no_event_is_lost_to_a_key_that_was_heard_before_it(machine: Machine) -> None:
    """Each span of the scope is heard in order of its own: a younger key may come before an older event."""
    source = ScopeSource(machine.access, machine.run, events=True)
    heard: list[object] = []
    event = ev.NodeEnded(1.0, "n0", "passed", "")

    def changed(prefix: str, *changes: Change) -> None:
        source.take(prefix, changes, 2, heard.extend, lambda _: None)

    changed(machine.keys.events)
    changed(machine.keys.nodes)
    changed(machine.keys.nodes, Change(machine.keys.waiting("n0", 0), b"{}", 9))
    changed(machine.keys.events, Change(machine.keys.event("n0", 0), ev.encode(event).encode(), 8))
    changed(machine.keys.events, Change(machine.keys.event("n0", 0), ev.encode(event).encode(), 8))
    assert [e for e in heard if e == event] == [event]
    assert [k.place for k in heard if isinstance(k, KeyChange)] == [WAITING]
