"""What ships in place of two of the standard library's modules does what those do."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from testbed import standins
from testbed.agent import archive

Classes = Any


@pytest.fixture(params=[dataclasses, standins], ids=["standard", "standin"])
def made(request: pytest.FixtureRequest) -> Classes:
    """Classes of values, and the functions for them, made by one of the two."""
    kind: ModuleType = request.param

    @kind.dataclass(frozen=True)
    class Base:
        kind: ClassVar[str] = "none"
        at: float

    @kind.dataclass(frozen=True)
    class Derived(Base):
        name: str
        secret: str = kind.field(repr=False, default="s")
        parts: list[Any] = kind.field(default_factory=list)

    class Further(Derived):
        """One that adds nothing."""

    @kind.dataclass
    class Open:
        count: int = 0
        checked: bool = False

        def __post_init__(self) -> None:
            self.checked = True

    class All:
        base, derived, further, open = Base, Derived, Further, Open
        fields = staticmethod(kind.fields)
        asdict, replace = staticmethod(kind.asdict), staticmethod(kind.replace)

    return All


def test_values_are_made_by_position_and_by_name(made: Classes) -> None:
    """Fields come in the order of declaration, inherited ones first; defaults fill the rest, anew for each value."""
    one = made.derived(1.0, "a")
    assert (one.at, one.name, one.secret, one.parts) == (1.0, "a", "s", [])
    assert made.derived(name="a", at=1.0) == one
    assert made.derived(1.0, "a").parts is not one.parts
    assert [f.name for f in made.fields(made.derived)] == ["at", "name", "secret", "parts"]
    assert [f.type for f in made.fields(made.base)] == ["float"]
    assert made.open().checked


@pytest.mark.parametrize(
    ("given", "named"), [((), {}), ((1.0,), {}), ((1.0, "a", "s", [], 5), {}), ((1.0, "a"), {"b": 2})]
)
def test_wrong_values_are_refused(made: Classes, given: tuple[Any, ...], named: dict[str, Any]) -> None:
    """What is missing, too much or unknown is a TypeError."""
    with pytest.raises(TypeError):
        made.derived(*given, **named)


def test_values_are_equal_by_kind_and_content(made: Classes) -> None:
    """Equal content of one class is equal; another class, and another content, is not."""
    assert made.base(1.0) == made.base(1.0) != made.base(2.0)
    assert made.derived(1.0, "a") != made.further(1.0, "a") == made.further(1.0, "a")
    assert hash(made.base(1.0)) == hash(made.base(1.0))
    assert made.open.__hash__ is None


def test_frozen_values_stay_as_they_are(made: Classes) -> None:
    """A frozen value refuses to be changed, an open one does not."""
    one, other = made.base(1.0), made.open()
    with pytest.raises(AttributeError):
        one.at = 2.0
    with pytest.raises(AttributeError):
        del one.at
    other.count = 5
    assert other == made.open(5)


def test_values_are_shown_without_secrets(made: Classes) -> None:
    """The text of a value names its fields, but for those that are not to be shown."""
    assert repr(made.derived(1.0, "a")).endswith("Derived(at=1.0, name='a', parts=[])")


def test_values_are_replaced_and_taken_apart(made: Classes) -> None:
    """A changed copy leaves the first as it was; the dictionary of a value holds those within it likewise."""
    one = made.derived(1.0, "a", parts=[{"inner": made.base(2.0)}, (made.base(3.0),)])
    assert made.replace(one, name="b").name == "b" != one.name
    with pytest.raises(TypeError):
        made.replace(one, nothing=1)
    assert made.asdict(one) == {
        "at": 1.0, "name": "a", "secret": "s", "parts": [{"inner": {"at": 2.0}}, ({"at": 3.0},)]
    }  # fmt: skip
    assert made.asdict(one)["parts"] is not one.parts


def test_every_module_that_ships_can_be_imported_without_the_originals(tmp_path: Path) -> None:
    """No module on a node needs more of the two than what stands in for them, nor brings them in."""
    path = tmp_path / "agent.pyz"
    path.write_bytes(archive.build()[0])
    code = (
        "import sys, json, zipfile, importlib; sys.path.insert(0, sys.argv[1])\n"
        "names = [n for n in zipfile.ZipFile(sys.argv[1]).namelist() if n.startswith('testbed/') and n[-3:] == '.py']\n"
        "for n in names: importlib.import_module(n[:-3].replace('/', '.').replace('.__init__', ''))\n"
        "print(json.dumps([len(names), sorted({'dataclasses', 'typing', 'inspect'} & set(sys.modules))]))"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(path)], capture_output=True, text=True, check=True
    )
    count, brought = json.loads(done.stdout)
    assert (count > 40, brought) == (True, [])
