"""The app: which run is looked at, which screen shows it, and what an operator may do to it."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar

from textual import work
from textual.app import App, SystemCommand
from textual.message import Message
from textual.notifications import SeverityLevel
from textual.screen import Screen

from testbed.errors import LabError, TestbedError
from testbed_tui import commands, deeds, fleet
from testbed_tui.attach import Attachment, attach
from testbed_tui.commands import Command
from testbed_tui.courier import Courier
from testbed_tui.fleet import MachineRow, RunList, RunRow
from testbed_tui.help import help_text
from testbed_tui.inotify import Changes
from testbed_tui.launch import Launch
from testbed_tui.screens.base import View
from testbed_tui.screens.coordination import CoordinationView
from testbed_tui.screens.dialogs import Ask, Equivalents, Help
from testbed_tui.screens.log import LogsView
from testbed_tui.screens.machines import MachinesView
from testbed_tui.screens.report import ReportView
from testbed_tui.screens.run import RunView
from testbed_tui.screens.runs import RunsView
from testbed_tui.screens.start import StartForm
from testbed_tui.views import Picture

TURN = 0.0005
"""Seconds after which the thread that folds events lets the screen have its turn; a key takes several."""

RARELY = (20_000, 20, 50)
"""Thresholds of the search for circles of objects, which would stop a large run's screen for a tenth of a second."""

LEAVE, STOP = "Leave it running", "Abort it"


