"""A run that a test hurts while it goes on: executed by a thread here, or by a controller of its own to be killed."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from testbed.agent.plan import Access
from testbed.agent.workspace import Workspace
from testbed.etcd.access import ExternalCluster
from testbed.etcd.choice import EtcdChoice
from testbed.events import Event
from testbed.run import directory as directories
from testbed.run.controller import Outcome, execute
from testbed.run.directory import RunDirectory
from testbed.run.freeze import Timing
from testbed.run.pipeline import Options, prepare

LIMIT = 100.0
"""Seconds after which a test gives up on what should have come."""


def execute_run(spec: Path, timing: dict[str, float], listener: Callable[[Event], None], **options: Any) -> Outcome:
    """Prepare a run with times of its own and do it; its directory is told to nobody before its first event."""
    chosen = Options(spec=spec, **options)
    request = replace(prepare(chosen), timing=Timing(**timing))
    return execute(request, directories.create(request.plan.run, chosen.run_dir), listener)


class LiveRun:
    """A run on a thread of this process; ``timing`` as in `Timing`, ``options`` as in `Options`."""

    def __init__(self, spec: Path, run_dir: Path, timing: dict[str, float], **options: Any) -> None:
        self.directory = RunDirectory(run_dir)
        self.events: list[Event] = []
        self._happened = threading.Condition()
        self._result: Outcome | BaseException | None = None
        self._thread = threading.Thread(target=self._go, args=(spec, timing, {"run_dir": run_dir, **options}))
        self._thread.start()

    def _go(self, spec: Path, timing: dict[str, float], options: dict[str, Any]) -> None:
        try:
            self._result = execute_run(spec, timing, self._hear, **options)
        except BaseException as error:  # noqa: BLE001  told to the test, which raises it
            self._result = error
        with self._happened:
            self._happened.notify_all()

    def _hear(self, event: Event) -> None:
        with self._happened:
            self.events.append(event)
            self._happened.notify_all()

    def await_event(self, kind: str, count: int = 1, **fields: Any) -> Event:
        """Block until there are so many events of that kind with those fields; the last of them."""
        found: list[Event] = []

        def there() -> bool:
            found[:] = self.all_of(kind, **fields)
            return len(found) >= count or self._result is not None

        with self._happened:
            assert self._happened.wait_for(there, LIMIT), self.events
        assert len(found) >= count, (kind, fields, self._result, self.events)
        return found[count - 1]

    def all_of(self, kind: str, **fields: Any) -> list[Event]:
        """The events so far of that kind with those fields."""
        return [e for e in self.events if e.kind == kind and all(getattr(e, k) == v for k, v in fields.items())]

    def notices(self) -> list[str]:
        """What was said beside the run's own course."""
        return [e.message for e in self.all_of("notice")]  # type: ignore[attr-defined]

    def end(self) -> Outcome:
        """The run's outcome, once it is over."""
        self._thread.join(LIMIT)
        assert not self._thread.is_alive(), self.events
        if isinstance(self._result, BaseException):
            raise self._result
        assert self._result is not None
        return self._result

    def access(self) -> Access:
        """The controller's own access to the run's scope."""
        return Access(**json.loads(self.directory.access.read_text()))

    def access_of(self, node: str) -> Access:
        """The access that a node was given."""
        start = json.loads((self.directory.private / "starts" / f"{node}.json").read_text())
        return Access(**start["plan"]["access"])

    def workspace(self, node: str) -> Workspace:
        """Where a node of this machine works."""
        return Workspace(str(self.directory.workspaces / node))

    def report(self, node: str, name: str) -> str:
        """A file that a node left in its reports."""
        return (self.directory.reports(node) / name).read_text()


def on_cluster(endpoints: list[str], password: str) -> EtcdChoice:
    """The choice of a cluster whose user root has that password."""
    return EtcdChoice(ExternalCluster(tuple(endpoints), "root", password))


def etcd_of(run_dir: Path) -> int:
    """The process of the run's own etcd server."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            if b"--data-dir=data" in words and (entry / "cwd").readlink().is_relative_to(run_dir):
                return int(entry.name)
        except OSError:
            continue
    raise AssertionError(f"no etcd works in {run_dir}")


def _say(event: Event) -> None:
    sys.stdout.write(event.kind + "\n")
    sys.stdout.flush()


if __name__ == "__main__":  # a controller of its own: live.py SPEC RUN_DIR TIMING
    done = execute_run(Path(sys.argv[1]), json.loads(sys.argv[3]), _say, run_dir=Path(sys.argv[2]))
    sys.exit(done.judgement.exit_code)
