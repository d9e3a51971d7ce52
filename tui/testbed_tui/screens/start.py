"""Starting a run: a spec, and a form made from its parameters."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text
from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.suggester import SuggestFromList
from textual.widget import Widget
from textual.widgets import Button, Input, Label, Select, Static

from testbed.diagnostics import render
from testbed.errors import SpecError, TestbedError
from testbed_tui import commands
from testbed_tui.commands import Command
from testbed_tui.form import Field, Form, form_of


class StartForm(ModalScreen[Command | None]):
    """Asks for a spec, then for its parameters; gives the command that starts the run."""

    BINDINGS = [("escape", "dismiss(None)", "Close"), ("ctrl+s", "start", "Start")]

    def __init__(self, specs: Sequence[str], inventory: str) -> None:
        super().__init__()
        self._specs, self._inventory = specs, inventory
        self._form: Form | None = None

    def compose(self) -> ComposeResult:
        """Make the form, still without fields."""
        with Vertical(classes="dialog"):
            yield Label("Start a run of which spec? (Enter reads it)")
            yield Input(
                placeholder="path of a deployment spec", id="spec", suggester=SuggestFromList(self._specs),
                value=self._specs[0] if self._specs else "", compact=True,
            )  # fmt: skip
            yield VerticalScroll(id="fields")
            yield Static(id="said")
            with Horizontal(classes="buttons"):
                yield Button("Start (ctrl+s)", variant="primary", id="start", disabled=True, compact=True)
                yield Button("Cancel (esc)", id="cancel", compact=True)

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter in the path reads the spec, elsewhere it goes on to the next field."""
        event.stop()
        if event.input.id == "spec":
            await self.read_spec(Path(event.value).expanduser())
        else:
            self.focus_next()

    async def read_spec(self, path: Path) -> None:
        """Make the fields of that spec."""
        box = self.query_one("#fields", VerticalScroll)
        await box.remove_children()
        self.query_one("#start", Button).disabled = True
        try:
            self._form = form = await asyncio.to_thread(form_of, path)
        except SpecError as error:
            self._say(render(error.diagnostics, error.sources))
            return
        except TestbedError as error:
            self._say(error.message)
            return
        self._say("")
        fields = [self._field(f"f{number}", f) for number, f in enumerate(form.fields)]
        inventory = Field("", "Inventory", "", "empty: every node is a workspace on this machine", self._inventory)
        asked = [
            self._field(name, Field("", title, "", "", "no", ("no", "yes")))
            for name, title in (("continue", "Go on after a failed step"), ("clean", "Run the clean targets first"))
        ]
        await box.mount(
            Label(Text(f"{form.deployment}: {len(fields)} parameters")), *fields, self._field("inventory", inventory),
            *asked,
        )  # fmt: skip
        self.query_one("#start", Button).disabled = False
        first = box.query("Input, Select").first()
        first.focus(scroll_visible=False)

    def _field(self, name: str, field: Field) -> Widget:
        title = Text(field.name, "bold")
        title.append(f"  {field.title}" if field.name else field.title, "not bold")
        value: Widget
        if field.choices:
            choices = [(Text(c), c) for c in field.choices]
            if field.default in field.choices:
                value = Select(choices, id=name, allow_blank=False, value=field.default, compact=True)
            else:
                value = Select(choices, id=name, compact=True)
        else:
            value = Input(field.default or "", id=name, compact=True)
        if field.hint:
            title.append(f"  ({field.hint})", "not bold dim")
        parts = [
            Static(title, classes="title"),
            value,
            Static(classes="wrong", id=f"{name}-wrong"),
        ]
        return Vertical(*parts, classes="field")

    def on_input_changed(self, event: Input.Changed) -> None:
        """Judge what is typed while it is typed."""
        number = (event.input.id or "").removeprefix("f")
        if self._form is not None and number.isdigit():
            field = self._form.fields[int(number)]
            self._tell(f"f{number}", self._form.wrong(field.name, event.value) if event.value else "")

    def values(self) -> dict[str, str]:
        """What was chosen, of the parameters that were given anything at all or have no default."""
        found: dict[str, str] = {}
        for number, field in enumerate(self._form.fields if self._form else ()):
            widget = self.query_one(f"#f{number}")
            text = widget.value if isinstance(widget, Input) else None
            if isinstance(widget, Select) and not widget.is_blank():
                text = str(widget.value)
            if text is not None and text != field.default and not (text == "" and field.kind != "string"):
                found[field.name] = text
        return found

    async def on_button_pressed(self, event: Button.Pressed) -> None:
        """Start, or leave it."""
        event.stop()
        if event.button.id == "cancel":
            self.dismiss(None)
        else:
            await self.action_start()

    async def action_start(self) -> None:
        """Start if everything is right; else show what is not, and go there."""
        form = self._form
        if form is None:
            return
        values = self.values()
        wrong = await asyncio.to_thread(form.check, values)
        for number, field in enumerate(form.fields):
            self._tell(f"f{number}", wrong.get(field.name, ""))
        self._say(wrong.get("", ""))
        bad = next((n for n, f in enumerate(form.fields) if f.name in wrong), None)
        if bad is not None:
            self.query_one(f"#f{bad}").focus()
        if wrong:
            return
        inventory = self.query_one("#inventory", Input).value.strip()
        flags = [
            flag
            for name, flag in (("continue", "--continue-on-error"), ("clean", "--clean-first"))
            if self.query_one(f"#{name}", Select).value == "yes"
        ]
        self.dismiss(commands.start(str(form.spec), values, [inventory] if inventory else [], flags))

    def _tell(self, name: str, wrong: str) -> None:
        place = self.query_one(f"#{name}-wrong", Static)
        place.set_class(bool(wrong), "on")
        place.update(Text(f"✗ {wrong}" if wrong else ""))

    def _say(self, text: str) -> None:
        self.query_one("#said", Static).update(Text(text))
