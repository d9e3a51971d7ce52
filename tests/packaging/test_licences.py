"""Two licences, each where it belongs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGINS = sorted((ROOT / "playbooks").rglob("*.py"))
IMPORTS_ANSIBLE = re.compile(r"^\s*(?:import|from) ansible(?:\.|\s|$)", re.MULTILINE)


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.name)
def test_plugins_say_that_they_are_gpl(plugin: Path) -> None:
    """Each plugin names the GPL in words and by its SPDX identifier, in its head."""
    head = plugin.read_text("utf-8")[:600]
    assert "GNU General Public License v3.0 or later" in head
    assert "SPDX-License-Identifier: GPL-3.0-or-later" in head


def test_nothing_else_imports_ansible_core() -> None:
    """What imports ansible-core lies in playbooks/, where the GPL is said to hold."""
    others = [path for folder in ("testbed", "tui") for path in (ROOT / folder).rglob("*.py")]
    assert others
    assert [path for path in others if IMPORTS_ANSIBLE.search(path.read_text("utf-8"))] == []


def test_the_texts_are_there() -> None:
    """Both licences are there in full."""
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")
    assert "GNU GENERAL PUBLIC LICENSE" in (ROOT / "playbooks/LICENSE").read_text("utf-8")
