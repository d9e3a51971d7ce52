"""What people install: an sdist, the wheel that is built from it, an editable checkout; each works on its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib.metadata import distribution
from pathlib import Path

import pytest

import testbed

ROOT = Path(testbed.__file__).parent.parent
HELLO = ROOT / "examples/hello/deployment.yml"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT])
    return folder


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a new environment with the wheel in it; nothing of it comes from the checkout."""
    (wheel,) = built.glob("*.whl")
    return environment(tmp_path_factory.mktemp("wheel") / "env", wheel)


@pytest.fixture(scope="module")
def editable() -> Path:
    """The bin folder of the environment that these tests run in: `make` installs the checkout there, editable."""
    origin = json.loads(distribution("testbed").read_text("direct_url.json") or "{}")
    assert origin.get("dir_info", {}).get("editable"), "run the tests with `make test`"
    return Path(sys.executable).parent


def environment(path: Path, wheel: Path) -> Path:
    """A virtual environment with the wheel installed by pip, and this one's libraries in sight; its bin folder.

    The libraries come by a .pth file, in which those of their own (an editable testbed) are not followed.
    """
    venv.create(path, with_pip=False)
    python = path / "bin/python"
    libraries = sysconfig.get_path("purelib", vars={"base": str(path)})
    (Path(libraries) / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run([sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel])
    for script in distribution("ansible-core").entry_points.select(group="console_scripts"):
        program = path / "bin" / script.name
        program.write_text(
            f"#!{python}\nimport sys\nfrom {script.module} import {script.attr}\nsys.exit({script.attr}())\n"
        )
        program.chmod(0o755)
    return path / "bin"


def run(command: list[str | Path], home: Path | None = None, cwd: Path | None = None) -> str:
    """The command's stdout; with ``home`` all that it keeps is kept there. Fails with its words where it fails."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "HOME") if name in os.environ}
    own = {"HOME": str(home), "TESTBED_STATE_HOME": str(home / "state")} if home else {}
    done = subprocess.run(
        command, env={**kept, **own}, cwd=cwd, capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_the_wheel_is_complete(built: Path) -> None:
    """The wheel holds the package, schemas, playbooks with their plugins and both licences, and no rubbish."""
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, suffixes, inside in (
        ("testbed", (".py", ".sh"), "testbed"),
        ("schemas", (".json",), "testbed/_data/schemas"),
        ("playbooks", (".py", ".yml"), "testbed/_data/playbooks"),
    ):
        shipped = [p for p in (ROOT / folder).rglob("*") if p.suffix in suffixes]
        assert shipped
        assert {f"{inside}/{p.relative_to(ROOT / folder)}" for p in shipped} <= names
    assert {name.partition("licenses/")[2] for name in names if "licenses/" in name} == {"LICENSE", "playbooks/LICENSE"}
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_the_sdist_can_be_worked_with(built: Path) -> None:
    """The sdist holds what `make demo` and the tests use, and nothing that git ignores."""
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert {"Makefile", "README.md", "LICENSE", "examples/hello/deployment.yml", "tests/conftest.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith((".venv", ".hypothesis"))]


def test_the_wheel_is_used(installed: Path, tmp_path: Path) -> None:
    """An installed testbed runs from its own files, wherever one stands."""
    code = "import testbed, testbed.resources as r; print(testbed.__file__, r.playbooks(), r.schema('deployment'))"
    found = run([installed / "python", "-c", code], tmp_path, tmp_path).split()
    assert [path for path in found if not path.startswith(str(installed.parent))] == []


@pytest.mark.parametrize("how", ["installed", "editable"])
def test_it_validates_from_an_empty_folder(how: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """From wheel and checkout alike, help is given and a spec is validated in an empty folder."""
    program = request.getfixturevalue(how) / "testbed"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "Usage: testbed" in run([program, "--help"], tmp_path, empty)
    run([program, "validate", HELLO], tmp_path, empty)
    assert list(empty.iterdir()) == []


def test_it_runs_a_deployment(installed: Path, tmp_path: Path) -> None:
    """`examples/hello` passes from the installed wheel: plugins, agent and etcd are all in it or beside it."""
    empty = tmp_path / "empty"
    empty.mkdir()
    run([installed / "testbed", "run", HELLO, "--run-dir", tmp_path / "run"], tmp_path, empty)
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["verdict"] == "passed"
    answer = (tmp_path / "run/nodes/alice/reports/answer.txt").read_text()
    assert answer == "and hello to you, from bob\n"
