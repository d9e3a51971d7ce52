"""The command as a whole: what it lists, and how it fails."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import testbed
from testbed.cli.main import COMMANDS, Words, cli
from testbed.errors import DeadlineError, LabError, UsageError

HELP = Path(__file__).parent / "help.txt"
ROOT = Path(testbed.__file__).parent.parent


def test_help_is_as_written_down(call: Callable[..., Result]) -> None:
    """`testbed --help` is the text in help.txt, and `-h` the same."""
    assert call("--help").output == HELP.read_text("utf-8")
    assert call("-h").output == HELP.read_text("utf-8")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_what_help_says(name: str) -> None:
    """Each listed command exists, and its own help begins with the line in the list."""
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    assert (found.help or "").split("\n")[0] == COMMANDS[name]


def test_version(start: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    """`testbed --version` names the version of the package, also as a process."""
    done = start("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"testbed {testbed.__version__}\n", "")


@pytest.mark.parametrize("arguments", [(), ("no-such",), ("status",), ("status", "--no-such", "x"), ("list", "x")])
def test_a_wrong_command_line_is_told_on_stderr(call: Callable[..., Result], arguments: tuple[str, ...]) -> None:
    """Whatever is wrong with a command line exits with 2, says so on stderr, and leaves stdout empty."""
    done = call(*arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Usage: testbed" in done.stderr


@pytest.mark.parametrize("arguments", [("tui",), ("run", "--tui", "SPEC")])
def test_the_screen_wants_a_terminal(
    start: Callable[..., subprocess.CompletedProcess[str]], home: Path, arguments: tuple[str, ...]
) -> None:
    """Where there is no terminal the screen is refused before anything is started, and nothing is drawn."""
    spec = Path(testbed.__file__).parent.parent / "examples" / "hello" / "deployment.yml"
    done = start(*(str(spec) if word == "SPEC" else word for word in arguments))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: the screen needs a terminal, which std")
    assert not (home / "runs").exists()


def failing(error: BaseException) -> Words:
    """The group with one command more, which raises."""
    words = Words("testbed")

    @click.command()
    def command() -> None:
        raise error

    words.get_command = lambda _context, _name: command  # type: ignore[method-assign]
    return words


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (UsageError("no such run", "testbed list"), 2, "error: no such run\n  help: testbed list\n"),
        (LabError("host-1 is \x1b[31mdown"), 3, "error: host-1 is down\n"),
        (DeadlineError("over"), 4, "error: over\n"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 3, "error: No space left on device: /x\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (click.exceptions.Exit(5), 5, ""),
        (SystemExit(1), 1, ""),
        (SystemExit(None), 0, ""),
    ],
)
def test_errors_become_exit_codes(error: BaseException, code: int, said: str) -> None:
    """Each kind of error has its exit code and its words, without a traceback."""
    done = CliRunner().invoke(failing(error), ["x"])
    assert (done.exit_code, done.stderr, done.stdout) == (code, said, "")


def test_a_bug_is_confessed(home: Path) -> None:
    """An unforeseen exception exits with 70, in one sentence; its traceback is in a file for the user alone."""
    done = CliRunner().invoke(failing(KeyError("lost")), ["x"])
    assert done.exit_code == 70
    assert "this is a bug in testbed: KeyError" in done.stderr
    assert "Traceback" not in done.stderr
    (kept,) = (home / "crashes").iterdir()
    assert str(kept) in done.stderr
    assert "Traceback" in kept.read_text("utf-8")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_bug_with_no_place_to_write_is_told_in_full(home: Path) -> None:
    """Where the traceback cannot be kept, it is printed rather than lost."""
    home.parent.mkdir(exist_ok=True)
    home.write_text("a file where a directory should be")
    done = CliRunner().invoke(failing(KeyError("lost")), ["x"])
    assert done.exit_code == 70
    assert "Traceback" in done.stderr


def test_a_reader_that_leaves_is_no_trouble(record: Callable[..., object]) -> None:
    """When nobody reads stdout on, the command ends quietly."""
    record("fail")
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "testbed", "status", "last"],
            stdout=writing, stderr=subprocess.PIPE, text=True, cwd=ROOT, timeout=60, check=False,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_printed(call: Callable[..., Result], shell: str) -> None:
    """Each shell gets code that asks testbed for words."""
    done = call("completion", shell)
    assert done.exit_code == 0
    assert f"_TESTBED_COMPLETE={shell}_complete" in done.stdout


def test_completion_completes(
    start: Callable[..., subprocess.CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shell's question is answered with the commands that fit."""
    for name, value in (("_TESTBED_COMPLETE", "bash_complete"), ("COMP_WORDS", "testbed re"), ("COMP_CWORD", "1")):
        monkeypatch.setenv(name, value)
    done = start()
    assert done.stdout == "plain,report\n"


def test_the_words_are_the_groups() -> None:
    """The list of help and the group agree on the commands."""
    assert cli.list_commands(click.Context(cli)) == list(COMMANDS)
