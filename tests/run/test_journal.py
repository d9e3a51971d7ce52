"""The run's record: whole lines, in one order, told to everybody who listens."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest

from testbed import events
from testbed.events import Event, Notice
from testbed.run.journal import Journal


def notice(text: str, node: str = "") -> Notice:
    """An event."""
    return Notice(1.0, node, "info", text)


def test_events_are_on_disk_when_they_are_told(tmp_path: Path) -> None:
    """A listener finds every event that it is told in the file already, as a whole line."""
    path = tmp_path / "events.jsonl"
    seen = []

    def listener(event: Event) -> None:
        seen.append(event)
        assert path.read_text().endswith(
            "\n" + events.encode(event) + "\n" if len(seen) > 1 else events.encode(event) + "\n"
        )

    with Journal(path, listener) as journal:
        journal.record(notice("one"))
        journal.take(notice("two", "a"))
        journal.say(Notice, "b", level="info", message="three\nlines\n\x85")
        assert [e.message for e in journal.recorded if isinstance(e, Notice)] == ["one", "two", "three\nlines\n\x85"]
    assert seen == journal.recorded
    assert [events.decode(line) for line in path.read_text().split("\n")[:-1]] == seen


def test_threads_do_not_mix(tmp_path: Path) -> None:
    """Events from many threads stay whole lines, in the order in which listeners hear them."""
    path = tmp_path / "events.jsonl"
    heard: list[Event] = []
    with Journal(path, heard.append) as journal:
        threads = [
            threading.Thread(target=lambda n=n: [journal.record(notice(f"{n}-{i}" * 50)) for i in range(50)])
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [events.decode(line) for line in path.read_text().splitlines()] == heard
    assert len(heard) == 400


def test_mirror_gets_the_controllers_own(tmp_path: Path) -> None:
    """A mirror is told the controller's events, those before it too, not what came from nodes; until it is ended."""
    with Journal(tmp_path / "events.jsonl", lambda _: None) as journal:
        mirrored: list[Event] = []
        journal.record(notice("before"))
        journal.take(notice("a node's"))
        journal.mirror(mirrored.append)
        journal.record(notice("while"))
        journal.mirror(None)
        journal.record(notice("after"))
    assert mirrored == [notice("before"), notice("while")]


def test_lock_tells_whether_it_lives(tmp_path: Path) -> None:
    """The file is locked for as long as its journal lives, and no longer."""
    path = tmp_path / "events.jsonl"
    with Journal(path, lambda _: None), path.open() as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)
    with path.open() as other:
        fcntl.flock(other, fcntl.LOCK_SH | fcntl.LOCK_NB)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """An event with a name that is no Unicode is written so that everybody can read it."""
    path = tmp_path / "events.jsonl"
    with Journal(path, lambda _: None) as journal:
        journal.record(notice("file \udcff"))
    assert events.decode(path.read_text()).message == "file ?"  # type: ignore[attr-defined]
