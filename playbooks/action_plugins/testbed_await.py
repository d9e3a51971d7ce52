# Copyright the testbed authors
# GNU General Public License v3.0 or later (see LICENSE beside the folder, or https://www.gnu.org/licenses/gpl-3.0.txt):
# this file imports ansible-core, which is under that licence.
# SPDX-License-Identifier: GPL-3.0-or-later

"""By hand: wait until a node stands before an Ansible step; the controller does that by itself otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from testbed.errors import LabError
from testbed.run import byhand


class ActionModule(ActionBase):
    """``testbed_await: {step: CONFIGURATION.TARGET.STEP}``; gives ``wanted``, and the ``serial`` of the node's wish."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Wait on the run's etcd, from here."""
        del tmp
        task_vars = task_vars or {}
        result = super().run(None, task_vars)
        private = Path(self._templar.template(task_vars["testbed_private"]))
        place = self._templar.template(task_vars["testbed"])
        try:
            serial = byhand.await_wish(private, place["run"], place["node"], str(self._task.args["step"]))
        except LabError as error:
            raise AnsibleActionFail(error.message) from error
        result.update(changed=False, wanted=serial is not None, serial=serial)
        return result
