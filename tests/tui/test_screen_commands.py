"""Command lines that do what the screen does, forms, and the token before the browser."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from testbed.errors import SpecError, UsageError
from testbed.inventory import Machine
from testbed_tui import commands
from testbed_tui.attach import speed
from testbed_tui.form import form_of

SPEC = """
deployment: d
parameters:
  studies: {type: integer, default: 20, minimum: 1, maximum: 500, title: Studies each sends, description: all of them}
  codec: {enum: [jpeg, raw], default: raw}
  strict: {type: boolean, default: true}
  name: {type: string, pattern: "^[a-z]+$"}
configurations: {c: {test: "true"}}
nodes: {n: {configurations: [c], count: "{{ params.studies }}"}}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A spec with parameters of every kind."""
    path = tmp_path / "spec.yml"
    path.write_text(SPEC)
    return path


def test_fields_are_made_from_schemas(spec: Path) -> None:
    """Types, enums, ranges, defaults and titles of the schema are in the form."""
    studies, codec, strict, name = form_of(spec).fields
    assert (studies.title, studies.default) == ("Studies each sends", "20")
    assert studies.hint == "integer, at least 1, at most 500, all of them"
    assert (codec.choices, codec.default) == (("jpeg", "raw"), "raw")
    assert (strict.choices, strict.default) == (("true", "false"), "true")
    assert (name.default, name.hint) == (None, "string, like ^[a-z]+$")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("studies", "20", ""), ("studies", "0", "at least 1"), ("studies", "x", "whole number"),
        ("codec", "gif", "jpeg"), ("strict", "maybe", "true or false"), ("name", "ABC", "a-z"), ("name", "abc", ""),
    ],
)  # fmt: skip
def test_values_are_judged_as_the_command_line_does(spec: Path, name: str, text: str, said: str) -> None:
    """A wrong value is told what is wrong with it, without the command line's words around it."""
    wrong = form_of(spec).wrong(name, text)
    assert bool(wrong) == bool(said)
    assert said in wrong
    assert "-p" not in wrong


def test_a_form_is_whole_only_with_every_value(spec: Path) -> None:
    """What has no default must be given; what only the whole spec can tell is told too."""
    form = form_of(spec)
    assert form.check({}) == {"name": "it needs a value"}
    assert form.check({"name": "abc"}) == {}


def test_a_spec_that_is_none_is_refused(tmp_path: Path) -> None:
    """A missing file and a broken one are told apart."""
    with pytest.raises(UsageError):
        form_of(tmp_path / "none.yml")
    broken = tmp_path / "broken.yml"
    broken.write_text("a: [")
    with pytest.raises(SpecError):
        form_of(broken)


def test_what_is_copied_can_be_pasted() -> None:
    """Words with blanks and quotes are quoted for a shell."""
    assert commands.abort("r-1", "it's late").text == """testbed abort r-1 --reason 'it'"'"'s late'"""
    started = commands.start("a b.yml", {"n": "1 2"}, ["lab.yml"], ["--clean-first"])
    assert started.text == "testbed run 'a b.yml' -i lab.yml -p 'n=1 2' --clean-first"


def test_a_shell_is_opened_as_ansible_would_log_in() -> None:
    """User, port, key and ssh's own arguments of the inventory are in the command."""
    variables = {"ansible_ssh_private_key_file": "/k", "ansible_ssh_common_args": "-o UserKnownHostsFile=/h"}
    machine = Machine("m", "10.0.0.1", user="root", port=2222, variables=variables)
    assert commands.shell(machine, "/w s").argv == [
        "ssh", "-t", "-o", "UserKnownHostsFile=/h", "-i", "/k", "-p", "2222", "-l", "root", "--", "10.0.0.1",
        "cd '/w s' 2>/dev/null; exec ${SHELL:-sh} -l",
    ]  # fmt: skip


def test_a_shell_finds_a_workspace_below_the_home() -> None:
    """``~`` is left to the machine's shell; the rest is quoted."""
    assert commands.shell(Machine("m", "h"), "~/.testbed/r 1").argv[-1].startswith("cd ~/'.testbed/r 1' ")


@pytest.mark.parametrize(
    "machine",
    [
        Machine("m", "-oProxyCommand=evil"),
        Machine("m", "10.0.0.1", connection="docker"),
        Machine("m", "10.0.0.1", variables={"ansible_ssh_common_args": "{{ secret }}"}),
    ],
    ids=["option", "docker", "template"],
)
def test_a_shell_that_cannot_be_had_is_refused(machine: Machine) -> None:
    """An address that is an option, another connection, and a template only Ansible can read."""
    with pytest.raises(UsageError):
        commands.shell(machine, "")


def test_speeds() -> None:
    """10x, 0.5x and 3 are speeds; nothing, nonsense and what stands still are none."""
    assert [speed(t) for t in ("10x", "0.5x", "3")] == [10.0, 0.5, 3.0]
    for text in ("", "fast", "0x", "-1x", "nan", "inf"):
        with pytest.raises(UsageError):
            speed(text)


def test_the_browser_needs_the_token() -> None:
    """Without the token nothing is served, not even the socket; the address with it gives a cookie that opens all."""
    web = pytest.importorskip("aiohttp.web")
    from aiohttp.test_utils import TestClient, TestServer

    from testbed_tui.web import guard

    async def page(_: object) -> object:
        return web.Response(text="page")

    async def main() -> None:
        app = web.Application(middlewares=[guard("right", "c")])
        app.router.add_get("/", page)
        app.router.add_get("/ws", page)
        async with TestClient(TestServer(app)) as client:
            for path in ("/", "/ws", "/?token=wrong", "/ws?token=right"):
                assert (await client.get(path)).status == 403, path
            arrived = await client.get("/?token=right")
            assert (arrived.status, arrived.url.query_string) == (200, "")
            assert (await client.get("/ws")).status == 200
            assert (await client.get("/ws", headers={"Origin": "http://evil.example"})).status == 403

    asyncio.run(main())
