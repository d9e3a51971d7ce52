# Copyright the testbed authors
# GNU General Public License v3.0 or later (see LICENSE beside the folder, or https://www.gnu.org/licenses/gpl-3.0.txt):
# this file imports ansible-core, which is under that licence.
# SPDX-License-Identifier: GPL-3.0-or-later

"""Nodes whose steps are done in one play are apart from each other, as if each had a play of its own.

Ansible's main process loads this file when it works out the hosts of the play. It leaves a version of ansible-core that
has not been tried as it is: there a step that ends the play ends it for all nodes that are served with its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible.release import __version__

from testbed.run import remote

ENDS = ("end_batch", "end_host", "end_play")
OF_ALL = ("clear_facts", "clear_host_errors", "end_batch", "end_play")
"""What ``meta`` does to all hosts of the play, whichever comes to it."""


def _keep_apart() -> None:
    """Have ``meta`` act on the one host that comes to it, and each host do what is done once for all elsewhere."""
    from ansible.executor.play_iterator import IteratingStates
    from ansible.plugins.loader import action_loader
    from ansible.plugins.strategy import StrategyBase

    execute_meta = StrategyBase._execute_meta

    def alone(strategy: Any, task: Any, play_context: Any, iterator: Any, target_host: Any) -> Any:
        """Do ``meta``, and tell the end of the host's step, of which Ansible says nothing."""
        meta, play = task._get_meta(), iterator._play
        hosts = play.hosts
        try:
            if meta in OF_ALL:
                play.hosts = [target_host.name]
            results = execute_meta(strategy, task, play_context, iterator, target_host)
        finally:
            play.hosts = hosts
        if meta in ENDS and iterator.get_state_for_host(target_host.name).run_state == IteratingStates.COMPLETE:
            strategy._tqm.send_callback("v2_runner_on_ok", results[0])
        return results

    StrategyBase._execute_meta = alone
    for name in ("add_host", "pause"):  # refused where each host goes its own way
        action_loader.get(f"ansible.builtin.{name}", class_only=True).BYPASS_HOST_LOOP = False


if remote.is_known(__version__):
    _keep_apart()
# ansible-runner's terminal has nobody at it: a prompt would be waited for, and all nodes with it
sys.stdin = Path(os.devnull).open(encoding="utf-8")  # noqa: SIM115  for as long as the process lives


class FilterModule:
    """``nodes | testbed_apart`` gives the nodes."""

    def filters(self) -> dict[str, Callable[[Any], Any]]:
        """The one filter."""
        return {"testbed_apart": list}
