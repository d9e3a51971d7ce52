"""Where a screen's news come from: the run directory, the run's scope in etcd, or a recording that is played back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from queue import SimpleQueue
from typing import Protocol

from testbed.agent.plan import Access
from testbed.coord.feed import Feed
from testbed.coord.gateway import connect
from testbed.coord.keys import RunKeys, end_of
from testbed.coord.store import Change, Denied, Span, StoreError
from testbed.events import Event, EventError, Notice, RunEnded, decode
from testbed.run.cleaning import is_alive
from testbed.run.directory import RunDirectory
from testbed.run.scopes import read_access
from testbed_tui.inotify import Changes
from testbed_tui.views import BARRIER, VALUE, WAITING, KeyChange

News = Event | KeyChange

Hear = Callable[[Sequence[News]], None]
"""Takes the next pieces of news, in order; may be called from any thread."""

Tell = Callable[[str], None]
"""Takes what is wrong with a source, in a sentence; empty when nothing is any more."""

CHUNK = 400
"""How many events are handed over at once at most: so nobody holds the interpreter for long."""

PATIENCE = 3.0
"""Seconds that etcd may be away before the screen says so."""


class Source(Protocol):
    """News of one run; `run` blocks, on a thread of its own, until there will be no more or `stop` was called."""

    def run(self, hear: Hear, tell: Tell) -> None:
        """Hand over all news from the run's beginning on."""

    def stop(self) -> None:
        """Let `run` return; may be called from any thread, also before it began."""

    def over(self) -> None:
        """The run has ended: whoever has nothing more to tell then may stop."""


class DirectorySource:
    """The events of a run directory, those that are there and those that come."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._stopped = False
        self._changes = Changes()

    def run(self, hear: Hear, tell: Tell) -> None:
        """See `Source`."""
        try:
            self._changes.watch(self._directory.path)
            rest, offset, over, said = b"", 0, False, ""
            while not self._stopped:
                try:
                    with self._directory.events.open("rb") as stream:
                        stream.seek(offset)
                        while not self._stopped and (piece := stream.read(CHUNK * 256)):
                            offset += len(piece)
                            *lines, rest = (rest + piece).split(b"\n")
                            found = [_event(line) for line in lines]
                            over = over or any(isinstance(e, RunEnded) for e in found)
                            hear(found)
                except FileNotFoundError:
                    pass  # the run is just being made
                gone = "" if over or is_alive(self._directory) else _GONE.format(run=self._directory.path.name)
                if gone != said:
                    said = gone
                    tell(gone)
                self._changes.wait()
        except OSError as error:
            tell(f"the run directory cannot be read: {error.strerror}: {error.filename}")
        finally:
            self._changes.close()

    def over(self) -> None:
        """See `Source`; what is written afterwards counts too."""

    def stop(self) -> None:
        """See `Source`."""
        self._stopped = True
        self._changes.wake()


_GONE = "the run's controller is gone without a verdict; `testbed clean {run}` fetches what its nodes have"


def _event(line: bytes) -> Event:
    try:
        return decode(line.decode("utf-8", "replace"))
    except EventError as error:
        return Notice(0.0, "", "warning", str(error))


class ScopeSource:
    """The run's scope in etcd: values and barriers, and with ``events`` all events too. Connects again by itself."""

    def __init__(self, access: Access, run: str, events: bool) -> None:
        self._access, self._keys, self._events = access, RunKeys(run), events
        self._wrong: SimpleQueue[StoreError | None] = SimpleQueue()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._early: dict[str, list[Change]] | None = {}
        self._seen = 0  # the last revision of an event: of other keys later ones may be heard before it
        self._standing: set[str] = set()
        self._over = False

    def run(self, hear: Hear, tell: Tell) -> None:
        """See `Source`."""
        pause = 0.5
        while not self._stop.is_set() and not self._over:
            before = self._seen
            error = self._attend(hear, tell)
            if error is None or self._over:
                return
            refused = "refuses" if isinstance(error, Denied) else "is away"
            tell(f"the run's etcd {refused}: {error}; trying again")
            pause = 0.5 if self._seen > before else min(pause * 2, 15.0)
            self._stop.wait(pause)

    def over(self) -> None:
        """See `Source`; its etcd ends with it."""
        self.stop()

    def stop(self) -> None:
        """See `Source`."""
        self._stop.set()
        self._wrong.put(None)

    def _attend(self, hear: Hear, tell: Tell) -> StoreError | None:
        """Follow the scope until it fails, or None when told to stop."""
        prefixes = [self._keys.values, self._keys.prefix + "barriers/", self._keys.nodes]
        prefixes += [self._keys.events] if self._events else []
        try:
            store = connect(self._access, PATIENCE)
        except StoreError as error:
            return error
        feed = Feed(store)
        self._early = {}
        try:
            for prefix in prefixes:

                def changed(changes: Sequence[Change], prefix: str = prefix) -> None:
                    self.take(prefix, changes, len(prefixes), hear, tell)

                feed.follow(Span(prefix, end_of(prefix)), changed, self._wrong.put, read=True)
            return self._wrong.get()
        finally:
            store.close()
            feed.close()
            while not self._stop.is_set() and not self._wrong.empty():  # each span tells of the same end
                self._wrong.get()

    def take(self, prefix: str, changes: Sequence[Change], spans: int, hear: Hear, tell: Tell) -> None:
        """What stands in all ``spans`` first, in the order in which it was written; then what comes, span by span."""
        with self._lock:
            if self._early is None:
                self._hand_over(changes, time.time(), hear)
                return
            self._early.setdefault(prefix, []).extend(changes)
            if len(self._early) < spans:
                return
            standing = sorted((c for some in self._early.values() for c in some), key=lambda c: c.revision)
            self._early = None
            tell("")
            gone = self._standing - {c.key for c in standing}
            self._hand_over([*(Change(key, None, 0) for key in gone), *standing], 0.0, hear)

    def _hand_over(self, changes: Sequence[Change], at: float, hear: Hear) -> None:
        news: list[News] = []
        seen = self._seen
        for change in changes:
            if change.key.startswith(self._keys.events):
                if change.revision <= self._seen:
                    continue  # heard before the connection was lost
                seen = max(seen, change.revision)
            piece = self._read(change, at)
            if piece is not None:
                news.append(piece)
        self._seen = seen
        for start in range(0, len(news), CHUNK):
            hear(news[start : start + CHUNK])

    def _read(self, change: Change, at: float) -> News | None:
        if change.key.startswith(self._keys.events):
            event = _event(change.value) if change.value is not None else None
            self._over = self._over or isinstance(event, RunEnded)
            return event
        if change.key.startswith(self._keys.nodes):
            node, _, wait = change.key[len(self._keys.nodes) :].partition("/waiting/")
            return KeyChange(WAITING, f"{node}/{wait}", change.value, change.revision, at) if wait else None
        (self._standing.discard if change.value is None else self._standing.add)(change.key)
        place, prefix = VALUE, self._keys.values
        if not change.key.startswith(prefix):
            place, prefix = BARRIER, self._keys.prefix + "barriers/"
        return KeyChange(place, change.key[len(prefix) :], change.value, change.revision, at)


