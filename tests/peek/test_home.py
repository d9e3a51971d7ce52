"""What is seen of steps whose logs are home."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from testbed import events as ev
from testbed.cli.looking import Look
from testbed.coord.chunks import ERR, EVERY, FROM_START, OUT, Begun, Ended, Output
from testbed.coord.peeking import Wanted
from testbed.run.directory import RunDirectory, create

SERVER, CLIENT = "server", "client"
EVENTS = [
    *(ev.NodePlanned(1.0, node, index=number, machine=node, address="", configurations=["c"],
                     targets=[["test", "c", ["main"]]]) for number, node in enumerate((SERVER, CLIENT))),
    ev.StepStarted(10.0, SERVER, "c", "test", "main", None),
    ev.StepStarted(10.5, CLIENT, "c", "test", "main", None),
    ev.WaitStarted(11.0, CLIENT, 0, "get", ["ready"], None, len("asks\n"), 0),
    ev.ValueSet(12.0, SERVER, "ready", 1, len("starts\nlistens\n"), len("warns\n")),
    ev.WaitEnded(12.001, CLIENT, 0, "met", 1.001, len("asks\n"), 0),
    ev.StepEnded(13.0, CLIENT, "c", "test", "main", "passed", 0, 2.5, ""),
    ev.StepEnded(14.0, SERVER, "c", "test", "main", "passed", 0, 4.0, ""),
    *(ev.ResultsCollected(15.0, node, 100, 2) for node in (SERVER, CLIENT)),
]  # fmt: skip
LOGS = {
    (SERVER, OUT): "starts\nlistens\nserves\nstops\n",
    (SERVER, ERR): "warns\n",
    (CLIENT, OUT): "asks\nhas it\n",
    (CLIENT, ERR): "",
}

Home = Callable[..., RunDirectory]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A run directory with these logs."""
    monkeypatch.setenv("TESTBED_STATE_HOME", str(tmp_path))

    def make(logs: dict[tuple[str, str], str] = LOGS) -> RunDirectory:
        directory = create("run-1")
        directory.events.write_text("".join(ev.encode(event) + "\n" for event in EVENTS))
        for (node, stream), text in logs.items():
            directory.logs(node).mkdir(parents=True, exist_ok=True)
            (directory.logs(node) / f"c.test.main.{stream}").write_text(text)
        return directory

    return make


def look(directory: RunDirectory, *nodes: str, **wanted: object) -> Look:
    """A look at all that the nodes wrote."""
    return Look("run-1", Wanted(nodes, EVERY, **{"lines": FROM_START, **wanted}), directory, None)  # type: ignore[arg-type]


def test_lines_of_all_nodes_are_in_order_of_time(home: Home) -> None:
    """What was written before a value was set stands before what its getter wrote then; stderr in its place."""
    told = []
    for node, seen in look(home(), SERVER, CLIENT):
        match seen:
            case Output():
                told.append(f"{node}{'!' if seen.stream == ERR else ':'} {seen.data.decode().strip()}")
            case Begun() | Ended():
                told.append(f"{node} {type(seen).__name__.lower()}")
    assert told == [
        "server begun", "client begun", "server: starts", "client: asks", "server: listens", "server! warns",
        "client: has it", "client ended", "server: serves", "server: stops", "server ended",
    ]  # fmt: skip


def test_every_byte_once_however_long_the_lines(home: Home) -> None:
    """Lines of any length, bars of carriage returns and a last line without an end come whole, at their offsets."""
    text = "x" * 100_000 + "\n" + "\n" * 5 + "10 %\r20 %\r" * 5_000 + "\nshort\n" * 10_000 + "no end"
    one = home({**LOGS, (SERVER, OUT): text})
    found = b""
    for node, seen in look(one, SERVER, CLIENT):
        if node == SERVER and isinstance(seen, Output) and seen.stream == OUT:
            assert seen.offset == len(found)
            found += seen.data
    assert found == text.encode()


def test_another_look_goes_on_where_one_stopped(home: Home) -> None:
    """What a look has given out is counted as shown, and nothing that it has only read ahead."""
    first = look(home(), SERVER, CLIENT)
    for _, seen in first:
        if isinstance(seen, Output) and seen.data == b"listens\n":
            break
    assert first.ends[SERVER, "c.test.main", OUT] == len("starts\nlistens\n")
    assert first.ends[SERVER, "c.test.main", ERR] == 0
    assert first.ends[CLIENT, "c.test.main", OUT] == len("asks\n")
