"""The published schema, and where testbed finds what it ships with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from testbed import resources
from testbed.errors import TestbedError
from testbed.events import TARGETS
from testbed.spec import load
from testbed.spec.durations import seconds

SCHEMA = json.loads(resources.schema("deployment").read_text(encoding="utf-8"))


def named(schema: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Path and schema of every key of a spec."""
    if isinstance(schema, dict):
        for name, inner in schema.items():
            if name == "properties" and ("additionalProperties" in schema):
                yield from ((f"{path}/{k}", v) for k, v in inner.items())
            yield from named(inner, f"{path}/{name}")


def test_schema_is_one() -> None:
    """The published schema is JSON Schema 2020-12."""
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_editors_have_words() -> None:
    """Every key of a spec has a title for editors to show."""
    keys = dict(named(SCHEMA))
    assert len(keys) > 30
    assert [path for path, schema in keys.items() if not schema.get("title")] == []


def test_targets_are_the_agents() -> None:
    """The schema knows the targets that agents run, and no others."""
    known = set(SCHEMA["$defs"]["configuration"]["properties"])
    assert known - {"description", "files", "services"} == set(TARGETS)


def test_every_key_is_documented() -> None:
    """docs/spec.md speaks of every key of a spec."""
    text = (Path(__file__).parents[2] / "docs" / "spec.md").read_text(encoding="utf-8")
    names = {path.rsplit("/", 1)[1] for path, _ in named(SCHEMA)}
    assert sorted(n for n in names if f"`{n}`" not in text) == []


def test_documented_specs_are_right(tmp_path: Path) -> None:
    """Every whole spec in docs/spec.md is a spec."""
    text = (Path(__file__).parents[2] / "docs" / "spec.md").read_text(encoding="utf-8")
    blocks = [b.split("```", 1)[0] for b in text.split("```yaml\n")[1:]]
    whole = [b for b in blocks if "\ndeployment:" in f"\n{b}"]
    assert whole
    for block in whole:
        (tmp_path / "deployment.yml").write_text(block)
        for name in ("send.sh", "certs", "storage.yml"):
            (tmp_path / name).write_text("- debug: {msg: x}\n")
        assert list(Draft202012Validator(SCHEMA).iter_errors(yaml.safe_load(block))) == []
        assert load(tmp_path / "deployment.yml").nodes


@pytest.mark.parametrize(
    ("written", "wanted"),
    [
        *[(1, 1.0), (0.25, 0.25), ("90s", 90.0), ("20m", 1200.0), ("1h30m", 5400.0), ("500ms", 0.5), ("2d", 172800.0)],
        *[("1d2h3m4s5ms", 93784.005), ("1.5h", 5400.0)],
    ],
)
def test_durations(written: float | str, wanted: float) -> None:
    """A duration is seconds, whichever way it is written."""
    assert seconds(written) == pytest.approx(wanted)


def test_resources() -> None:
    """What is not installed is said to be missing, with a way out."""
    assert resources.playbooks().is_dir()
    with pytest.raises(TestbedError) as caught:
        resources.schema("nonsense")
    assert "schemas/nonsense.schema.json" in caught.value.message
    assert caught.value.help
