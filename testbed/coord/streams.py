"""Streams: what is published is seen by all subscribers in the same order, from the first message on."""

from __future__ import annotations

import os
from typing import Iterator, List, Optional, Sequence

from testbed.coord.keys import RunKeys, end_of
from testbed.coord.store import Change, Put, Span, Store, Unchanged
from testbed.coord.waiting import Awaited, Cancel, Waiting


def publish(store: Store, keys: RunKeys, topic: str, member: str, value: bytes) -> None:
    """Add a message to the end of the stream; once, also where an answer was lost. Raises StoreError."""
    key = f"{keys.topic(topic)}{member}.{os.urandom(8).hex()}"
    store.commit([Put(key, value)], [Unchanged(key)])


def subscribe(
    waiting: Waiting, topic: str, count: Optional[int], timeout: Optional[float], cancelled: Optional[Cancel]
) -> Iterator[bytes]:
    """Give the messages as they come, the first ``count`` of them or without end.

    ``timeout`` (seconds) is for all together. Raises Aborted, WaitTimeout, Cancelled, StoreError.
    """
    prefix = waiting.keys.topic(topic)
    number = f"{count} messages" if count is not None else "messages"
    awaited = Awaited("subscribe", [topic], f"{number} of {topic!r}", "did not come", {"count": count})
    left = count
    if left == 0:
        return
    with waiting.open(awaited, timeout, cancelled) as wait:
        wait.listen([Span(prefix, end_of(prefix))])
        while left is None or left > 0:
            for message in wait.until(_messages)[:left]:
                left = None if left is None else left - 1
                yield message


def _messages(changes: Sequence[Change]) -> Optional[List[bytes]]:
    """The new messages in their order; None where there are none."""
    return [c.value for c in sorted(changes, key=lambda c: c.revision) if c.value is not None] or None
