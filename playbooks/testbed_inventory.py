# Copyright the testbed authors
# GNU General Public License v3.0 or later (see LICENSE beside this file, or https://www.gnu.org/licenses/gpl-3.0.txt):
# this file imports ansible-core, which is under that licence.
# SPDX-License-Identifier: GPL-3.0-or-later

"""Print an inventory as ``ansible-inventory --list --export`` does, then its hosts in order, as a JSON list on a line.

The export sorts all that it prints, so the order in which a play over ``all`` meets the hosts is lost in it.
"""

from __future__ import annotations

import json
import sys

from ansible.cli.inventory import InventoryCLI


class OrderedInventory(InventoryCLI):
    """``ansible-inventory``, which ends by `SystemExit` when it has printed, and says one thing more."""

    def run(self) -> None:
        """Print both."""
        try:
            super().run()
        except SystemExit as end:
            if not end.code:
                sys.stdout.write(json.dumps([host.name for host in self.inventory.get_hosts("all")]) + "\n")
            raise


if __name__ == "__main__":
    OrderedInventory.cli_executor(["ansible-inventory", "--list", "--export", *sys.argv[1:]])
