"""Specs that are no text, no YAML, or made to hurt: a diagnostic, never a traceback, and never long."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from testbed.diagnostics import render
from testbed.errors import SpecError
from testbed.spec import load
from testbed.spec.model import Deployment

GOOD = b"deployment: d\nconfigurations:\n  c:\n    test: x\nnodes:\n  n: {configurations: [c]}\n"


def mistakes(raw: bytes, folder: Path) -> list[tuple[str, str]]:
    """Place and message of each diagnostic for a spec of these bytes."""
    spec = folder / "deployment.yml"
    spec.write_bytes(raw)
    with pytest.raises(SpecError) as caught:
        load(spec)
    return [(f"{d.span.line}:{d.span.column}" if d.span else "-", d.message) for d in caught.value.diagnostics]


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (b"deployment: d\ndescription: caf\xe9\n", "2:17"),
        (b"\xff\xfe" + "deployment: d".encode("utf-16-le"), "1:1"),
        ("deployment: d\ndescription: äöü".encode() + b"\x80\n", "2:17"),
    ],
)
def test_not_utf8(raw: bytes, place: str, tmp_path: Path) -> None:
    """A file that is not UTF-8 is refused at the character where that shows."""
    [(found, message)] = mistakes(raw, tmp_path)
    assert found == place
    assert message.startswith("not UTF-8: the byte 0x")


def test_too_large(tmp_path: Path) -> None:
    """Ten megabytes of garbage are refused for their size, unread."""
    garbage = os.urandom(1024) * 10240
    [(place, message)] = mistakes(garbage, tmp_path)
    assert place == "-"
    assert "larger than 4 MiB" in message


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"[" * 4_000_000, "nested deeper than 100 levels"),
        (b"a: " * 1_000_000, "a ':' cannot stand here"),
        (b"- a\n" * 1_000_000, "more than 200,000 values once the aliases are followed"),
        (b"x-a: [" + b"{a: 1}, " * 30_000 + b"]\n" + GOOD.replace(b"[c]", b"[" + b"{a: 1}," * 30_000 + b"c]"), "twice"),
        (b"".join(b"k%d: 1\n" % i for i in range(90_000)), "unknown key"),
        (b"x: " + b"y" * 4_000_000 + b"\n", "unknown key 'x'"),
        (b"timeout: " + b"9" * 4_000_000 + b"\n", "this is no duration"),
    ],
    ids=["deep", "colons", "wide", "repeats", "unknown", "long", "digits"],
)
def test_large_garbage(raw: bytes, message: str, tmp_path: Path) -> None:
    """A file as large as is read costs bounded work, whatever is in it, and its report stays readable."""
    spec = tmp_path / "deployment.yml"
    spec.write_bytes(raw)
    with pytest.raises(SpecError) as caught:
        load(spec)
    assert any(message in d.message for d in caught.value.diagnostics)
    assert len(render(caught.value.diagnostics, caught.value.sources)) < 100_000


@pytest.mark.parametrize("name", ["missing.yml", "folder", "nul\0name.yml", "x" * 300])
def test_unreadable(name: str, tmp_path: Path) -> None:
    """A spec that cannot be read is a diagnostic that says why."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(SpecError) as caught:
        load(tmp_path / name)
    [diagnostic] = caught.value.diagnostics
    assert diagnostic.message.startswith("cannot read")
    assert diagnostic.help


@pytest.mark.parametrize("link", ["/etc", "/etc/hostname", "../outside", "loop"])
@pytest.mark.parametrize("inside", [False, True])
def test_links_that_lead_out(link: str, inside: bool, tmp_path: Path) -> None:
    """A link out of the spec's folder, or in a circle, is no file to stage, not even below a folder."""
    folder = tmp_path / "spec"
    (folder / "data").mkdir(parents=True)
    (tmp_path / "outside").write_text("not for nodes")
    where = folder / "data" if inside else folder
    (where / "loop").symlink_to("../outside" if link != "loop" else "loop")
    (where / "link").symlink_to(link if not (inside and link == "../outside") else "../../outside")
    named = b"data" if inside else b"link"
    found = mistakes(GOOD.replace(b"test: x", b"files: [" + named + b"]"), folder)
    assert found
    assert {place for place, _ in found} == {"4:13"}


def test_link_inside(tmp_path: Path) -> None:
    """A link that stays inside the spec's folder is staged like any file."""
    (tmp_path / "real").write_text("x")
    (tmp_path / "link").symlink_to("real")
    spec = tmp_path / "deployment.yml"
    spec.write_bytes(GOOD.replace(b"test: x", b"files: [link]"))
    assert load(spec).configurations["c"].files == ("link",)