class HereScopeSource:
    """The scope of a run on this machine: waits until the run has one, then is its `ScopeSource`, without events."""

    def __init__(self, directory: RunDirectory) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._stopped = False
        self._scope: ScopeSource | None = None
        self._changes = Changes()

    def run(self, hear: Hear, tell: Tell) -> None:
        """See `Source`."""
        access = self._await_access()
        with self._lock:
            if access is None or self._stopped:
                return
            self._scope = ScopeSource(access, self._directory.run, events=False)
        self._scope.run(hear, tell)

    def over(self) -> None:
        """See `Source`; its etcd ends with it."""
        self.stop()

    def stop(self) -> None:
        """See `Source`."""
        with self._lock:
            self._stopped = True
            if self._scope is not None:
                self._scope.stop()
        self._changes.wake()

    def _await_access(self) -> Access | None:
        """How the scope is reached, as soon as the run says so; None where it ended, or is somebody else's."""
        try:
            self._changes.watch(self._directory.path)
            self._changes.watch(self._directory.private)
            while not self._stopped:
                with suppress(FileNotFoundError, ValueError):  # not yet, or still being written
                    return read_access(self._directory.access)
                if self._directory.events.exists() and not is_alive(self._directory):
                    return None
                self._changes.wait()
        except OSError:
            return None  # the directory of private things is gone with the run, or is not ours: events tell the rest
        finally:
            self._changes.close()
        return None


class Replay:
    """A recording, played back ``speed`` times as fast as it was; pauses and changes its speed when told."""

    def __init__(self, events: Iterable[Event], speed: float, paused: bool = False) -> None:
        self._events = events
        self._speed = speed
        self._changed = threading.Condition()
        self._stopped = False
        self._paused = paused
        self._virtual = 0.0  # the recording's time at ...
        self._anchor = time.monotonic()  # ... this moment

    @property
    def speed(self) -> float:
        """How many seconds of the recording pass in one."""
        return self._speed

    @property
    def paused(self) -> bool:
        """Whether its time stands still."""
        return self._paused

    def now(self) -> float:
        """The recording's time, Unix seconds; 0 before its first event."""
        with self._changed:
            return self._now()

    def set(self, speed: float | None = None, paused: bool | None = None) -> None:
        """Go on at another speed, or stand still, or go on."""
        with self._changed:
            self._virtual, self._anchor = self._now(), time.monotonic()
            self._speed = self._speed if speed is None else speed
            self._paused = self._paused if paused is None else paused
            self._changed.notify_all()

    def run(self, hear: Hear, tell: Tell) -> None:  # noqa: ARG002  a recording has no troubles
        """See `Source`."""
        due: list[News] = []
        latest = 0.0
        for event in self._events:
            if not latest and event.at:
                with self._changed:
                    self._virtual, self._anchor = event.at, time.monotonic()
            latest = max(latest, event.at)
            if len(due) >= CHUNK or not self._reached(latest):
                hear(due)
                due = []
                if not self._await(latest):
                    return
            due.append(event)
        hear(due)
        self.set(paused=True)

    def over(self) -> None:
        """See `Source`; the recording ends with it."""

    def stop(self) -> None:
        """See `Source`."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _now(self) -> float:
        if self._paused or not self._virtual:
            return self._virtual
        return self._virtual + (time.monotonic() - self._anchor) * self._speed

    def _reached(self, moment: float) -> bool:
        with self._changed:
            return not self._stopped and self._now() >= moment

    def _await(self, moment: float) -> bool:
        """Wait until the recording's time has come to ``moment``; False when stopped."""
        with self._changed:
            while not self._stopped:
                left = moment - self._now()
                if left <= 0 and not (self._paused and moment > self._virtual):
                    return True
                self._changed.wait(None if self._paused else left / self._speed)
        return False
