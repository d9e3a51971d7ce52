"""Lines of steps as their nodes show them, over the run's etcd: for a screen whose run is on other machines."""

from __future__ import annotations

import threading
from contextlib import suppress

from testbed.agent.plan import Access
from testbed.coord.chunks import RUNNING, Ended, Output
from testbed.coord.gateway import connect
from testbed.coord.peeking import Peek, Wanted
from testbed.coord.store import StoreError
from testbed.report.harmless import harmless
from testbed_tui.logs import LONGEST, Heard, Listening, LogLine
from testbed_tui.logs import Wanted as Lines

LAST = 2000
"""How many lines of the step that runs already are shown at first."""

PATIENCE = 10.0
"""Seconds that etcd may be away before a listener hears no more."""


class PeekedLogs:
    """A `LogSource` that asks the nodes themselves; it costs them nothing while nobody listens."""

    def __init__(self, access: Access, run: str) -> None:
        self._access, self._run = access, run

    def listen(self, wanted: Lines, heard: Heard) -> Listening:
        """See `LogSource`."""
        return _Listener(self._access, self._run, wanted, heard)


class _Listener:
    """One listener's connection and thread."""

    def __init__(self, access: Access, run: str, wanted: Lines, heard: Heard) -> None:
        self._heard = heard
        self._rest: dict[tuple[str, str, str], bytes] = {}
        self._store = connect(access, PATIENCE)
        self._peek = Peek(self._store, run, Wanted(wanted.nodes, wanted.step or RUNNING, lines=LAST))
        self._thread = threading.Thread(target=self._work, name="peeked logs", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._peek.close()
        self._thread.join()
        self._store.close()

    def _work(self) -> None:
        with suppress(StoreError):  # the sources of the run's news tell that etcd is gone
            for node, seen in self._peek:
                if isinstance(seen, Output):
                    self._take(node, seen)
                elif isinstance(seen, Ended):
                    for key in [key for key in self._rest if key[:2] == (node, seen.step)]:
                        self._heard([_line(*key, self._rest.pop(key))])

    def _take(self, node: str, output: Output) -> None:
        key = (node, output.step, output.stream)
        *lines, rest = (self._rest.pop(key, b"") + output.data).split(b"\n")
        if len(rest) > LONGEST * 4:  # nobody ends this line; what there is of it is shown
            lines, rest = [*lines, rest], b""
        if rest:
            self._rest[key] = rest
        if lines:
            self._heard([_line(*key, line) for line in lines])


def _line(node: str, step: str, stream: str, raw: bytes) -> LogLine:
    text = harmless(raw.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace"))
    return LogLine(node, step, stream, text.expandtabs()[:LONGEST])
