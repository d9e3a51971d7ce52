"""A machine's failure text leads to its cause."""

from __future__ import annotations

from pathlib import Path

import pytest

from testbed.inventory import Machine
from testbed.lab.machines import ANSIBLE, CAUSES, LOGIN, explain

CASES = sorted((Path(__file__).parent.parent / "cases" / "failures").glob("*.txt"))
MACHINE = Machine("rack-1", "10.0.0.1", "ssh", "ann", 2222, {"ansible_ssh_private_key_file": "/keys/lab key"})


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_real_outputs_lead_to_their_cause(case: Path) -> None:
    """Every kept output of ssh, sudo, Ansible or an agent gives the cause that its file names, in lines or in one."""
    head, _, message = case.read_text().partition("\n\n")
    expected = head.removeprefix("cause: ")
    assert expected in CAUSES
    for text in (message, " ".join(message.split())):
        failure = explain(text, MACHINE)
        assert failure.cause == expected
        assert failure.reason
        assert failure.advice
        assert "{" not in failure.advice
        assert "\n" not in failure.reason


def test_cases_cover_every_cause() -> None:
    """Each cause has a real output that leads to it."""
    assert {case.read_text().split()[1] for case in CASES} == set(CAUSES)


def test_options_that_ssh_does_not_take() -> None:
    """What ssh says against its own options is told, and not that the machine had ended the connection."""
    for case in ("ssh-options", "ssh-config"):
        failure = explain((CASES[0].parent / f"{case}.txt").read_text(), MACHINE)
        assert failure.reason.startswith("ssh does not take its options: ")
        assert "line " in failure.reason


def test_says_what_was_tried() -> None:
    """What was tried names user, address, port and key."""
    assert explain("x", MACHINE).tried == "ann@10.0.0.1:2222 with key /keys/lab key"
    assert explain("x", Machine("w", "127.0.0.1", "local")).tried == "on this machine"
    assert explain("x", Machine("c", "box", "docker")).tried == "docker box"


def test_unknown_words_are_ansibles_own() -> None:
    """What no pattern knows is passed on as Ansible said it; silence is called silence."""
    assert explain("Task failed: frobnication missed", MACHINE).reason == "frobnication missed"
    assert explain("", MACHINE).cause == ANSIBLE
    assert explain("", MACHINE).reason == "Ansible gave no reason"


def test_hostile_words_do_no_harm() -> None:
    """Escape sequences, endless text and shell words in a message reach neither terminal nor advice unquoted."""
    failure = explain("\x1b[2J\x9b31m" + "A" * 1_000_000, MACHINE)
    assert failure.reason.isprintable()
    assert len(failure.reason) <= 500
    failure = explain("Permissions 0644 for 'k; rm -rf ~' are too open.", MACHINE)
    assert failure.cause == LOGIN
    assert failure.advice == "chmod 600 'k; rm -rf ~'"
    assert explain("{0} {x} %s No space left on device", MACHINE).reason.endswith("{0} {x} %s No space left on device")
