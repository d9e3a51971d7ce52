"""The plan as a person and as a program read it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

SPEC = """
deployment: store
timeout: 5m
configurations:
  storage:
    services: {archive: {run: sleep inf, timeout: 20s}}
    deploy: {ansible: [{ansible.builtin.ping: }]}
    test: "true"
nodes:
  one: {configurations: [storage]}
"""

TEXT = """\
deployment store: 1 node, at most 300 s, ends with the publish of one

  0  one on a workspace on this machine: storage
     deploy   main    storage (Ansible)
     service  archive storage (agent, at most 20 s)
     test     main    storage (agent)
"""


def test_the_plan_is_shown_and_nothing_is_touched(call: Callable[..., Result], tmp_path: Path, home: Path) -> None:
    """Who does what where, step by step and in columns, also as JSON; nothing is made for it."""
    spec = tmp_path / "deployment.yml"
    spec.write_text(SPEC)
    done = call("plan", str(spec))
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(TEXT)
    told = json.loads(call("plan", str(spec), "--json").stdout)
    assert [s["target"] for n in told["nodes"] for s in n["steps"]] == ["deploy", "service", "test"]
    assert not home.exists()
    assert list(tmp_path.iterdir()) == [spec]
