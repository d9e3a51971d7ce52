"""Cleaning up after a run: what it left on its machines is fetched and removed, then its clean targets can be run."""

from __future__ import annotations

import fcntl
import json
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Set
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testbed.compile.plan import CLEAN_ONLY, RunPlan
from testbed.errors import LabError, UsageError
from testbed.etcd.access import ExternalCluster, MayNotMakeUsers, close_scope, connect, return_scope
from testbed.etcd.choice import EtcdChoice
from testbed.events import COLLECT
from testbed.inventory import Inventory
from testbed.report.state import fold
from testbed.run.bursts import AnsibleBursts, forks_for, remove_sockets
from testbed.run.directory import RunDirectory
from testbed.run.executor import Burst, TaskResult
from testbed.run.freeze import link_spec_folder, unlink_spec_folder, write_inventory
from testbed.run.latecomers import take_in
from testbed.run.pipeline import Options, environment_of, node_inventory, plan_of
from testbed.run.results import unpack_results


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What is to be done after a run; ``options`` are those of a run of its clean targets alone."""

    directory: RunDirectory
    frozen: Mapping[str, Any]
    options: Options

    @property
    def has_targets(self) -> bool:
        """Whether any node has a clean target."""
        return any(node["clean"] for node in self.frozen["nodes"])

    def sweep(self) -> Iterator[str]:
        """Fetch what was not collected, remove the workspaces that were left; a line for each node it concerns.

        What was fetched goes into the run's record and reports.
        """
        if self.options.etcd.cluster is not None:
            self._close_scope(self.options.etcd.cluster)
        state = fold(self.directory.read_events())
        left = {n.name for n in state.in_order if n.results != "collected" and n.failure is None}
        fetched: dict[str, tuple[int, int]] = {}
        if left:
            yield from self._fetch(left, fetched)
        self._remove_secrets()
        if fetched or not state.verdict:
            yield from take_in(self.directory, fetched)

    def _fetch(self, left: Set[str], fetched: dict[str, tuple[int, int]]) -> Iterator[str]:
        """Fetch these nodes' results; notes in ``fetched`` what came: node -> (bytes, files)."""
        plan, inventory = plan_of(self.options, self.frozen["run"])
        nodes = tuple(p.node.name for p in plan.nodes if p.node.name in left)
        with tempfile.TemporaryDirectory(prefix="testbed-clean-") as scratch:
            answers = self._collect(plan, inventory, nodes, Path(scratch))
        for node in nodes:
            yield self._settle(node, answers.get(node), fetched)

    def _remove_secrets(self) -> None:
        """Remove what a controller that was killed left: secrets, its etcd's data, SSH's sockets."""
        remove_sockets(self.directory.private)
        for home in (self.directory.private, *(self.directory.path / "etcd").glob("etcd-*")):
            if home.is_dir():
                shutil.rmtree(home)
        with suppress(OSError):  # not there; or a workspace is left, which was told
            self.directory.workspaces.rmdir()

    def _close_scope(self, cluster: ExternalCluster) -> None:
        """Delete the users and keys that the run may have left on the lab's cluster; its own server left none."""
        with closing(connect(cluster.root, patience=10.0)) as client:
            try:
                close_scope(client, self.frozen["run"])
            except MayNotMakeUsers:
                return_scope(client, self.frozen["run"])

    def _collect(
        self, plan: RunPlan, inventory: Inventory | None, nodes: tuple[str, ...], scratch: Path
    ) -> dict[str, TaskResult]:
        private = RunDirectory(scratch)
        private.private.mkdir(mode=0o700)
        path = write_inventory(private, plan, node_inventory(plan, inventory))
        executor = AnsibleBursts(
            self.directory.playbooks,
            path,
            scratch / "bursts",
            scratch,
            environment_of(self.options),
            forks_for(len(nodes)),
        )
        answers: dict[str, TaskResult] = {}
        try:
            link_spec_folder(self.directory, plan)
            burst = Burst(1, COLLECT, nodes)
            executor.run(burst, lambda task: answers.__setitem__(task.node, task), threading.Event())
            for task in answers.values():
                if "path" in task.result:
                    archive = Path(str(task.result["path"]))
                    shutil.move(archive, self.directory.nodes / f"{task.node}.tar.gz")  # maybe to another file system
        finally:
            executor.close()
            unlink_spec_folder(self.directory)
        return answers

    def _settle(self, node: str, task: TaskResult | None, fetched: dict[str, tuple[int, int]]) -> str:
        archive = self.directory.nodes / f"{node}.tar.gz"
        if task is None or not archive.exists():
            return f"{node}: nothing could be fetched: {task.message if task else 'Ansible told nothing of it'}"
        size = archive.stat().st_size
        try:
            files = unpack_results(archive, self.directory.nodes / node)
        except LabError as error:
            return f"{node}: {error.message}"
        fetched[node] = (size, files)
        return f"{node}: fetched {files} files, and removed its workspace"


def cleaning_of(directory: RunDirectory, vault_password_file: str | None, etcd: EtcdChoice) -> Cleaning:
    """What cleaning up after the run in ``directory`` takes. Raises UsageError while it goes on, or has no plan."""
    try:
        frozen = json.loads(directory.plan.read_text(encoding="utf-8"))
        text = directory.spec.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"the run {directory.run} never came to a plan; there is nothing to clean") from error
    if directory.access.exists() and is_alive(directory):
        raise UsageError(f"the run {directory.run} goes on", f"end it first: testbed abort {directory.run}")
    return Cleaning(
        directory,
        frozen,
        Options(
            spec=Path(frozen["spec"]),
            text=text,
            parameters={name: json.dumps(value) for name, value in frozen["parameters"].items()},
            inventories=frozen["inventories"],
            vault_password_file=vault_password_file,
            targets=CLEAN_ONLY,
            etcd=etcd,
            machines={node["node"]: node["machine"] for node in frozen["nodes"]},
            workspaces=directory.workspaces,
        ),
    )


def is_alive(directory: RunDirectory) -> bool:
    """Whether the run's controller lives: it holds a lock on the run's journal for as long as it does."""
    try:
        with directory.events.open("rb") as journal:
            fcntl.flock(journal, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
