"""A screen as a still picture: run without a terminal, for documentation and tests."""

from __future__ import annotations

import asyncio
import html
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from textual.pilot import Pilot
from textual.worker import WorkerState

from testbed.run.directory import RunDirectory
from testbed_tui.app import TestbedApp
from testbed_tui.attach import Attachment

Then = Callable[[TestbedApp, Pilot[None]], Awaitable[object]]
"""Does something with the app before the picture is taken."""

_TEXT = re.compile(r'<text [^>]*x="(?P<x>[\d.]+)" y="(?P<y>[\d.]+)"[^>]*clip-path[^>]*>(?P<text>[^<]*)</text>')
_CELL = 12.2
"""The width of a cell in Textual's SVG."""


async def still(directory: RunDirectory, size: tuple[int, int], keys: Sequence[str], then: Then | None = None) -> str:
    """The screen over a finished run in ``directory`` as SVG, after these keys; its clock stands at the run's end."""
    ended = max((event.at for event in directory.read_events()), default=0.0)
    app = TestbedApp(Attachment(directory.run, directory), clock=lambda: ended)
    async with app.run_test(size=size) as pilot:
        await settled(app, pilot)
        for key in keys:
            await pilot.press(key)
            await settled(app, pilot)
        if then is not None:
            await then(app, pilot)
            await settled(app, pilot)
        return app.export_screenshot(title=f"testbed tui {directory.run}")


async def settled(app: TestbedApp, pilot: Pilot[None]) -> None:
    """Wait until the app has read the runs and the run, and has nothing more to do."""
    while not app.runs_read or (app.attachment is not None and not app.picture.over):
        await app.told.wait()
        app.told.clear()
    asked = [w for w in app.workers if w.group in ("machines", "deeds") and w.state is WorkerState.RUNNING]
    for worker in asked:
        await worker.wait()
    await pilot.pause()


def lines_of(svg: str, width: int) -> str:
    """What the SVG shows as plain lines, without trailing blanks."""
    rows: dict[float, list[tuple[int, str]]] = {}
    for match in _TEXT.finditer(svg):
        text = html.unescape(match["text"]).replace("\xa0", " ")
        rows.setdefault(float(match["y"]), []).append((round(float(match["x"]) / _CELL), text))
    lines = []
    for _, pieces in sorted(rows.items()):
        line = ""
        for at, text in sorted(pieces):
            line = line.ljust(at) + text
        lines.append(line[:width].rstrip())
    return "\n".join(lines) + "\n"


def save(path: Path, svg: str) -> None:
    """Write the picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(svg, "utf-8")


def run_still(directory: RunDirectory, size: tuple[int, int], keys: Sequence[str], then: Then | None = None) -> str:
    """`still`, for callers without an event loop."""
    return asyncio.run(still(directory, size, keys, then))
