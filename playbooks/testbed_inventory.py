# Copyright the testbed authors
# GNU General Public License v3.0 or later (see LICENSE beside this file, or https://www.gnu.org/licenses/gpl-3.0.txt):
# this file imports ansible-core, which is under that licence.
# SPDX-License-Identifier: GPL-3.0-or-later

"""Print an inventory as ``ansible-inventory --list --export`` does, then, as JSON on a line, its hosts in order.

The export sorts all that it prints, so the order in which a play over ``all`` meets the hosts is lost in it. With each
host come those of its connection variables that are templates, resolved: under a node's name they would mean another
host (``inventory_hostname``), or one that the run's inventory does not have (``hostvars``).
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ansible.cli.inventory import InventoryCLI
from ansible.errors import AnsibleError
from ansible.template import Templar
from ansible.vars.hostvars import HostVars


class OrderedInventory(InventoryCLI):
    """``ansible-inventory``, which ends by `SystemExit` when it has printed, and says one thing more."""

    templates = False
    """Whether there are templates in the inventory: to look for them host by host takes long in a large one."""

    def dump(self, stuff: Any) -> str:
        """What is printed."""
        text: str = InventoryCLI.dump(stuff)
        self.templates = "{{" in text or "{%" in text
        return text

    def run(self) -> None:
        """Print both."""
        try:
            super().run()
        except SystemExit as end:
            if not end.code:
                HostVars(self.inventory, self.vm, self.loader)  # from now on the manager knows ``hostvars``
                named = self.inventory.get_hosts("all")
                hosts = [(host.name, self._resolved(host) if self.templates else {}) for host in named]
                sys.stdout.write(json.dumps(hosts) + "\n")
            raise

    def _resolved(self, host: Any) -> dict[str, Any]:
        """The host's connection variables that are templates; passwords, and what cannot be known, are left out."""
        variables = self.vm.get_vars(host=host)
        templar = Templar(self.loader, variables)
        result = {}
        for name, value in variables.items():
            if name.startswith("ansible_") and "pass" not in name and templar.is_template(value):
                try:
                    resolved = templar.template(value)
                except AnsibleError:
                    continue  # it needs what only a play knows; Ansible says so there if it is never known
                if isinstance(resolved, (str, int, float)):
                    result[name] = resolved
        return result


if __name__ == "__main__":
    OrderedInventory.cli_executor(["ansible-inventory", "--list", "--export", *sys.argv[1:]])
