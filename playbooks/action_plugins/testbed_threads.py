# Copyright the testbed authors
# GNU General Public License v3.0 or later (see LICENSE beside the folder, or https://www.gnu.org/licenses/gpl-3.0.txt):
# this file imports ansible-core, which is under that licence.
# SPDX-License-Identifier: GPL-3.0-or-later

"""Threads instead of forks for Ansible's workers, for a play whose one task waits for one command on each host.

Forking and taking down a worker costs more than all that it does to start an agent: `ssh` is a process anyway. A worker
here runs the same code of Ansible's as a forked one, and what a fork keeps from the others is copied. No two run at the
same time, nor beside Ansible's main thread, until they wait for their machines: nothing of Ansible is made for that.
"""

from __future__ import annotations

import _thread
import copy
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ansible.plugins.strategy
from ansible import constants
from ansible._internal import _task
from ansible.executor.process.worker import WorkerProcess
from ansible.release import __version__
from ansible.utils.display import Display

from testbed.run import remote

_turn = threading.Lock()
_here = threading.local()
_places = threading.Semaphore()


class Worker(WorkerProcess):
    """A worker process that never becomes one."""

    exitcode = None  # none that would tell of a death: see `_work`

    def __init__(self, **given: Any) -> None:
        # A worker writes into these: it resolves the task's words, and forgets the host's variables when it is done.
        task = given["task"]
        given.update(host=copy.copy(given["host"]), loader=copy.copy(given["loader"]), task=task.copy(True))
        given["task"]._parent = task._parent
        super().__init__(**given)
        self._waits = threading.Event()
        self._thread = threading.Thread(target=self._work, name=str(self._host), daemon=True)

    def start(self) -> None:
        """Begin when there is a place, and come back when it waits for its machine, or has ended."""
        _places.acquire()
        self._thread.start()
        self._waits.wait()

    def is_alive(self) -> bool:
        """Never: of places for processes, of which there are as many as of forks, it takes none."""
        return False

    def close(self) -> None:
        """Nothing: there is no process to be forgotten."""

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let others run inside."""
        _turn.release()
        self._waits.set()
        try:
            yield
        finally:
            _turn.acquire()

    def _work(self) -> None:
        _here.worker = self
        try:
            with _turn, _context(self._task, self._task_vars, self._host.name):
                self._run()
        except BaseException:  # noqa: BLE001  a bug; the host has no result, for which Ansible would wait for ever
            Display().error(f"the worker for {self._host} died: {traceback.format_exc()}")
            _thread.interrupt_main()
        finally:
            _places.release()
            self._waits.set()


def _context(task: Any, task_vars: dict[str, Any], host: str) -> Any:
    if hasattr(_task.TaskContext, "create"):  # newer than 2.19
        return _task.TaskContext.create(task=task, task_vars=task_vars, host_name=host)
    return _task.TaskContext(task)


@contextmanager
def waiting() -> Iterator[None]:
    """Around what a task waits for: a worker here lets others run meanwhile; in a forked one it is nothing."""
    worker = getattr(_here, "worker", None)
    if worker is None:
        yield
    else:
        with worker.waiting():
            yield


def install(places: int) -> None:
    """Have this process of Ansible's work on so many hosts at once, with threads, where it can; 0: it forks.

    So it does in a version of ansible-core that has not been tried, and where tasks have a time limit: that is kept by
    signals, which no thread has one of its own of.
    """
    if not places or not remote.is_known(__version__) or constants.TASK_TIMEOUT:
        return
    global _places  # noqa: PLW0603  how many there are is known only now
    _places = threading.Semaphore(places)
    for stream in (sys.stdout, sys.stderr):
        stream.getvalue = str  # type: ignore[union-attr]  # a worker asks what its task printed past `Display`
    ansible.plugins.strategy.WorkerProcess = Worker
