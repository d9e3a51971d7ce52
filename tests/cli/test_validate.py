"""`testbed validate`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from click.testing import Result

SPEC = """deployment: hello
parameters: {greeting: {type: string, default: hi}}
configurations:
  greeter: {test: echo hi}
nodes:
  a: {configurations: [greeter]}
"""


def test_a_right_spec(call: Callable[..., Result], tmp_path: Path) -> None:
    """A spec without mistakes exits with 0 and says what it declares."""
    spec = tmp_path / "s.yml"
    spec.write_text(SPEC)
    done = call("validate", str(spec), "-p", "greeting=hello")
    assert (done.exit_code, done.stdout) == (0, f"{spec}: hello is right: 1 node, 1 configuration\n")
    assert json.loads(call("validate", str(spec), "--json").stdout) == {"valid": True, "flow": [], "diagnostics": []}


def test_a_doubtful_spec(call: Callable[..., Result], tmp_path: Path) -> None:
    """Who sets what for whom is shown, and a wait that nobody ends is a warning at its line: `plan` says the same."""
    spec = tmp_path / "s.yml"
    spec.write_text(SPEC.replace("{test: echo hi}", "{test: testbed get -b nothing}"))
    done = call("validate", str(spec))
    assert done.exit_code == 0
    assert done.stdout.splitlines()[1:] == ["", "             set by  waited for by", "key nothing  -       a"]
    assert "warning: a waits for the key 'nothing', which nobody sets" in done.stderr
    assert "s.yml:4:19" in done.stderr
    planned = call("plan", str(spec))
    assert (planned.exit_code, planned.stderr) == (0, done.stderr)
    assert planned.stdout.endswith(done.stdout.partition("\n")[2])
    found = json.loads(call("validate", str(spec), "--json").stdout)
    assert found["flow"] == [{"kind": "key", "name": "nothing", "set_by": [], "waited_by": ["a"]}]
    assert [(d["severity"], d["span"]["line"]) for d in found["diagnostics"]] == [("warning", 4)]
    planned_data = json.loads(call("plan", str(spec), "--json").stdout)
    assert {k: planned_data[k] for k in ("flow", "diagnostics")} == {k: found[k] for k in ("flow", "diagnostics")}


def test_a_wrong_spec(call: Callable[..., Result], tmp_path: Path) -> None:
    """Mistakes exit with 2: rendered on stderr with their place, or as JSON on stdout."""
    spec = tmp_path / "s.yml"
    spec.write_text(SPEC.replace("[greeter]", "[greter]"))
    done = call("validate", str(spec))
    assert (done.exit_code, done.stdout) == (2, "")
    assert "s.yml:6:" in done.stderr
    done = call("validate", str(spec), "--json")
    found = json.loads(done.stdout)
    assert (done.exit_code, found["valid"], found["diagnostics"][0]["span"]["line"]) == (2, False, 6)
    spec.write_text(SPEC)
    assert json.loads(call("validate", str(spec), "--json").stdout).keys() == found.keys()


def test_a_parameter_that_is_none(call: Callable[..., Result], tmp_path: Path) -> None:
    """`-p` without a value is a usage error that shows how to write it."""
    done = call("validate", str(tmp_path / "s.yml"), "-p", "greeting")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "-p NAME=VALUE" in done.stderr
