"""A run started as a process of its own, which goes on without the screen; its output is kept in a file."""

from __future__ import annotations

import re
import subprocess
import threading
import time

from testbed.report.harmless import harmless
from testbed.run.directory import state_root
from testbed_tui.commands import Command, environment
from testbed_tui.inotify import Changes

_STARTED = re.compile(r"^\s*[\d.]+s\s+-\s+run (?P<run>\S+) of \S+ started$", re.M)


class Launch:
    """A started command; ``output`` is where all that it says is kept."""

    def __init__(self, command: Command) -> None:
        folder = state_root() / "started"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.command = command
        self.output = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 1_000_000_000:09d}.log"
        self._changes = Changes()
        self._changes.watch(folder)
        with self.output.open("xb") as out:
            out.write(f"$ {command.text}\n".encode())
            out.flush()
            self.process = subprocess.Popen(
                command.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
                env={**environment(), "TERM": "dumb"},
            )  # fmt: skip
        self._reaper = threading.Thread(target=self._reap, name="launch", daemon=True)
        self._reaper.start()

    def await_run(self) -> str | None:
        """The id of the run once it has begun; None where the command ended without one, see `said`. Blocks."""
        try:
            while True:
                ended = self.process.returncode is not None
                match = _STARTED.search(self.output.read_text("utf-8", "replace"))
                if match:
                    return match["run"]
                if ended:
                    return None
                self._changes.wait()
        finally:
            self._changes.close()

    def said(self, lines: int = 30) -> str:
        """The last lines of its output, made harmless."""
        return "\n".join(harmless(self.output.read_text("utf-8", "replace")).splitlines()[1:][-lines:])

    def _reap(self) -> None:
        self.process.wait()
        self._changes.wake()
