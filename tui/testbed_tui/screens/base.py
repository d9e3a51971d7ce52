"""What all screens have: the top, the banner, the footer, and a picture that comes from above."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from rich.text import Text
from textual.app import ComposeResult
from textual.screen import Screen
from textual.widgets import Footer, Static

from testbed.report.text import span
from testbed_tui.signs import look
from testbed_tui.views import Picture
from testbed_tui.widgets.top import Top

if TYPE_CHECKING:
    from testbed_tui.app import TestbedApp


class View(Screen[None]):
    """A screen of the app; `show` is called with every new picture while it is seen, and when it comes to be seen."""

    MODE = ""
    AUTO_FOCUS = "Table, LogView, Gantt"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]

    @property
    def owner(self) -> TestbedApp:
        """The app, by its own type."""
        return cast("TestbedApp", self.app)

    @property
    def wide(self) -> bool:
        """Whether there is room for the wide layout."""
        return self.size.width >= 100

    def compose(self) -> ComposeResult:
        """Make the frame around `body`."""
        yield Top(self.MODE)
        yield Static(id="banner")
        yield from self.body()
        yield Footer(compact=True, show_command_palette=False)

    def body(self) -> ComposeResult:
        """What is the screen's own."""
        yield from ()

    def on_mount(self) -> None:
        """Start the clock that durations go by."""
        self.set_interval(1.0, self.tick)

    def on_screen_resume(self) -> None:
        """Show what has happened since it was seen last."""
        self.refresh_view()

    def on_resize(self) -> None:
        """Lay out anew."""
        self.call_after_refresh(self.refresh_view)

    def tick(self) -> None:
        """A second has passed: what says how long something takes is drawn anew."""
        if self.is_current and not self.owner.picture.over:
            self.refresh_view()

    def refresh_view(self) -> None:
        """Show the app's picture."""
        if not self.is_mounted or not self.is_current:
            return
        picture, now = self.owner.picture, self.owner.now()
        self.query_one(Top).say(title(picture, now, self.owner))
        banner = self.query_one("#banner", Static)
        wrong = self.owner.wrong
        banner.set_class(bool(wrong), "on")
        banner.update(Text(f"! {wrong}" if wrong else ""))
        self.show(picture, now)

    def chosen_node(self) -> str | None:
        """The node that is looked at, for what can be done with one."""
        return None

    def copy_command(self) -> None:
        """Offer the command lines that do the same."""
        self.owner.copy_command(self.chosen_node())

    def show(self, picture: Picture, now: float) -> None:
        """Show the picture; ``now`` is the run's time in Unix seconds."""


def title(picture: Picture, now: float, app: TestbedApp) -> str:
    """The run, how it stands, and how a recording is played."""
    if app.attachment is None:
        return "testbed - no run chosen"
    word = picture.verdict or ("running" if picture.started_at is not None else "waiting for its first event")
    took = picture.duration if picture.over else (now - picture.started_at if picture.started_at else None)
    text = f"{app.attachment.run}  {look(word).sign} {word}"
    if took is not None:
        text += f"  {span(max(0.0, took))}"
    if picture.timeout is not None and picture.started_at is not None and not picture.over:
        left = picture.started_at + picture.timeout - now
        text += f"  {span(left)} left" if left > 0 else "  deadline passed"
    replay = app.attachment.replay
    if replay is not None:
        state = "ended" if picture.over else "paused" if replay.paused else f"{replay.speed:g}x"
        text += f"  replay {state}"
    return text
