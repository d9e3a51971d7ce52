"""How the nodes of a run and its controller coordinate; `Scope` is the door for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testbed.coord.here import Scope as Scope


def __getattr__(name: str) -> Any:
    """`Scope`, imported when asked for: what runs on a node imports little."""
    if name != "Scope":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from testbed.coord.here import Scope

    return Scope
