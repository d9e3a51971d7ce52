# Copyright the testbed authors
# GNU General Public License v3.0 or later (see LICENSE beside the folder, or https://www.gnu.org/licenses/gpl-3.0.txt):
# this file imports ansible-core, which is under that licence.
# SPDX-License-Identifier: GPL-3.0-or-later

"""By hand: tell a node how its Ansible step ended; the controller does that by itself otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from testbed.errors import LabError
from testbed.run import byhand


class ActionModule(ActionBase):
    """``testbed_answer: {serial: N, verdict: passed|failed, reason: TEXT}``."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Write the answer into the run's etcd, from here."""
        del tmp
        task_vars = task_vars or {}
        result = super().run(None, task_vars)
        private = Path(self._templar.template(task_vars["testbed_private"]))
        place = self._templar.template(task_vars["testbed"])
        told = self._task.args
        verdict, reason = str(told["verdict"]), str(told.get("reason", ""))
        try:
            byhand.answer(private, place["run"], place["node"], int(told["serial"]), verdict, reason)
        except LabError as error:
            raise AnsibleActionFail(error.message) from error
        result.update(changed=True)
        return result
