"""Lengths of time as people write them."""

from __future__ import annotations

import re

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|[dhms])")
LONGEST = 365 * 86400.0
"""The longest duration, in seconds."""


def seconds(value: float | str) -> float:
    """Seconds of a number of seconds or a text such as ``1h30m``; raises ValueError where it is none above 0."""
    if isinstance(value, str):
        parts = _PART.findall(value)
        if not parts or "".join(n + u for n, u in parts) != value:
            raise ValueError(f"no duration: {value!r}")
        total = sum(float(n) * _UNITS[u] for n, u in parts)
    else:
        total = float(value)
    if not 0 < total <= LONGEST:
        raise ValueError(f"out of range: {value!r}")
    return total
