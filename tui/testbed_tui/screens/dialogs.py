"""Questions: with a reason to give, with choices, and help."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, OptionList, Static
from textual.widgets.option_list import Option

from testbed_tui.commands import Command


class Ask(ModalScreen[str | None]):
    """A question with one to three answers, and room for a text where ``hint`` is given; gives the answer, or None.

    The answer is the text where there is room for one, else the name of the button.
    """

    BINDINGS = [("escape", "dismiss(None)", "No")]

    def __init__(self, question: str, command: str, answers: Sequence[str], hint: str | None = None) -> None:
        super().__init__()
        self._question, self._command, self._answers, self._hint = question, command, answers, hint

    def compose(self) -> ComposeResult:
        """Make the dialogue."""
        with Vertical(classes="dialog"):
            yield Static(Text(self._question))
            if self._command:
                yield Static(Text(f"the same by hand: {self._command}"), classes="command")
            if self._hint is not None:
                yield Input(placeholder=self._hint, id="text", compact=True)
            with Horizontal(classes="buttons"):
                for number, answer in enumerate(self._answers):
                    yield Button(answer, variant="error" if number == 0 else "default", name=answer)
                yield Button("Cancel", name="")

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter in the text is the first answer."""
        event.stop()
        self.dismiss(event.value.strip())

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """Answer."""
        event.stop()
        if not event.button.name:
            self.dismiss(None)
        elif self._hint is not None:
            self.dismiss(self.query_one(Input).value.strip())
        else:
            self.dismiss(event.button.name)


class Equivalents(ModalScreen[Command | None]):
    """The commands that do what the screen does; gives the one to copy."""

    BINDINGS = [("escape", "dismiss(None)", "Close")]

    def __init__(self, commands: Sequence[Command]) -> None:
        super().__init__()
        self._commands = commands

    def compose(self) -> ComposeResult:
        """Make the list."""
        with Vertical(classes="dialog"):
            yield Static("Copy a command")
            yield OptionList(*(Option(Text(c.text)) for c in self._commands))

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Give the chosen one."""
        event.stop()
        self.dismiss(self._commands[event.option_index])


class Help(ModalScreen[None]):
    """What the signs mean, and every key."""

    BINDINGS = [("escape,question_mark,q", "dismiss", "Close")]

    def __init__(self, text: Text) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """Make the page."""
        with VerticalScroll(classes="dialog"):
            yield Static(self._text)
