"""The screens, driven by keys, over recorded runs; and their looks, kept as text."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static

from testbed.run.directory import RunDirectory
from testbed_tui.app import TestbedApp
from testbed_tui.attach import Attachment, attach
from testbed_tui.screens.dialogs import Ask, Equivalents, Help
from testbed_tui.sources import Replay
from testbed_tui.still import lines_of, run_still, settled
from testbed_tui.widgets.gantt import Gantt
from testbed_tui.widgets.logview import LogView
from testbed_tui.widgets.table import Table

LOOKS = Path(__file__).parent / "looks"
WIDE, NARROW = (120, 32), (80, 24)
SCREENS = {"runs": "1", "run": "2", "log": "3", "coordination": "4", "machines": "5", "report": "6"}


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize("name", SCREENS)
def test_look(name: str, size: tuple[int, int], recorded: RunDirectory) -> None:
    """Each screen looks as it did, wide and narrow (TESTBED_NEW_LOOKS=1 keeps a new look)."""
    if name == "runs" and os.getuid():
        pytest.skip("this look shows who owns the run: root")
    shown = lines_of(run_still(recorded, size, [SCREENS[name]]), size[0])
    kept = LOOKS / f"{name}-{size[0]}.txt"
    if os.environ.get("TESTBED_NEW_LOOKS"):
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(shown, "utf-8")
    assert shown == kept.read_text("utf-8")


Act = Callable[[TestbedApp, Pilot[None]], Awaitable[None]]


def drive(app: TestbedApp, act: Act, size: tuple[int, int] = WIDE) -> None:
    """Do something with a running app."""

    async def main() -> None:
        async with app.run_test(size=size, notifications=True) as pilot:
            await settled(app, pilot)
            await act(app, pilot)

    asyncio.run(main())


async def press(app: TestbedApp, pilot: Pilot[None], *keys: str) -> None:
    """Press keys, each when the app has done what the one before asked for."""
    for key in keys:
        await pilot.press(key)
        await settled(app, pilot)


def app_of(directory: RunDirectory) -> TestbedApp:
    """The app over a run."""
    return TestbedApp(attach(directory.run))


def test_keys_change_screens(recorded: RunDirectory) -> None:
    """1 to 6 show the six screens, from each of them."""

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:
        for name, key in SCREENS.items():
            await press(app, pilot, key)
            assert app.current_mode == name

    drive(app_of(recorded), act)


def test_runs_are_opened_sorted_and_filtered(recorded: RunDirectory, home: Path) -> None:
    """Enter looks at the run under the cursor, s sorts, / filters, escape shows all again."""
    other = home / "runs" / "quiet-20261121-000000-0000"
    other.mkdir()
    (other / "run-id").write_text(other.name)
    (other / "events.jsonl").write_bytes((Path(__file__).parent.parent / "cases/events/pass.jsonl").read_bytes())

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "1")
        table = app.screen.query_one(Table)
        assert table.row_count == 2
        await press(app, pilot, "slash", *"quiet", "enter")
        assert (table.row_count, table.chosen) == (1, other.name)
        await press(app, pilot, "enter")
        assert (app.current_mode, app.attachment and app.attachment.run) == ("run", other.name)
        await press(app, pilot, "1", "escape", "s")
        assert table.row_count == 2
        assert "verdict first" in str(app.screen.query_one("#detail", Static).render())

    drive(app_of(recorded), act)


def test_nodes_are_filtered_and_their_logs_opened(recorded: RunDirectory) -> None:
    """/ and t leave the nodes that are wanted; Enter shows the log of the one under the cursor."""

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:
        table = app.screen.query_one(Table)
        assert table.row_count == 5
        await press(app, pilot, "slash", *"modality-0", "enter")
        assert (table.row_count, table.chosen) == (1, "modality-0")
        await press(app, pilot, "enter")
        assert app.current_mode == "log"
        view = app.screen.query_one(LogView)
        await lines_in(view, 10)
        assert {line.node for line in view.lines} == {"modality-0"}

    drive(app_of(recorded), act)


async def lines_in(view: LogView, count: int) -> None:
    """Wait until the log has so many lines; the test's own time-out bounds it."""
    while len(view.lines) < count:
        await view.grown.wait()
        view.grown.clear()


def test_the_log_is_searched_parted_and_saved(
    recorded: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/ n N find, o parts stdout from stderr, w writes what is seen."""
    monkeypatch.chdir(tmp_path)

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "3")
        view = app.screen.query_one(LogView)
        await lines_in(view, 43)
        await press(app, pilot, "slash", *"study 8", "enter")
        first = view.point
        assert "study 8" in view.lines[first].text
        await press(app, pilot, "n")
        assert view.point > first
        await press(app, pilot, "N")
        assert view.point == first
        await press(app, pilot, "escape", "o", "o")
        assert {line.stream for line in view.lines} == {"err"}
        await press(app, pilot, "w", *"saved.txt", "enter")
        assert "E: peer aborted association" in (tmp_path / "saved.txt").read_text()

    drive(app_of(recorded), act)


def test_a_result_opens_its_log_where_it_stopped(recorded: RunDirectory) -> None:
    """The report begins at the first cause; Enter points at the last complaint of that step."""

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "6")
        assert app.screen.query_one("#resulttable", Table).chosen == "modality-2/test/modality/main"
        await press(app, pilot, "enter")
        view = app.screen.query_one(LogView)
        await lines_in(view, 10)
        await settled(app, pilot)
        assert view.lines[view.point].text == "E: peer aborted association (0x0103)"

    drive(app_of(recorded), act)


def test_the_report_lists_cases_and_files(recorded: RunDirectory) -> None:
    """J and l show what lies in the run's directory, failed cases first."""

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "6", "j")
        cases = app.screen.query_one("#casetable", Table)
        assert "failed" in cases.cells_at(0)[2].text
        await press(app, pilot, "l")
        files = app.screen.query_one("#filetable", Table)
        names = {files.cells_at(n)[0].text for n in range(files.row_count)}
        assert "nodes/modality-1/reports/done.txt" in names

    drive(app_of(recorded), act)


