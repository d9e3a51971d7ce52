"""The exception tree, by whose fault it is; each class knows its exit code."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import ClassVar

from testbed.diagnostics import Diagnostic

SURROUNDINGS = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.EIO}
)
"""What the system may refuse without any fault of testbed's."""


class TestbedError(Exception):
    """Something a person must be told: what failed, and in ``help`` what to do."""

    exit_code: ClassVar[int] = 70
    __test__ = False  # the name begins like a test class; pytest should pass it over

    def __init__(self, message: str, help: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.help = help


class UsageError(TestbedError):
    """The command line asks for something that is not there or makes no sense."""

    exit_code = 2


class SpecError(TestbedError):
    """The deployment spec, or its fit to the inventory, is wrong; carries every diagnostic found."""

    exit_code = 2

    def __init__(self, diagnostics: Sequence[Diagnostic], sources: Mapping[str, str]) -> None:
        count = sum(d.severity == "error" for d in diagnostics)
        super().__init__(f"{count} error{'s' if count != 1 else ''}")
        self.diagnostics = tuple(diagnostics)
        self.sources = dict(sources)


class TargetError(TestbedError):
    """A target of a node failed."""

    exit_code = 1


class LabError(TestbedError):
    """The lab's fault: a machine, the network, etcd, Ansible."""

    exit_code = 3


class DeadlineError(TestbedError):
    """A deadline passed."""

    exit_code = 4


class Interrupted(TestbedError):
    """The operator stopped it."""

    exit_code = 130
