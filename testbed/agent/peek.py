"""The agent's side of peeking: whoever asks is streamed what a step writes, within his window and at his pace.

Nothing of this is loaded, watched or written before somebody asks. The step writes its logs as ever; they are read
here, so that nobody who looks can slow it.
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
import traceback
from collections import deque
from contextlib import suppress
from typing import Deque, Dict, Optional, Sequence, Tuple

from testbed.agent.noticing import BLIND_PACE, Noticing
from testbed.agent.plan import Plan
from testbed.agent.shown import HEAD, Progress, Reader
from testbed.agent.workspace import Workspace
from testbed.coord.chunks import Ask, Garbled, Note, names_of, read_ask, write_frame
from testbed.coord.keys import RunKeys
from testbed.coord.store import Change, LeaseExpired, Put, Store, StoreError

PACE = 0.02
"""Seconds between two chunks of a request where the first was not full: what comes meanwhile goes into the second."""

AT_ONCE = 16
"""Requests that are answered at a time; each may have its window in etcd."""

FORGET = 16 * 1024 * 1024
"""Bytes streamed after which the controller is told that etcd has something to forget."""


class Peeks:
    """All requests to one node; ``store`` may be shared. Its thread lives from the first request on."""

    def __init__(self, plan: Plan, workspace: Workspace, store: Store) -> None:
        self._node, self._names, self._workspace, self._store = plan.node, names_of(plan.steps), workspace, store
        self._keys = RunKeys(plan.run)
        self._told: Deque[Change] = deque()
        self._streams: Dict[str, _Stream] = {}
        self._progress: Optional[Progress] = None
        self._noticing: Optional[Noticing] = None
        self._blind = ""
        self._streamed = self._forgotten = 0
        self._finishing = False
        self._shown = threading.Event()
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        threading.Thread(target=self._work, name="peeks", daemon=True).start()

    def hear(self, changes: Sequence[Change]) -> None:
        """Take what was written below `RunKeys.asks`; from any thread, never blocks."""
        self._told.extend(changes)
        self._wake()

    def finish(self, seconds: float) -> bool:
        """Let those who look see the rest now that the node has ended, as far as their windows have room.

        False if that takes longer than so many seconds.
        """
        self._finishing = True
        self._wake()
        return self._shown.wait(seconds)

    def shown(self) -> int:
        """Bytes that were streamed to all who look; from any thread."""
        return self._streamed

    def _wake(self) -> None:
        with suppress(BlockingIOError):  # it is awake already
            os.write(self._wake_write, b"w")

    # --- the thread ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            try:
                self._wait()
                self._turn()
            except StoreError as error:  # who looks notices by his own connection, and asks again
                print(f"peeking: {error}", file=sys.stderr)  # noqa: T201  the agent's log
                for request in list(self._streams):
                    self._drop(request)
            except Exception:  # noqa: BLE001  the run goes on whatever becomes of those who look at it
                traceback.print_exc()
                for request in list(self._streams):
                    self._refuse(request, "the agent failed at this; see agent.log")

    def _wait(self) -> None:
        """Sleep until there is something to do: a request, output to show, or the time to show what is there."""
        poll = select.poll()
        poll.register(self._wake_read, select.POLLIN)
        able = [s for s in self._streams.values() if s.able]
        due = [s.due for s in able if s.due is not None]
        if self._noticing is not None and len(due) < len(able):
            poll.register(self._noticing.descriptor, select.POLLIN)
        if self._blind and len(due) < len(able):
            due.append(time.monotonic() + BLIND_PACE)
        patience = max(0.0, min(due) - time.monotonic()) * 1000 if due else None
        ready = dict(poll.poll(patience))
        if self._wake_read in ready:
            with suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
        now = time.monotonic()
        if self._noticing is not None and self._noticing.descriptor in ready:
            self._noticing.clear()
        for stream in self._streams.values():
            stream.due = max(now, stream.paced) if stream.due is None else stream.due

    def _turn(self) -> None:
        self._take_in()
        if self._progress is not None:
            self._progress.look()
        for request, stream in list(self._streams.items()):
            if stream.able and stream.due is not None and stream.due <= time.monotonic():
                self._advance(request, stream)
        if self._finishing and not any(s.able and s.due is not None for s in self._streams.values()):
            self._shown.set()

    def _take_in(self) -> None:
        prefix = self._keys.asks(self._node)
        while self._told:
            change = self._told.popleft()
            request, _, what = change.key[len(prefix) :].partition("/")
            stream = self._streams.get(request)
            if change.value is None:
                if what == "ask" and stream is not None:
                    self._drop(request)
            elif what == "confirmed" and stream is not None and change.value.isdigit():
                stream.confirm(int(change.value))
            elif what == "ask" and stream is None:
                self._begin(request, change.value)

    def _begin(self, request: str, raw: bytes) -> None:
        try:
            ask = read_ask(raw)
        except Garbled as error:
            print(f"passed over a request to peek: {error}", file=sys.stderr)  # noqa: T201  the agent's log
            return
        if len(self._streams) >= AT_ONCE:
            note = write_frame(Note(f"{AT_ONCE} others look at this node already", over=True))
            self._write(Put(self._keys.chunk(request, self._node, 0), note, ask.lease))
            return
        if self._progress is None:
            self._look_out()
            self._progress = Progress(self._workspace.journal)
        self._progress.look()
        stream = _Stream(ask, Reader(ask, self._names, self._progress, self._workspace.logs))
        self._streams[request] = stream
        running = self._progress.running
        self._send(request, stream, write_frame(Note(f"runs {running}" if running else "runs no step now")))
        if self._blind and request in self._streams:
            self._send(request, stream, write_frame(Note(self._blind)))

    def _look_out(self) -> None:
        try:
            self._noticing = Noticing(self._workspace.logs, self._workspace.journal)
        except (OSError, ImportError) as error:
            self._blind = f"its machine does not tell when logs grow ({error}): they are looked at every {BLIND_PACE} s"

    def _drop(self, request: str) -> None:
        self._streams.pop(request).reader.close()
        if self._streams:
            return
        if self._noticing is not None:
            self._noticing.close()
        if self._progress is not None:
            self._progress.close()
        self._noticing = self._progress = None

    def _refuse(self, request: str, why: str) -> None:
        with suppress(StoreError):  # then the client notices by its own connection
            self._send(request, self._streams[request], write_frame(Note(why, over=True)))
        if request in self._streams:
            self._drop(request)

    # --- one request --------------------------------------------------------------------------------------------

    def _advance(self, request: str, stream: _Stream) -> None:
        """Send the next chunk of a request, if there is one."""
        frames = stream.reader.read(stream.room)
        if not frames:
            stream.due = None
            return
        self._send(request, stream, frames)
        now = time.monotonic()
        stream.paced = now if stream.reader.more else now + PACE
        stream.due = stream.paced

    def _send(self, request: str, stream: _Stream, frames: bytes) -> None:
        number = stream.count(len(frames))
        self._streamed += len(frames)
        if not self._write(Put(self._keys.chunk(request, self._node, number), frames, stream.lease)):
            self._drop(request)
        if self._streamed - self._forgotten >= FORGET:
            self._forgotten = self._streamed
            self._write(Put(self._keys.streamed(self._node), b""))

    def _write(self, put: Put) -> bool:
        """Write, if the client still lives."""
        try:
            self._store.commit([put])
        except LeaseExpired:
            return False
        return True


class _Stream:
    """A request's account: what was sent, what is confirmed, and when to look next."""

    def __init__(self, ask: Ask, reader: Reader) -> None:
        self.lease, self.reader = ask.lease, reader
        self.due: Optional[float] = 0.0  # the monotonic time of the next look; None: when something happens
        self.paced = 0.0  # not before that
        self._window = ask.window
        self._number = 0
        self._sent: Deque[Tuple[int, int]] = deque()  # number and size of what is not confirmed
        self._unconfirmed = 0

    @property
    def room(self) -> int:
        """Bytes that may be sent now."""
        return self._window - self._unconfirmed

    @property
    def able(self) -> bool:
        """Whether there is something to say, should there be news, and room to say it."""
        return not self.reader.over and self.room >= 2 * HEAD

    def count(self, size: int) -> int:
        """The number of the next chunk, which counts as sent."""
        number, self._number = self._number, self._number + 1
        self._sent.append((number, size))
        self._unconfirmed += size
        return number

    def confirm(self, count: int) -> None:
        """The client has done with so many chunks."""
        while self._sent and self._sent[0][0] < count:
            self._unconfirmed -= self._sent.popleft()[1]