def test_coordination_has_four_tabs(recorded: RunDirectory) -> None:
    """w, k, b and t show waits, keys, barriers and the timeline; + and - zoom it."""

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "4", "k")
        keys = app.screen.query_one("#keytable", Table)
        assert {keys.cells_at(n)[0].text for n in range(keys.row_count)} >= {"store.ready", "sent.modality-0"}
        await press(app, pilot, "w")
        assert "nobody waits" in app.screen.query_one("#waittable", Table).cells_at(0)[0].text
        await press(app, pilot, "b")
        assert "no barrier" in app.screen.query_one("#barriertable", Table).cells_at(0)[0].text
        await press(app, pilot, "t", "plus", "down")
        assert app.screen.query_one(Gantt).zoom == 2
        await press(app, pilot, "minus")
        assert app.screen.query_one(Gantt).zoom == 1

    drive(app_of(recorded), act)


def test_commands_are_copied_as_they_would_be_typed(recorded: RunDirectory) -> None:
    """Y offers the command lines that do the same; the chosen one is in the clipboard."""

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "y")
        assert isinstance(app.screen, Equivalents)
        app.screen.query_one(OptionList).highlighted = 1
        await press(app, pilot, "enter")
        assert app.clipboard == f"testbed logs {recorded.run} store"

    drive(app_of(recorded), act)


def test_a_run_that_is_over_is_not_aborted(recorded: RunDirectory) -> None:
    """A and f say that the run is over, and ask nothing."""

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "a", "f")
        assert not isinstance(app.screen, Ask)

    drive(app_of(recorded), act)


def test_cleaning_is_confirmed_first(recorded: RunDirectory) -> None:
    """C asks, and shows the command that it is about to run; escape does nothing."""

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "c")
        assert isinstance(app.screen, Ask)
        words = " ".join(str(s.render()) for s in app.screen.query(Static))
        assert f"testbed clean {recorded.run}" in words
        await press(app, pilot, "escape")
        assert not isinstance(app.screen, Ask)

    drive(app_of(recorded), act)


def test_help_explains_every_sign(recorded: RunDirectory) -> None:
    """? tells what each sign means; escape closes it."""

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "question_mark")
        assert isinstance(app.screen, Help)
        text = str(app.screen.query_one(Static).render())
        assert all(word in text for word in ("passed", "timeout", "waiting", "lost"))
        await press(app, pilot, "escape")
        assert not isinstance(app.screen, Help)

    drive(app_of(recorded), act)


def test_a_recording_pauses_and_changes_its_speed(recorded: RunDirectory) -> None:
    """space, < and > work on a recording; the title says so."""
    replay = Replay(recorded.read_events(), 1e6)

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "greater_than_sign")
        assert replay.speed == 10000.0
        await press(app, pilot, "less_than_sign", "space")
        assert (replay.speed, replay.paused) == (5000.0, False)
        assert "replay ended" in str(app.screen.query_one("#title", Static).render())

    drive(TestbedApp(Attachment(recorded.run, recorded, replay=replay)), act)


def test_colours_are_never_the_only_sign(recorded: RunDirectory) -> None:
    """Where a state is shown, its word or sign is in the text."""
    shown = lines_of(run_still(recorded, NARROW, ["2"]), 80)
    assert "✗ failed" in shown
    assert "⊘ aborted" in shown


def test_the_palette_offers_the_deeds(recorded: RunDirectory) -> None:
    """The command palette knows the screens and what can be done."""

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:  # noqa: ARG001  no key is pressed
        names = {command.title for command in app.get_system_commands(app.screen)}
        assert {"Screen: coordination", "Start a run", "Abort the run", "Theme"} <= names

    drive(app_of(recorded), act)


def test_the_form_refuses_wrong_values_in_place(recorded: RunDirectory, tmp_path: Path) -> None:
    """A field says what is wrong with its value, and nothing starts until nothing is wrong."""
    spec = tmp_path / "spec.yml"
    spec.write_text(
        "deployment: d\nparameters:\n  count: {type: integer, default: 3, minimum: 1, title: How many}\n"
        "configurations: {c: {test: 'true'}}\nnodes: {n: {configurations: [c]}}\n"
    )

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:
        app.action_start()
        await settled(app, pilot)
        app.screen.query_one("#spec", Input).value = str(spec)
        await press(app, pilot, "enter")
        box = app.screen.query_one("#f0", Input)
        assert box.value == "3"
        box.value = "0"
        await settled(app, pilot)
        assert "must be at least 1" in str(app.screen.query_one("#f0-wrong", Static).render())
        await press(app, pilot, "ctrl+s")
        assert app.screen.query("#f0")
        assert not list(tmp_path.glob("state/started/*"))

    drive(app_of(recorded), act)


def test_nothing_of_a_screen_is_left_in_the_run(recorded: RunDirectory) -> None:
    """Looking changes nothing: the run's directory is as it was."""

    def facts() -> dict[str, tuple[int, float]]:
        return {str(p): (stat.S_IMODE(s.st_mode), s.st_mtime) for p in recorded.path.rglob("*") if (s := p.stat())}

    before = facts()

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, *SCREENS.values())

    drive(app_of(recorded), act)
    assert facts() == before
