"""Names of keys and barriers that are known only in part: literal stretches, and gaps that anything may fill (pure)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from testbed.spec.shell import Hole, Text

Pattern = tuple[str | None, ...]
"""A name; None stands for a stretch of any length that is not known."""


def pattern_of(text: Text, variables: Mapping[str, str]) -> Pattern:
    """The name that a word of a script comes to, as far as its variables are known."""
    parts: list[str | None] = []
    for piece in text:
        known = variables.get(piece.variable) if isinstance(piece, Hole) else piece
        if known is not None and parts and isinstance(parts[-1], str):
            parts[-1] += known
        elif known is None and parts and parts[-1] is None:
            continue
        else:
            parts.append(known)
    return tuple(parts)


def literal(pattern: Pattern) -> str | None:
    """The name, where all of it is known."""
    return "".join(p for p in pattern if p is not None) if None not in pattern else None


def shown(pattern: Pattern) -> str:
    """The name for a person; a gap is a star."""
    return "".join("*" if p is None else p for p in pattern)


@lru_cache(maxsize=65536)
def overlap(one: Pattern, other: Pattern) -> bool:
    """Whether some name fits both."""
    if None not in one:
        one, other = other, one
    if None not in other:
        return (
            re.fullmatch("".join(".*" if p is None else re.escape(p) for p in one), literal(other) or "", re.S)
            is not None
        )
    # Both have gaps: only what stands before the first and after the last gap can keep them apart.
    heads = [p[0] or "" for p in (one, other)]
    tails = [p[-1] or "" for p in (one, other)]
    return (heads[0].startswith(heads[1]) or heads[1].startswith(heads[0])) and (
        tails[0].endswith(tails[1]) or tails[1].endswith(tails[0])
    )
