"""What lies in the files that a deployment stages, as far as it is text."""

from __future__ import annotations

import os
from pathlib import Path

from testbed.spec.model import Deployment

SIZE_LIMIT = 256 * 1024
"""How large a file may be that is looked into, in bytes; scripts are smaller."""

FILES_LIMIT = 1000
"""How many files are looked into."""


def staged_texts(deployment: Deployment) -> dict[str, str]:
    """The texts of all staged files by their path relative to the spec's folder; what is large or unreadable is not.

    Bytes that are no UTF-8 are replaced.
    """
    folder = deployment.path.parent
    found: dict[str, str] = {}
    for name in dict.fromkeys(f for c in deployment.configurations.values() for f in c.files):
        for path in _files(folder / name):
            if len(found) >= FILES_LIMIT:
                return found
            try:
                if path.is_file() and path.stat().st_size <= SIZE_LIMIT:
                    found[os.path.normpath(path.relative_to(folder))] = path.read_text("utf-8", errors="replace")
            except OSError:
                continue  # staging tells of it, with the reason
    return found


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return [Path(here, name) for here, _, names in os.walk(path) for name in sorted(names)]
