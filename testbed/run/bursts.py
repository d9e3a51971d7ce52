"""Ansible in bursts: the one door to ansible-runner."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from testbed.agent import process
from testbed.errors import LabError
from testbed.events import COLLECT, SERVE, START
from testbed.run.executor import (
    CHANGED,
    FAILED,
    OK,
    SKIPPED,
    UNREACHABLE,
    Burst,
    BurstOutcome,
    TaskResult,
)
from testbed.run.foreseen import Foreseen
from testbed.run.remote import BURST, THREADS

CHECK = "check"
"""The phase that is no part of a run: `testbed doctor` looks at machines."""

PLAYBOOKS = {
    START: "testbed-start.yml",
    SERVE: "testbed-serve.yml",
    COLLECT: "testbed-collect.yml",
    CHECK: "testbed-check.yml",
}
"""The playbook of each phase, in the run's ``playbooks/``."""

CLOSE_PATIENCE = 5.0
"""Seconds that closing one of the SSH connections that were kept may take; they end by themselves a minute later."""

SWEEP_GRACE = 2.0
"""Seconds between TERM and KILL for what a cancelled burst left."""

_OUTCOMES = {
    "runner_on_ok": OK,
    "runner_on_skipped": SKIPPED,
    "runner_on_failed": FAILED,
    "runner_on_unreachable": UNREACHABLE,
}
_PARTS = (
    "runner_item_on_ok",
    "runner_item_on_failed",
    "runner_item_on_skipped",
    "runner_retry",
    "runner_on_async_poll",
)
"""What is told of a task on a node before its result: items of a loop, attempts, looks at a job."""

_CANCEL_CHECK = 1.0
"""Seconds between ansible-runner's looks at its cancel callback."""

_SOCKETS = "sockets"
"""What in the private folder leads to the folder of SSH's sockets."""

_TMP_LENGTH = 50
"""Bytes that ``TMPDIR`` may have to hold that folder: with what Ansible and ssh append 107, and a few to spare.

Where it is longer Ansible is given another, for newer versions of it have sockets of their own there.
"""

_THREADS = 4
"""How many of the threads that a START has instead of forks cost what one fork does."""

_TAIL = 4000
"""Characters of Ansible's output kept in memory for messages."""