def test_pipe_is_no_file(tmp_path: Path) -> None:
    """A named pipe among the files is refused, and not opened."""
    os.mkfifo(tmp_path / "pipe")
    [(place, message)] = mistakes(GOOD.replace(b"test: x", b"files: [pipe]"), tmp_path)
    assert (place, message) == ("4:13", "'pipe' is neither a file nor a folder")


def test_byte_order_mark(tmp_path: Path) -> None:
    """A byte order mark before the first key is no part of it."""
    spec = tmp_path / "deployment.yml"
    spec.write_bytes(b"\xef\xbb\xbf" + GOOD)
    assert load(spec).name == "d"


def test_thousand_nodes(tmp_path: Path) -> None:
    """A spec of a thousand explicit nodes keeps their order and numbers them so."""
    spec = tmp_path / "deployment.yml"
    head = "deployment: d\nconfigurations:\n  c:\n    test: x\nnodes:\n"
    spec.write_text(head + "".join(f"  n{i}: {{configurations: [c], machine: m{i}}}\n" for i in range(1000)))
    nodes = load(spec).nodes
    assert [n.name for n in nodes] == [f"n{i}" for i in range(1000)]
    assert [n.index for n in nodes] == list(range(1000))


def test_light_to_import() -> None:
    """Importing the package costs none of the libraries that reading a spec needs."""
    code = "import sys, testbed.spec, testbed.diagnostics; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"yaml", "jsonschema", "jinja2", "rich"} & set(done.stdout.split())


FRAGMENTS = st.sampled_from(
    [
        *["deployment: d\n", "configurations:\n", "nodes:\n", "parameters:\n", "  c:\n", "    test: ", "x\n", "  n: "],
        *[
            "{configurations: [c]}\n",
            "count: ",
            '"{{ params.a }}"',
            "&a ",
            "*a",
            "<<: ",
            "- ",
            "? ",
            ": ",
            "[",
            "]",
            "{",
        ],
        *["}", ",", "\n", "\t", "'", '"', "|\n", ">", "!!int ", "!x ", "---\n", "...\n", "%YAML 1.2\n", "#", "@", "~"],
        *["0x1f", "1e999", ".nan", "9" * 400, "true", "\x00", "\x1b[31m", "\u2028", "\u0085", "\r", "é", "漢", "😀"],
        *["timeout: ", "files: ", "ansible: ", "run: ", "pre: ", "{type: ", "integer", "default: ", "$ref: '#'"],
        *[
            "  a: {default: ",
            "minimum: ",
            "pattern: '('",
            "  finalise: ",
            "tasks_from: ",
            "machine: ",
            "=",
            "0o8",
            "12:30",
        ],
    ]
)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.lists(FRAGMENTS, max_size=25).map(lambda p: "".join(p).encode())))
@example(GOOD)
def test_nothing_else(raw: bytes) -> None:
    """Whatever a file holds, the outcome is a deployment or diagnostics that can be shown, and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "deployment.yml"
        spec.write_bytes(raw)
        try:
            assert isinstance(load(spec), Deployment)
        except SpecError as error:
            shown = render(error.diagnostics, error.sources)
            assert all(c.isprintable() or c == "\n" for c in shown)


SECTIONS = {
    "parameters": ("  p: ", "{default: 1}\n"),
    "configurations": ("  c:\n    test: ", "x\n"),
    "nodes": ("  n: ", "{configurations: [c]}\n"),
}


@settings(max_examples=300, deadline=None)
@given(st.lists(FRAGMENTS, max_size=12), st.sampled_from(sorted(SECTIONS)))
def test_nothing_else_in_the_middle(parts: list[str], where: str) -> None:
    """The same holds for what stands in an otherwise right spec."""
    text = "deployment: d\n"
    for name, (begin, end) in SECTIONS.items():
        text += f"{name}:\n{begin}{''.join(parts) if name == where else ''}{end}"
    test_nothing_else.hypothesis.inner_test(text.encode())  # type: ignore[attr-defined]


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=30))
def test_overrides(text: str) -> None:
    """Whatever ``-p`` is given, a parameter without a schema takes it, and one of type string takes it as text."""
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "deployment.yml"
        spec.write_bytes(b"parameters: {a: {}, b: {type: string, pattern: '^'}, c: {enum: [0]}}\n" + GOOD)
        try:
            parameters = load(spec, {"a": text, "b": text, "c": "0"}).parameters
        except SpecError as error:
            assert text.strip().lstrip("+-").lower() in (".nan", ".inf"), error.diagnostics
        else:
            assert isinstance(parameters["b"], str)
            assert parameters["c"] == 0
