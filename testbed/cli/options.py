"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from testbed.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


def parameters(values: tuple[str, ...]) -> dict[str, str]:
    """``name=value`` words as a mapping; raises UsageError for anything else."""
    found = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise UsageError(f"`-p {value}` is no parameter", "write it as -p NAME=VALUE")
        found[name] = text
    return found


def deployment_options(command: F) -> F:
    """SPEC, ``-i``, ``-p`` and ``--vault-password-file``: what names a deployment and its machines."""
    for option in (
        click.option("--vault-password-file", metavar="FILE", help="Opens the inventory's vaulted variables."),
        click.option("-p", "--parameter", "parameter", multiple=True, metavar="NAME=VALUE", help="Set a parameter."),
        click.option(
            "-i", "--inventory", "inventory", multiple=True, metavar="INVENTORY",
            help="Ansible inventory of the machines; without one every node is a workspace on this machine.",
        ),
        click.argument("spec", type=click.Path(path_type=Path)),
    ):  # fmt: skip
        command = option(command)
    return command


def etcd_options(command: F) -> F:
    """``--etcd``, ``--etcd-binary`` and ``--etcd-advertise``: where a run coordinates."""
    for option in (
        click.option("--etcd-advertise", metavar="ADDRESS", help="Where the nodes reach this machine's etcd."),
        click.option("--etcd-binary", metavar="PATH", help="The etcd program for the run's own server."),
        click.option(
            "--etcd", metavar="URLS", help="Use the lab's etcd cluster (comma-separated https://HOST:PORT) instead."
        ),
    ):
        command = option(command)
    return command