class AnsibleBursts:
    """Executor over ansible-runner.

    ``playbooks`` is the run's folder of playbooks, ``inventory`` the run's inventory file, ``logs`` where each burst
    leaves its output, ``private`` a folder of mode 0700 for what lives as long as a burst, ``environment`` what
    Ansible is told by environment.
    """

    serves = 4

    def __init__(
        self, playbooks: Path, inventory: Path, logs: Path, private: Path, environment: Mapping[str, str], forks: int
    ) -> None:
        self._playbooks = playbooks
        self._inventory = inventory
        self._logs = logs
        self._private = private
        self._forks = forks
        self._from = Path.cwd()
        self._foreseen: Foreseen | None = None
        # Kept apart from ~/.ansible/cp: a control socket of an earlier lab at the same address would hang, and what
        # this run opens it closes. Not in the run's folder, because a Unix socket's path may have 107 bytes at most.
        short = len(os.fsencode(tempfile.gettempdir())) <= _TMP_LENGTH
        self._sockets = Path(tempfile.mkdtemp(prefix="testbed-cp-", dir=None if short else "/tmp"))  # noqa: S108  mode 0700
        (private / _SOCKETS).symlink_to(self._sockets)  # for who cleans up after a controller that was killed
        # First on PATH: the ansible-playbook that was installed with this very program.
        path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
        self._environment = {
            **environment,
            "PATH": path,
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self._sockets),
            "ANSIBLE_LOCAL_TEMP": str(private / "ansible"),  # not in a home, which may be closed to writing
            "ANSIBLE_INVENTORY_ENABLED": "yaml",  # of the run's own inventory; every further kind takes time to load
            "ANSIBLE_STDOUT_CALLBACK": "default",  # another may not be there, or tell tasks only in the end
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_FORCE_COLOR": "0",
            THREADS: str(forks * _THREADS),
            **({} if short else {"TMPDIR": "/tmp"}),  # noqa: S108  the folders in it are private
        }

    def foresee(self, burst: Burst) -> None:
        """Have Ansible load all that it needs for a START that `run` will be asked for, and wait there.

        Half a second goes into that, in which the run's etcd is set up. `close` ends what was not asked for.
        """
        gate = self._private / "gate"
        os.mkfifo(gate, 0o600)
        self._foreseen = Foreseen(burst, gate, self._do)

    def run(self, burst: Burst, on_result: Callable[[TaskResult], None], cancelled: threading.Event) -> BurstOutcome:
        """See `Executor.run`."""
        foreseen, self._foreseen = self._foreseen, None
        if foreseen is None or foreseen.burst != burst:
            self._foreseen = foreseen
            return self._do(burst, on_result, cancelled.is_set, {})
        return foreseen.go_on(on_result, cancelled)

    def _do(
        self,
        burst: Burst,
        on_result: Callable[[TaskResult], None],
        cancelled: Callable[[], bool],
        environment: Mapping[str, str],
    ) -> BurstOutcome:
        name = f"{burst.number:03d}-{burst.phase}"
        work = self._private / "bursts" / name
        work.mkdir(parents=True, mode=0o700)
        mark = f"{self._private}/{name}"
        try:
            told = {**self._environment, **environment, BURST: mark}
            runner, tail = self._play(burst, work, on_result, cancelled, told)
            if runner.status == "canceled":
                self._sweep(mark)
        finally:
            log = self._keep_log(work, name)
            shutil.rmtree(work, ignore_errors=True)
        return BurstOutcome(
            exit_code=int(runner.rc if runner.rc is not None else 254),
            cancelled=runner.status == "canceled",
            output="".join(tail)[-_TAIL:],
            log=str(log),
        )

    def _play(
        self,
        burst: Burst,
        work: Path,
        on_result: Callable[[TaskResult], None],
        cancelled: Callable[[], bool],
        environment: Mapping[str, str],
    ) -> tuple[Any, list[str]]:
        import ansible_runner

        logging.getLogger("ansible-runner").addHandler(logging.NullHandler())
        tail: list[str] = []
        parts: dict[tuple[str, str], list[str]] = {}

        def on_event(event: dict[str, Any]) -> bool:
            text = event.get("stdout") or ""
            if text:
                tail.append(text + "\n")
                del tail[:-50]
            data = event.get("event_data") or {}
            whose = str(data.get("host")), str(data.get("task_uuid"))
            if event.get("event") in _PARTS and text:
                parts.setdefault(whose, []).append(text)
            result = task_result(event)
            if result is not None:
                on_result(replace(result, output="\n".join([*parts.pop(whose, ()), result.output])))
            return False  # nothing on disk: the log and our own events keep all that is needed

        try:
            runner = ansible_runner.run(
                private_data_dir=str(work),
                # from where paths of keys, of ssh and of vaults hold, unless somebody has removed it meanwhile
                project_dir=str(self._from if self._from.is_dir() else self._playbooks),
                artifact_dir=str(work / "artifacts"),
                ident=work.name,
                playbook=str(self._playbooks / PLAYBOOKS[burst.phase]),
                inventory=str(self._inventory),
                extravars={"testbed_batch": list(burst.nodes), "testbed_steps": dict(burst.steps)},
                envvars=dict(environment),
                forks=min(len(burst.nodes), self._forks),
                settings={"pexpect_timeout": _CANCEL_CHECK, "suppress_ansible_output": True},
                event_handler=on_event,
                cancel_callback=cancelled,
                quiet=True,
            )
        except (ansible_runner.exceptions.AnsibleRunnerException, OSError) as error:
            raise LabError(
                f"Ansible could not be started for {burst.phase}: {error}", "see `testbed doctor`"
            ) from error
        return runner, tail

    def _sweep(self, mark: str) -> None:
        """Stop what a cancelled Ansible left here: its workers are in sessions of their own and work on without it."""

        def left() -> list[process.Process]:
            # The connections that ssh keeps open are other bursts' too.
            found = process.find((), (f"{BURST}={mark}".encode(),))
            return [p for p in found if not p.command.startswith("ssh: ")]

        process.stop(left, SWEEP_GRACE)

    def _keep_log(self, work: Path, name: str) -> Path:
        """The burst's output, as Ansible printed it, outlives its folder."""
        self._logs.mkdir(parents=True, exist_ok=True)
        log = self._logs / f"{name}.log"
        for stdout in work.glob("artifacts/**/stdout"):
            shutil.move(stdout, log)
        return log

    def close(self) -> None:
        """End what was foreseen in vain, and close the SSH connections that were kept for later bursts."""
        if self._foreseen is not None:
            self._foreseen.give_up()
        with suppress(subprocess.TimeoutExpired):  # the run is over, and what it came to stands whatever hangs here
            for socket in self._sockets.iterdir():
                subprocess.run(
                    ["ssh", "-o", f"ControlPath={socket}", "-O", "exit", "testbed"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=CLOSE_PATIENCE,
                    check=False,
                )
        shutil.rmtree(self._sockets, ignore_errors=True)
        (self._private / _SOCKETS).unlink(missing_ok=True)


def preload() -> None:
    """Import ansible-runner ahead of the first burst, at a time when there is nothing else to do."""
    import ansible_runner  # noqa: F401


def remove_sockets(private: Path) -> None:
    """Remove the folder of SSH's sockets of bursts with that ``private`` folder, which were never closed."""
    link = private / _SOCKETS
    if link.is_symlink():
        shutil.rmtree(link.readlink(), ignore_errors=True)


def task_result(event: Mapping[str, Any]) -> TaskResult | None:
    """The task result that an event of ansible-runner tells; None for the other kinds."""
    outcome = _OUTCOMES.get(event.get("event", ""))
    if outcome is None:
        return None
    data = event.get("event_data") or {}
    result = data.get("res")
    result = result if isinstance(result, dict) else {}
    if outcome == OK and result.get("changed"):
        outcome = CHANGED
    output = str(event.get("stdout") or "")
    # ansible-runner tells of ignore_errors, and nothing of ignore_unreachable but Ansible's last word
    passed_over = outcome == UNREACHABLE and output.rstrip().endswith("...ignoring")
    return TaskResult(
        node=str(data.get("host", "")),
        task=str(data.get("task") or data.get("name") or ""),
        action=str(data.get("resolved_action") or data.get("task_action") or ""),
        outcome=outcome,
        ignored=bool(data.get("ignore_errors")) or passed_over,
        result=result,
        output=output,
    )


def forks_for(nodes: int) -> int:
    """How many hosts one Ansible process works on at once.

    A fork costs about 60 MB while it works; a core keeps about eight busy, since most of a fork's time is waiting for
    its machine.
    """
    cores = len(os.sched_getaffinity(0))
    try:
        memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        memory = 2 * 1024**3
    return max(1, min(nodes, cores * 8, int(memory / (60 * 1024**2))))


__all__ = ["AnsibleBursts", "forks_for", "preload", "remove_sockets", "task_result"]
