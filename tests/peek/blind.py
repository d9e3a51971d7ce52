"""A Python on which the kernel tells nobody that files grow."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

_BLIND = 'echo 0 >/proc/sys/user/max_inotify_instances && exec "$0" "$@"'


def blind_python(folder: Path) -> str:
    """A command that is this Python in a user namespace that may have no inotify; skips where there are none."""
    path = folder / "blind-python"
    unshare = f"exec unshare --user --map-root-user sh -c {shlex.quote(_BLIND)}"
    path.write_text(f'#!/bin/sh\n{unshare} {shlex.quote(sys.executable)} "$@"\n')
    path.chmod(0o755)
    if subprocess.run([str(path), "-c", ""], check=False).returncode:
        pytest.skip("user namespaces cannot be made here")
    return str(path)
