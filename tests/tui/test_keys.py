"""Keys that other tests do not press, each on its screen."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.command import CommandPalette
from textual.pilot import Pilot
from textual.widgets import OptionList, Select, Static
from textual.widgets._toast import Toast

from testbed import events as ev
from testbed.run.directory import RunDirectory
from testbed_tui.app import TestbedApp
from testbed_tui.logs import OUT, LogLine
from testbed_tui.screens.dialogs import Ask, Equivalents
from testbed_tui.screens.start import StartForm
from testbed_tui.widgets.logview import LogView
from testbed_tui.widgets.table import Table
from tests.tui.test_app import app_of, drive, lines_in, press


def test_the_log_goes_through_nodes_and_back_to_all(recorded: RunDirectory) -> None:
    """] and [ choose the next node and the one before, a all of them; f stops following and goes on, t hides times."""

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "3", "right_square_bracket")
        box, view = app.screen.query_one("#node", Select), app.screen.query_one(LogView)
        assert box.value == "store"
        await press(app, pilot, "right_square_bracket", "left_square_bracket", "left_square_bracket")
        assert box.value == ""
        await press(app, pilot, "left_square_bracket")
        assert box.value == "reader"
        await press(app, pilot, "a")
        assert box.value == ""
        await press(app, pilot, "f")
        assert not view.follow
        await press(app, pilot, "f", "t")
        assert (view.follow, view.times) == (True, False)

    drive(app_of(recorded), act)


def test_lines_that_come_late_stand_at_their_time(recorded: RunDirectory) -> None:
    """A log that comes home after others is put between their lines; the line that is pointed at stays pointed at."""

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "3")
        view = app.screen.query_one(LogView)
        await lines_in(view, 43)
        view.begin({}, True, 0.0)
        view.add([LogLine("a", "s", OUT, "first", 1.0), LogLine("a", "s", OUT, "last", 3.0)])
        view.go_to(1)
        view.add([LogLine("b", "s", OUT, "between", 2.0, True)])
        assert [line.text for line in view.lines] == ["first", "between", "last"]
        assert view.lines[view.point].text == "last"

    drive(app_of(recorded), act)


@pytest.mark.parametrize("screen", "23456")
def test_every_screen_offers_commands(recorded: RunDirectory, screen: str) -> None:
    """Y offers command lines everywhere; escape copies none."""

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, screen, "y")
        assert isinstance(app.screen, Equivalents)
        assert app.screen.query_one(OptionList).option_count >= 5
        await press(app, pilot, "escape")
        assert app.clipboard == ""

    drive(app_of(recorded), act)


def test_tables_are_walked(recorded: RunDirectory) -> None:
    """Arrows, page keys, home and end move the cursor; a click chooses a row; t leaves those in trouble."""

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "2")
        table = app.screen.query_one(Table)
        seen = []
        for key in ("end", "up", "home", "down", "pagedown", "pageup"):
            await press(app, pilot, key)
            seen.append(table.cursor)
        assert seen == [4, 3, 0, 1, 4, 0]
        await pilot.click(Table, offset=(3, 3))
        assert table.chosen == "modality-1"
        await press(app, pilot, "t")
        assert table.row_count == 5
        await press(app, pilot, "t", "s")  # a shell has no terminal here: its command is copied
        assert "workspaces/modality-1" in app.clipboard

    drive(app_of(recorded), act)


def test_runs_and_machines_obey_their_keys(recorded: RunDirectory) -> None:
    """C on the runs asks first, n opens the form, r reads again; r on the machines asks them again."""

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "1", "c")
        assert isinstance(app.screen, Ask)
        await press(app, pilot, "escape", "y")
        assert isinstance(app.screen, Equivalents)
        await press(app, pilot, "escape", "n")
        assert isinstance(app.screen, StartForm)
        await press(app, pilot, "escape", "r", "5")
        table = app.screen.query_one(Table)
        assert table.row_count == 5
        app.machines = ()
        await press(app, pilot, "r")
        assert len(app.machines) == 5
        assert "5 machines" in str(app.screen.query_one("#detail", Static).render())

    drive(app_of(recorded), act)


def test_the_palette_opens_and_closes(recorded: RunDirectory) -> None:
    """ctrl+p opens the command palette, escape closes it."""

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "ctrl+p")
        assert isinstance(app.screen, CommandPalette)
        await press(app, pilot, "escape")
        assert not isinstance(app.screen, CommandPalette)

    drive(app_of(recorded), act)


def test_brackets_are_no_markup(recorded: RunDirectory) -> None:
    """What is typed, told, or comes from a node is shown with its brackets, whatever they would mean as markup."""
    lines = recorded.events.read_text("utf-8").splitlines(keepends=True)
    odd = ev.encode(ev.StepStarted(2.0, "modality-0", "test", "[/x]", "[bold", None))
    recorded.events.write_text("".join([*lines[:-1], odd + "\n", lines[-1]]), "utf-8")

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "2", "3")
        assert "test.[/x].[bold" in [str(prompt) for prompt, _ in app.screen.query_one("#step", Select)._options]
        await lines_in(app.screen.query_one(LogView), 43)
        await press(app, pilot, "slash", *"[/no", "enter")
        assert "0 lines with '[/no'" in str(app.screen.query_one("#logstate", Static).render())
        app.notify("aborted: see [/bug]", title="[/bug]")
        await press(app, pilot, "5", "2")
        assert {toast.render().plain for toast in app.screen.query(Toast)} == {
            "'[/no' is nowhere in it", "[/bug]\naborted: see [/bug]"
        }  # fmt: skip

    drive(app_of(recorded), act)


def test_a_state_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where runs cannot be kept the screen says so, and goes on: there may be runs of other machines to look at."""
    monkeypatch.setenv("TESTBED_STATE_HOME", "/proc/nowhere")

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "1")
        (told,) = app._notifications
        assert "cannot be looked for: No such file or directory: /proc/nowhere" in told.message
        assert "TESTBED_STATE_HOME" in told.message

    drive(TestbedApp(), act)


def test_saving_never_overwrites(recorded: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W into a file that is there says so, and leaves it as it is."""
    monkeypatch.chdir(tmp_path)
    kept = tmp_path / "kept.txt"
    kept.write_text("mine")

    async def act(app: TestbedApp, pilot: Pilot[None]) -> None:
        await press(app, pilot, "3")
        await lines_in(app.screen.query_one(LogView), 43)
        await press(app, pilot, "w", *"kept.txt", "enter")
        assert any("File exists" in note.message for note in app._notifications)

    drive(app_of(recorded), act)
    assert kept.read_text() == "mine"
