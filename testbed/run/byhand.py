"""A run whose playbooks somebody runs by hand: what these need of its scope, and an executor that leaves it to them."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from testbed.coord.feed import Feed
from testbed.coord.gateway import GatewayStore, connect
from testbed.coord.keys import RunKeys
from testbed.coord.store import Change, Put, Span, StoreError
from testbed.errors import LabError
from testbed.events import START
from testbed.run.executor import OK, Burst, BurstOutcome, Executor, TaskResult
from testbed.run.scopes import read_access

PATIENCE = 30.0
"""Seconds that etcd may be away while a playbook waits."""


class ByHand:
    """Executor that starts nothing: it tells how ``script`` runs the nodes' playbooks; ``ansible`` collects."""

    serves = 0

    def __init__(self, ansible: Executor, script: Path, tell: Callable[[str, str], None]) -> None:
        self._ansible = ansible
        self._script = script
        self._tell = tell

    def run(self, burst: Burst, on_result: Callable[[TaskResult], None], cancelled: threading.Event) -> BurstOutcome:
        """See `Executor.run`; a start burst ends at once, its nodes start when somebody runs their playbooks."""
        if burst.phase != START:
            return self._ansible.run(burst, on_result, cancelled)
        for node in burst.nodes:
            self._tell(node, f"start it by hand: {self._script} {node}")
            on_result(TaskResult(node, "start by hand", "", OK, ignored=False, result={}, output=""))
        return BurstOutcome(exit_code=0, cancelled=False, output="", log="")

    def close(self) -> None:
        """See `Executor.close`."""
        self._ansible.close()


def await_wish(private: Path, run: str, node: str, step: str) -> int | None:
    """Wait until ``node`` stands before the Ansible step ``step`` (configuration.target.step).

    Gives the wish's serial; None when the node ends without coming to it. ``private`` is the run's private folder.
    Raises `LabError` where etcd cannot be asked.
    """
    keys = RunKeys(run)
    changed = threading.Condition()
    held: dict[str, bytes | None] = {}
    errors: list[StoreError] = []

    def note(key: str) -> Callable[[Sequence[Change]], None]:
        def on_changes(changes: Sequence[Change]) -> None:
            with changed:
                held.setdefault(key, None)
                for change in changes:
                    held[key] = change.value
                changed.notify_all()

        return on_changes

    def on_error(error: StoreError) -> None:
        with changed:
            errors.append(error)
            changed.notify_all()

    wants, alive = keys.wants(node), keys.alive(node)
    with _scope(private) as store:
        feed = Feed(store)
        try:
            for key in (wants, alive):
                feed.follow(Span(key), note(key), on_error, read=True)
            with changed:
                while True:
                    if errors:
                        raise LabError(f"the run's etcd cannot be asked: {errors[0]}")
                    if held.get(wants):
                        wish = json.loads(held[wants] or b"{}")
                        if f"{wish['configuration']}.{wish['target']}.{wish['step']}" == step:
                            return int(wish["serial"])
                    if alive in held and held[alive] is None:
                        return None
                    changed.wait()
        finally:
            feed.close()


def answer(private: Path, run: str, node: str, serial: int, verdict: str, reason: str) -> None:
    """Tell ``node`` how its Ansible step ended. Raises `LabError`."""
    told = json.dumps({"serial": serial, "verdict": verdict, "reason": reason})
    with _scope(private) as store:
        store.commit([Put(RunKeys(run).served(node), told.encode())])


@contextmanager
def _scope(private: Path) -> Iterator[GatewayStore]:
    try:
        store = connect(read_access(private / "access.json"), PATIENCE)
    except FileNotFoundError as error:
        raise LabError("the run is over, or not yet ready") from error
    try:
        yield store
    except StoreError as error:
        raise LabError(f"the run's etcd cannot be asked: {error}") from error
    finally:
        store.close()
