"""What a run shows while it goes on."""

from __future__ import annotations

import io
import itertools
import os
import pty
from pathlib import Path

import pytest
from rich.console import Console

from testbed import events as ev
from testbed.cli.progress import LiveProgress, PlainProgress, progress

CASES = Path(__file__).parent.parent / "cases" / "events"


def stream(name: str) -> list[ev.Event]:
    """The events of a case."""
    return [ev.decode(line) for line in (CASES / f"{name}.jsonl").read_text("utf-8").splitlines()]


def plain(events: list[ev.Event]) -> str:
    """What the plain progress prints, with a clock that ticks once per question."""
    out = io.StringIO()
    ticks = itertools.count()
    with PlainProgress(out, lambda: float(next(ticks))) as show:
        for event in events:
            show(event)
    return out.getvalue()


@pytest.mark.parametrize("name", sorted(p.stem for p in CASES.glob("*.jsonl")))
def test_plain_lines(name: str) -> None:
    """The plain lines of every recorded stream are those in NAME.lines.txt beside it."""
    assert plain(stream(name)) == (CASES / f"{name}.lines.txt").read_text("utf-8")


def test_plain_lines_are_harmless() -> None:
    """One event is one line without control characters, whatever a node writes into it."""
    bad = "a\nb\x1b[2J\x07"
    found = plain([ev.StepEnded(1.0, bad, bad, bad, bad, bad, None, 1.0, bad), ev.Notice(1.0, "", bad, bad)])
    assert found.count("\n") == 2
    assert found.replace("\n", "").isprintable()


@pytest.mark.parametrize(("name", "value"), [("CI", "true"), ("TERM", "dumb")])
def test_a_build_log_gets_plain_lines(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that cannot redraw, and a build server's, gets plain lines; a real one a live picture."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("CI", raising=False)
    controlling, terminal = pty.openpty()
    with os.fdopen(controlling, "rb"), os.fdopen(terminal, "w") as screen:
        assert isinstance(progress(screen), LiveProgress)
        monkeypatch.setenv(name, value)
        assert isinstance(progress(screen), PlainProgress)
    assert isinstance(progress(io.StringIO()), PlainProgress)


def picture(events: list[ev.Event], height: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The live picture after the events, on a screen of that height."""
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", str(height))
    show = LiveProgress(io.StringIO(), lambda: 0.0)
    for event in events:
        show(event)
    screen = Console(file=io.StringIO())
    with screen.capture() as caught:
        screen.print(show.picture())
    return caught.get().splitlines()


def test_the_live_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each node has a line with its state and what it is at; the bar counts steps and nodes."""
    lines = picture(stream("fail")[:25], 24, monkeypatch)
    assert [line.split()[0] for line in lines[:3]] == ["n-0", "n-2", "n-1"]
    assert "waiting" in lines[2]
    assert "greeter.test.main waits for sent.n-0" in lines[2]
    assert "6/18 steps" in lines[-1]
    assert "0/3 nodes ended" in lines[-1]


def test_the_live_picture_fits_the_screen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more nodes than fit the troubled are shown first, and the rest is counted."""
    events: list[ev.Event] = [
        ev.NodePlanned(1.0, f"n-{i}", i, "m", "a", ["c"], [["test", "c", ["main"]]]) for i in range(1000)
    ]
    events.append(ev.NodeEnded(2.0, "n-700", ev.FAILED, "exit code 1"))
    lines = picture(events, 10, monkeypatch)
    assert len(lines) <= 10
    assert lines[0].split()[:2] == ["n-700", "failed"]
    assert any("and 994 more nodes" in line for line in lines)


def test_a_live_run_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a real terminal the picture comes and goes, notices stay, and without colours where not wanted."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("CI", raising=False)
    controlling, terminal = pty.openpty()
    with os.fdopen(controlling, "rb", buffering=0) as reader, os.fdopen(terminal, "w") as screen:
        with progress(screen) as show:
            for event in stream("unreachable-machine"):
                show(event)
        screen.write("THE END")
        screen.flush()
        seen = b""
        while b"THE END" not in seen:
            seen += reader.read(65536)
    assert b"machine lab-1 failed, unreachable" in seen
    assert b"\x1b[31m" not in seen