class TestbedApp(App[None]):
    """The operator's screen. ``own`` is a run started for it: leaving asks what becomes of that run."""

    __test__ = False
    TITLE = "testbed"
    CSS_PATH = "testbed_tui.tcss"
    MODES: ClassVar[dict[str, type[View]]] = {  # type: ignore[assignment]
        "runs": RunsView, "run": RunView, "log": LogsView, "coordination": CoordinationView,
        "machines": MachinesView, "report": ReportView,
    }  # fmt: skip
    BINDINGS = [
        ("1", "switch_mode('runs')", ""), ("2", "switch_mode('run')", ""), ("3", "switch_mode('log')", ""),
        ("4", "switch_mode('coordination')", ""), ("5", "switch_mode('machines')", ""),
        ("6", "switch_mode('report')", ""),
        ("y", "copy", "Copy"), ("q", "quit", "Quit"), ("question_mark", "help", "Help"),
        ("space", "pause", ""), ("greater_than_sign", "faster(2.0)", ""), ("less_than_sign", "faster(0.5)", ""),
    ]  # fmt: skip

    class NewPicture(Message):
        """A courier has a new picture."""

        def __init__(self, courier: Courier, picture: Picture, wrong: str) -> None:
            super().__init__()
            self.courier, self.picture, self.wrong = courier, picture, wrong

    class RunsRead(Message):
        """The list of runs was read again."""

        def __init__(self, runs: Sequence[RunRow]) -> None:
            super().__init__()
            self.runs = runs

    def __init__(
        self,
        attachment: Attachment | None = None,
        inventories: Sequence[str] = (),
        own: Launch | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self.attachment = attachment
        self.inventories: tuple[str, ...] = tuple(inventories)
        self.clock = clock
        self.picture = Picture()
        self.wrong = ""
        self.runs: Sequence[RunRow] = ()
        self.machines: Sequence[MachineRow] = ()
        self.reachable: dict[str, str] = {}
        self.runs_read = False
        self.told = asyncio.Event()  # set whenever there is something new
        self._own = own
        self._courier: Courier | None = None
        self._changes = Changes()
        self._ending = threading.Event()

    # --- what is looked at --------------------------------------------------------------------------------------

    def on_mount(self) -> None:
        """Begin with the run, or with all runs where none was named."""
        sys.setswitchinterval(TURN)
        gc.set_threshold(*RARELY)
        self.switch_mode("run" if self.attachment is not None else "runs")
        self._read_runs()
        if self.attachment is not None:
            self._follow(self.attachment)

    def on_unmount(self) -> None:
        """Let go of everything."""
        self._ending.set()
        self._changes.wake()
        if self._courier is not None:
            self._courier.close()

    def now(self) -> float:
        """The time by which the run's durations are counted, Unix seconds."""
        if self.attachment is not None and self.attachment.replay is not None:
            return self.attachment.now()
        return self.clock()

    def _follow(self, attachment: Attachment) -> None:
        if self._courier is not None:
            threading.Thread(target=self._courier.close, name="farewell").start()
        self.attachment, self.picture, self.wrong = attachment, Picture(), ""

        def show(picture: Picture, wrong: str) -> None:
            self.post_message(self.NewPicture(courier, picture, wrong))

        self._courier = courier = Courier(attachment.sources(), show)
        courier.start()

    def on_testbed_app_new_picture(self, event: NewPicture) -> None:
        """Show the picture on the screen that is seen."""
        if event.courier is self._courier:
            self.picture = event.picture
            self.wrong = event.wrong
            self._refresh()
        event.courier.taken()
        self.told.set()

    def on_testbed_app_runs_read(self, event: RunsRead) -> None:
        """Show the runs where they are seen."""
        self.runs, self.runs_read = event.runs, True
        self.told.set()
        if self.current_mode in ("runs", "machines"):
            self._refresh()

    def _refresh(self) -> None:
        base = self.screen_stack[0] if self.screen_stack else None
        for screen in {base, self.screen}:
            if isinstance(screen, View):
                screen.refresh_view()

    @work(thread=True, group="runs", exclusive=True)
    def _read_runs(self) -> None:
        """Read the runs, and again whenever something has changed, until the app ends."""
        try:
            for rows in fleet.follow_runs(self._changes, self._ending):
                self.post_message(self.RunsRead(rows))
        except LabError as error:
            self.call_from_thread(self.complain, error)
            self.post_message(self.RunsRead(()))
        finally:
            self._changes.close()

    def action_reread(self) -> None:
        """Read the list of runs again."""
        self._changes.wake()

    def open_run(self, name: str) -> None:
        """Look at another run."""
        try:
            found = attach(name)
        except TestbedError as error:
            self.complain(error)
            return
        self._follow(found)
        self.switch_mode("run")

    def open_log(self, node: str | None, step: str = "", at_failure: bool = False) -> None:
        """Look at a node's log."""
        self.switch_mode("log")

        def show() -> None:
            if isinstance(self.screen, LogsView):
                self.screen.open(node, step, at_failure)

        self.call_after_refresh(show)

    # --- what is done -------------------------------------------------------------------------------------------

    def action_abort(self) -> None:
        """Abort the run, once a reason was given."""
        if not self._is_live():
            return
        assert self.attachment is not None  # noqa: S101  a live run is one that is looked at
        run = self.attachment.run
        question = f"Abort {run}? All nodes stop what they do, and finalise."

        def answered(reason: str | None) -> None:
            if reason is not None:
                self.operate(commands.abort(run, reason or "aborted on the operator's screen"))

        self.push_screen(
            Ask(question, commands.abort(run, "...").text, ["Abort"], hint="why? (Enter aborts)"), answered
        )

    def action_finalise(self) -> None:
        """Let the run finalise, once confirmed."""
        if not self._is_live():
            return
        assert self.attachment is not None  # noqa: S101  a live run is one that is looked at
        command = commands.finalise(self.attachment.run)
        self._confirm(f"Let all nodes of {self.attachment.run} finalise?", command, "Finalise")

    def action_clean(self) -> None:
        """Clean up after the run, once confirmed."""
        if self.attachment is not None:
            self.ask_clean(self.attachment.run)

    def ask_clean(self, run: str) -> None:
        """Clean up after that run, once confirmed."""
        self._confirm(f"Run the clean targets of {run}, and fetch what was left?", commands.clean(run), "Clean")

    def _confirm(self, question: str, command: Command, answer: str) -> None:
        def answered(given: str | None) -> None:
            if given is not None:
                self.operate(command)

        self.push_screen(Ask(question, command.text, [answer]), answered)

    def _is_live(self) -> bool:
        if self.attachment is None or self.picture.over or self.attachment.replay is not None:
            self.notify("the run is over" if self.attachment is not None else "no run is chosen", severity="warning")
            return False
        return True

    @work(thread=True, group="deeds")
    def operate(self, command: Command) -> None:
        """Carry out a command, and say how that went."""
        self.call_from_thread(self.notify, command.text, title="under way")
        code, said = deeds.do(command, self.attachment)
        if code:
            self.call_from_thread(self.notify, said or f"exit code {code}", title=command.text, severity="error")
        else:
            self.call_from_thread(self.notify, said or "done", title=command.text)

    def copy_command(self, node: str | None, run: str | None = None) -> None:
        """Ask which command to copy, and put it into the clipboard."""
        run = run or (self.attachment.run if self.attachment is not None else None)
        if run is None:
            return

        def chosen(command: Command | None) -> None:
            if command is not None:
                self.copy_to_clipboard(command.text)
                self.notify(command.text, title="copied")

        self.push_screen(Equivalents(commands.equivalents(run, node)), chosen)

    @work(thread=True, group="deeds")
    def open_shell(self, node: str | None) -> None:
        """Open a shell on the node's machine."""
        directory = self.attachment.directory if self.attachment is not None else None
        if node is None or directory is None:
            return
        try:
            command = deeds.shell_of(directory, node)
        except TestbedError as error:
            self.call_from_thread(self.complain, error)
        else:
            self.call_from_thread(self._enter, command)

    @work(thread=True, group="deeds")
    def open_shell_on(self, machine: str, workspace: str) -> None:
        """Open a shell on a machine of the inventory."""
        try:
            command = deeds.shell_on(self.inventories, machine, workspace)
        except TestbedError as error:
            self.call_from_thread(self.complain, error)
        else:
            self.call_from_thread(self._enter, command)

    def _enter(self, command: Command) -> None:
        """Give the terminal away for as long as the shell lives; where there is none to give, the command is copied."""
        if not deeds.enter(self, command):
            self.copy_to_clipboard(command.text)
            self.notify(command.text, title="no terminal here: copied")

    @work(thread=True, group="machines", exclusive=True)
    def ask_machines(self) -> None:
        """Read the inventory, and try to reach every machine of it."""
        runs = self.runs or RunList().read()
        sources = self.inventories or fleet.inventories_of(runs)
        try:
            inventory = deeds.inventory_of(sources)
        except TestbedError as error:
            self.call_from_thread(self.complain, error)
            inventory = None
        self.inventories = tuple(sources)
        self.machines = fleet.machines_of(inventory, runs, self.picture.nodes)
        self.call_from_thread(self._refresh)
        self.reachable = fleet.reach(self.machines)
        self.call_from_thread(self._refresh)

    def action_start(self) -> None:
        """Start a run through a form."""
        specs = deeds.known_specs(self.runs)
        inventory = next((i for i in self.inventories), "")
        self.push_screen(StartForm(specs, inventory), self._start)

    def _start(self, command: Command | None) -> None:
        if command is not None:
            self._launch(command)

    @work(thread=True, group="deeds")
    def _launch(self, command: Command) -> None:
        """Start the run as a process of its own, and look at it once it has begun."""
        self.call_from_thread(self.notify, command.text, title="starting")
        launch = Launch(command)
        run = launch.await_run()
        if run is None:
            said = launch.said() or "it said nothing"
            self.call_from_thread(self.notify, said, title="it did not start", severity="error", timeout=30)
        else:
            self.call_from_thread(self.open_run, run)

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,  # noqa: ARG002  Textual's signature
    ) -> None:
        """Tell the operator, as it stands there: what is told comes from users and nodes, and brackets are none."""
        super().notify(message, title=title, severity=severity, timeout=timeout, markup=False)

    def complain(self, error: TestbedError) -> None:
        """Tell of an error as the command line would."""
        text = error.message + (f"\nhelp: {error.help}" if error.help else "")
        self.notify(text, severity="error", timeout=12)

    # --- the rest -----------------------------------------------------------------------------------------------

    async def action_quit(self) -> None:
        """Leave; a run that was started for this screen does not end unasked."""
        if self._own is None or self.picture.over or self._own.process.returncode is not None:
            self.exit()
            return

        def answered(answer: str | None) -> None:
            if answer == LEAVE:
                self.exit()
            elif answer == STOP and self.attachment is not None:
                self.operate(commands.abort(self.attachment.run, "the operator left the screen"))

        self.push_screen(Ask("The run goes on. What is to become of it?", "", [STOP, LEAVE]), answered)

    def action_copy(self) -> None:
        """Copy the command line that does what the screen does."""
        if isinstance(self.screen, View):
            self.screen.copy_command()

    def action_help(self) -> None:
        """Explain signs and keys."""
        self.push_screen(Help(help_text()))

    def action_pause(self) -> None:
        """Let a recording stand still, or go on."""
        replay = self.attachment.replay if self.attachment is not None else None
        if replay is not None:
            replay.set(paused=not replay.paused)
            self._refresh()

    def action_faster(self, factor: float) -> None:
        """Play a recording faster or slower."""
        replay = self.attachment.replay if self.attachment is not None else None
        if replay is not None:
            replay.set(speed=min(10000.0, max(0.125, replay.speed * factor)))
            self._refresh()

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """The command palette: Textual's own, the screens, and what can be done."""
        yield from super().get_system_commands(screen)
        for mode in self.MODES:
            yield SystemCommand(f"Screen: {mode}", f"Show {mode}", lambda mode=mode: self.switch_mode(mode))
        for name, told, do in (
            ("Start a run", "Choose a spec and its parameters", self.action_start),
            ("Abort the run", "All nodes stop and finalise", self.action_abort),
            ("Finalise the run", "All nodes end what they are at", self.action_finalise),
            ("Clean up after the run", "Its clean targets", self.action_clean),
        ):
            yield SystemCommand(name, told, do)
