# Copyright the testbed authors
# GNU General Public License v3.0 or later (see LICENSE beside the folder, or https://www.gnu.org/licenses/gpl-3.0.txt):
# this file imports ansible-core, which is under that licence.
# SPDX-License-Identifier: GPL-3.0-or-later

"""Bring a node's logs and reports home as one checked archive, then remove its workspace."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from testbed.run import remote

CHUNK = 8 * 1024 * 1024
"""Bytes of the archive asked for at a time: an archive up to this size takes one command."""


class ActionModule(ActionBase):
    """``testbed_collect:`` takes no arguments; an agent that still lives is made to end first."""

    TRANSFERS_FILES = False
    _requires_connection = True

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fetch and remove; the result carries ``path``, ``size`` (bytes) and ``sha256`` of the archive at home."""
        del tmp
        task_vars = task_vars or {}
        result = super().run(None, task_vars)
        self._interpreter = str(self._templar.template(task_vars.get("ansible_python_interpreter") or ""))
        self._workspace = str(self._templar.template(task_vars["testbed_workspace"]))
        target = Path(self._templar.template(task_vars["testbed_results"]))
        path, size, digest = self._fetch(target)
        self._ask("remove")
        result.update(changed=True, path=str(path), size=size, sha256=digest)
        return result

    def _fetch(self, target: Path) -> tuple[Path, int, str]:
        """Chunk after chunk into ``target``; only a whole archive with the right checksum gets its name."""
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".partial")
        digest, offset = hashlib.sha256(), 0
        with open(partial, "wb", opener=lambda p, f: os.open(p, f, 0o600)) as out:
            while True:
                answer, rest = self._ask("collect", str(offset), str(CHUNK))
                try:
                    data = base64.b64decode(rest, validate=False)
                except binascii.Error as error:
                    raise AnsibleActionFail(f"the archive came damaged: {error}") from error
                total = int(answer["size"])
                if not data and offset < total:
                    raise AnsibleActionFail(f"the archive ended at {offset} of {total} bytes")
                out.write(data)
                digest.update(data)
                offset += len(data)
                if offset >= total:
                    break
        if digest.hexdigest() != answer["sha256"]:
            raise AnsibleActionFail(f"the archive came damaged: checksum differs after {offset} bytes")
        partial.replace(target)
        return target, offset, digest.hexdigest()

    def _ask(self, *words: str) -> tuple[dict[str, Any], str]:
        command = remote.agent_command(self._workspace, " ".join(words), self._interpreter)
        done = remote.persist(lambda: self._low_level_execute_command(command), AnsibleConnectionFailure)
        found = remote.parse_answer(done.get("stdout", ""))
        if found is None:
            said = (done.get("stderr") or done.get("stdout") or "no output").strip()
            raise AnsibleActionFail(f"{words[0]} got no answer (exit code {done.get('rc')}): {said[-2000:]}")
        if not found[0].get("ok"):
            raise AnsibleActionFail(f"{words[0]}: {found[0].get('reason', 'refused')}")
        return found
