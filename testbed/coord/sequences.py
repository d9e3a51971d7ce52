"""Sequences: whoever draws gets the next number, however many draw at once."""

from __future__ import annotations

import os

from testbed.coord.keys import RunKeys, end_of
from testbed.coord.store import Put, Span, Store, Unchanged


def draw(store: Store, keys: RunKeys, name: str, member: str) -> int:
    """Take the sequence's next number: 0, 1, 2 ...; it is how many have drawn before. Raises StoreError.

    Each draw is a key of its own, and one transaction puts and counts: nobody is in anybody's way.
    """
    prefix = keys.sequence(name)
    own = f"{prefix}{member}.{os.urandom(8).hex()}"
    committed = store.commit([Put(own, b"")], [Unchanged(own)], Span(prefix, end_of(prefix)))
    if committed.succeeded:
        return committed.count - 1
    (drawn,) = committed.found  # by this very call, whose first answer was lost
    return sum(entry.created < drawn.created for entry in store.range(prefix, end_of(prefix)).entries)
