"""Lines of steps as their nodes show them, over the run's etcd: for a screen whose run is on other machines."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from testbed.agent.plan import Access
from testbed.coord.chunks import ERR, LEAST_WINDOW, OUT, RUNNING, WINDOW, Begun, Ended, Note, Output, Position
from testbed.coord.gateway import connect
from testbed.coord.peeking import Gone, Peek, Seen, Wanted
from testbed.coord.store import Denied, Store, StoreError
from testbed.events import AnsibleTask
from testbed.report.harmless import harmless_line
from testbed_tui.logs import LONGEST, NOTE, Heard, Listening, LogLine, began, ended, plain
from testbed_tui.logs import Wanted as Lines

LAST = 2000
"""How many lines of the step that runs already are shown at first; of several nodes their share, `LEAST` at least."""

LEAST = 50

IN_ETCD = 8 * 1024 * 1024
"""Bytes that all nodes together may have written for a listener that it has not read yet."""

PATIENCE = 10.0
"""Seconds that etcd may be away before a listener says so, and begins again where it was."""

FAREWELL = 2.0
"""Seconds that a listener has to withdraw what it asked for; what is left then goes with its lease."""


class PeekedLogs:
    """A `LogSource` that asks the nodes themselves; it costs them nothing while nobody listens."""

    def __init__(self, access: Access, run: str) -> None:
        self._access, self._run = access, run

    def listen(self, wanted: Lines, heard: Heard) -> Listening:
        """See `LogSource`."""
        return _Listener(self._access, self._run, wanted, heard)


class _Listener:
    """One listener's thread and, as long as etcd is there, its connection."""

    def __init__(self, access: Access, run: str, wanted: Lines, heard: Heard) -> None:
        self._access, self._run, self._heard = access, run, heard
        self._step = wanted.step or RUNNING
        self._lines = max(LEAST, LAST // max(1, len(wanted.nodes)))
        self._left = dict.fromkeys(wanted.nodes, "")  # nodes that may have more to show
        self._positions: dict[str, Position] = {}
        self._before: dict[str, dict[str, int]] = {}  # where the first piece begins, which was written before we came
        self._rest: dict[tuple[str, str, str], bytes] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._at: tuple[Peek, Store] | None = None
        self._thread = threading.Thread(target=self._work, name="peeked logs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        with self._lock:
            self._ended.set()
            at = self._at
        if at is not None:
            peek, store = at
            peek.close()
            self._thread.join(FAREWELL)
            store.close()
        self._thread.join()

    def _work(self) -> None:
        pause = 0.5
        while self._left and not self._ended.is_set():
            since = time.monotonic()
            error = self._attend()
            if error is None or self._ended.is_set():
                return
            refused = "refuses" if isinstance(error, Denied) else "is away"
            self._note("", f"the run's etcd {refused}: {error}; trying again")
            pause = 0.5 if time.monotonic() - since > 2 * PATIENCE else min(pause * 2, 15.0)
            self._ended.wait(pause)

    def _attend(self) -> StoreError | None:
        """Show what the nodes show until they are through (None) or etcd is away."""
        with self._lock:
            if self._ended.is_set():
                return None
            store = connect(self._access, PATIENCE)
            window = min(WINDOW, max(LEAST_WINDOW, IN_ETCD // max(1, len(self._left))))
            wanted = Wanted(
                tuple(self._left), self._step, lines=self._lines, positions=dict(self._positions), window=window
            )
            peek = Peek(store, self._run, wanted)
            self._at = peek, store
        try:
            for node, seen in peek:
                self._take(node, seen)
        except StoreError as error:
            return error
        finally:
            self._positions.update((n, place) for n in self._left if (place := peek.position(n)) is not None)
            store.close()
        return None

    def _take(self, node: str, seen: Seen | object) -> None:
        now = time.time()
        match seen:
            case Output():
                self._heard(list(self._lines_of(node, seen, now)))
            case Begun(step, out, err):
                self._finish(node, now)
                self._before[node] = {OUT: out, ERR: err} if node not in self._before else {}
                self._heard([began(node, step, now)])
            case Ended(step, verdict, code, reason):
                self._finish(node, now)
                self._heard([ended(node, step, now, verdict, code, reason)])
            case AnsibleTask(task=task, outcome=outcome, message=message):
                told = f": {message}" if message and outcome in ("failed", "unreachable") else ""
                self._note(node, f"{outcome}: {task}{told}")
            case Note(text):
                self._note(node, text)
            case Gone(reason, whole=whole):
                self._left.pop(node, None)
                if not whole:
                    self._note(node, f"{reason}; its logs are in the run's directory, on the controller's machine")

    def _finish(self, node: str, now: float) -> None:
        """Show what was written without a line end: a node's steps come one after the other."""
        for key in [key for key in self._rest if key[0] == node]:
            self._heard([LogLine(*key, plain(self._rest.pop(key)), now)])

    def _note(self, node: str, text: str) -> None:
        self._heard([LogLine(node, "", NOTE, harmless_line(text), time.time())])

    def _lines_of(self, node: str, output: Output, now: float) -> Iterator[LogLine]:
        key = (node, harmless_line(output.step, 120), output.stream)
        about = self._before.get(node, {}).pop(output.stream, None) == output.offset
        *lines, rest = (self._rest.pop(key, b"") + output.data).split(b"\n")
        if len(rest) > LONGEST * 4:  # nobody ends this line; what there is of it is shown
            lines, rest = [*lines, rest], b""
        if rest:
            self._rest[key] = rest
        for line in lines:
            yield LogLine(*key, plain(line), now, about)
