"""The machines of the lab: what they are, whether they answer, and who stands on them."""

from __future__ import annotations

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import Static

from testbed_tui.fleet import GONE, LIVE
from testbed_tui.screens.base import View
from testbed_tui.signs import STYLES
from testbed_tui.views import Picture
from testbed_tui.widgets.table import Cell, Row, Table


class MachinesView(View):
    """The inventory as a table; asked when the screen is opened first, and when told."""

    MODE = "machines"
    BINDINGS = [("r", "ask", "Ask again"), ("s", "shell", "Shell")]

    def __init__(self) -> None:
        super().__init__()
        self._asked = False

    def body(self) -> ComposeResult:
        """Make the table."""
        yield Table(id="machines")
        yield Static(id="detail")

    def on_screen_resume(self) -> None:
        """Ask the machines the first time."""
        super().on_screen_resume()
        if not self._asked:
            self.action_ask()

    def show(self, picture: Picture, now: float) -> None:  # noqa: ARG002  machines know no run's time
        """See `View`."""
        app = self.owner
        users: dict[str, list[str]] = {}
        errors: dict[str, str] = {}
        for run in reversed(app.runs):
            errors.update(run.errors)
            if run.word in (LIVE, GONE):
                for node, name in run.machines.items():
                    users.setdefault(name, []).append(f"{node} of {run.run}")
        if app.attachment is not None and app.attachment.directory is None and not picture.over:
            for at in picture.nodes:
                users.setdefault(at.machine, []).append(f"{at.name} of {app.attachment.run}")
        errors.update(picture.machine_errors)
        rows = []
        for machine in app.machines:
            answer = app.reachable.get(machine.name, "")
            good = answer.startswith(("reachable", "this"))
            style = STYLES["good" if good else "bad" if answer else "wait"]
            state = Cell(f"{'✓' if good else '✗' if answer else '·'} {answer or 'not asked'}", style)
            used = Cell(", ".join(users.get(machine.name, ())) or "free", "" if machine.name in users else "dim")
            where = f"{machine.address}:{machine.port}" if machine.connection != "local" else "here"
            cells: tuple[Cell, ...] = (Cell(machine.name), Cell(where), state, used)
            if self.wide:
                cells = (*cells, Cell(machine.attributes, "dim"))
            rows.append(Row(machine.name, (*cells, Cell(errors.get(machine.name, ""), STYLES["bad"]))))
        heads = ["machine", "address", "reachable", "node", *(["attributes"] if self.wide else []), "last error"]
        self.query_one(Table).show(heads, rows)
        self._detail(errors)

    def _detail(self, errors: dict[str, str]) -> None:
        source = ", ".join(self.owner.inventories) or "no inventory: the machines that runs have used"
        chosen = self.query_one(Table).chosen
        error = errors.get(chosen or "", "")
        self.query_one("#detail", Static).update(Text(f"{len(self.owner.machines)} machines ({source})\n{error}"))

    def on_table_moved(self) -> None:
        """Tell the whole error of the machine under the cursor."""
        self.refresh_view()

    def action_ask(self) -> None:
        """Read the inventory, and ask every machine whether it answers."""
        self._asked = True
        self.owner.ask_machines()

    def action_shell(self) -> None:
        """Open a shell on the machine under the cursor."""
        chosen = self.query_one(Table).chosen
        if chosen is not None:
            self.owner.open_shell_on(chosen, "")
