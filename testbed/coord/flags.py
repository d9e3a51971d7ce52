"""The flags that end a run, as they stand in the store."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Mapping

from testbed.events import UNREADABLE, shallow


@dataclass(frozen=True)
class Flag:
    """A flag that stands: raised ``by`` a node or ``controller``, ``why`` a sentence, ``at`` Unix seconds."""

    name: str
    by: str
    why: str
    at: float
    cause: Mapping[str, Any] = field(default_factory=dict)


def read_flag(name: str, raw: bytes) -> Flag:
    """Read the flag that ``raw`` tells of; whatever a node wrote there, a flag stands."""
    try:
        told = dict(json.loads(raw))
        cause = told.get("cause")
        at = float(told.get("at", 0))
        if not isinstance(cause, dict) or not shallow(cause):
            cause = {}
        return Flag(name, str(told["by"]), str(told["why"]), at, cause)
    except UNREADABLE:
        return Flag(name, "unknown", f"its reason cannot be read: {raw[:80]!r}", 0.0)
