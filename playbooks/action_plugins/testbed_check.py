# Copyright the testbed authors
# GNU General Public License v3.0 or later (see LICENSE beside the folder, or https://www.gnu.org/licenses/gpl-3.0.txt):
# this file imports ansible-core, which is under that licence.
# SPDX-License-Identifier: GPL-3.0-or-later

"""Look at a machine as a run would meet it: its Python, room for a workspace, the way to etcd."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from testbed.run import remote


class ActionModule(ActionBase):
    """``testbed_check:`` looks at what the host variables ``testbed_root`` and ``testbed_endpoint`` name."""

    TRANSFERS_FILES = False
    _requires_connection = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask; the result carries the machine's answer as ``answer``."""
        del tmp
        task_vars = task_vars or {}
        result = super().run(None, task_vars)
        program = remote.check(
            str(self._templar.template(task_vars["testbed_root"])),
            list(self._templar.template(task_vars["testbed_endpoint"])),
        )
        interpreter = str(self._templar.template(task_vars.get("ansible_python_interpreter") or ""))
        command = remote.python_command("-", interpreter)
        done = remote.persist(
            lambda: self._low_level_execute_command(command, in_data=program), AnsibleConnectionFailure
        )
        found = remote.parse_answer(done.get("stdout", ""))
        if found is None:
            words = (done.get("stderr") or done.get("stdout") or "no output").strip()
            raise AnsibleActionFail(f"no answer (exit code {done.get('rc')}): {words[-2000:]}")
        answer = found[0]
        result.update(failed=not answer.get("ok", False), answer=answer, msg=answer.get("reason", ""))
        return result
