# Copyright the testbed authors
# GNU General Public License v3.0 or later (see LICENSE beside the folder, or https://www.gnu.org/licenses/gpl-3.0.txt):
# this file imports ansible-core, which is under that licence.
# SPDX-License-Identifier: GPL-3.0-or-later

"""Start a node's agent: the agent, its plan and the staged files go down the connection's stdin in one command."""

from __future__ import annotations

import gc
import importlib.util
import os
import shlex
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase

from testbed.agent import archive
from testbed.run import remote


def _beside(name: str) -> Any:
    """The module ``name`` of this very folder, which is on nobody's path."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


threads = _beside("testbed_threads")
threads.install(int(os.environ.get(remote.THREADS, "0")))
# What is sent may only now be being written.
if remote.GATE in os.environ and not remote.pass_gate(os.environ[remote.GATE]):
    raise AnsibleError("testbed has gone; nothing is started")
archive.build()  # once in Ansible's main process, which loads this file before it forks a worker for every host
# Nothing that this process has so far is looked at by a worker's garbage collector, which would copy all its pages.
gc.collect()
gc.freeze()


class ActionModule(ActionBase):
    """``testbed_start:`` takes no arguments; what is sent lies in the run's private folder."""

    TRANSFERS_FILES = False
    _requires_connection = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Send and start; the result carries the agent's answer as ``answer``."""
        del tmp
        task_vars = task_vars or {}
        result = super().run(None, task_vars)
        private = Path(self._templar.template(task_vars["testbed_private"]))
        node = task_vars["inventory_hostname"]
        payload = archive.payload(*remote.read_start(private, node))
        interpreter = str(self._templar.template(task_vars.get("ansible_python_interpreter") or ""))
        command = remote.python_command(f"-c {shlex.quote(archive.BOOTSTRAP)} testbed-agent {node}", interpreter)
        with threads.waiting():
            done = remote.persist(
                lambda: self._low_level_execute_command(command, in_data=payload), AnsibleConnectionFailure
            )
        found = remote.parse_answer(done.get("stdout", ""))
        if found is None:
            words = (done.get("stderr") or done.get("stdout") or "no output").strip()
            raise AnsibleActionFail(f"the agent did not start (exit code {done.get('rc')}): {words[-2000:]}")
        answer = found[0]
        result.update(changed=True, failed=not answer.get("ok", False), answer=answer, msg=answer.get("reason", ""))
        return result
