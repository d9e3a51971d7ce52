"""What coordination needs of a store: five methods over ordered keys with revisions, leases and watches.

The vocabulary and the guarantees are etcd's (https://etcd.io/docs/v3.5/learning/api/): every commit gets the next
revision, a watch sees every change from its revision on, in order, exactly once. Two stores keep this contract: the
memory store and the etcd gateway store; one suite runs over both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Iterator, Optional, Protocol, Sequence, Tuple, Union

MAX_VALUE = 1024 * 1024
"""The largest value a user may set, in bytes."""

MAX_COMMIT = MAX_VALUE + 256 * 1024
"""The most that the values of one commit may hold together, in bytes; etcd itself takes 1.5 MiB with all around."""


class StoreError(Exception):
    """The store could not do what was asked."""


class Unavailable(StoreError):
    """No endpoint answered within the store's patience."""


class Denied(StoreError):
    """The user may not touch that key, or may not log in."""


class TooLarge(StoreError):
    """The request is larger than the server takes."""


class Full(StoreError):
    """The server's database has used up its quota: it takes no more writes."""


class LeaseExpired(StoreError):
    """The lease is gone; keys on it are deleted."""


class Compacted(StoreError):
    """The revision asked for is no longer kept; read again and watch from there."""

    def __init__(self, revision: int) -> None:
        super().__init__(f"revisions before {revision} are compacted")
        self.revision = revision


@dataclass(frozen=True)
class Entry:
    """A key as stored; ``revision`` is that of its last change, ``created`` that of its creation."""

    key: str
    value: bytes
    revision: int
    created: int
    lease: int = 0


@dataclass(frozen=True)
class Snapshot:
    """What a range held, in key order, and the revision of the store when it was read."""

    entries: Tuple[Entry, ...]
    revision: int


@dataclass(frozen=True)
class Put:
    """Set a key, on a lease where ``lease`` is not 0."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True)
class Delete:
    """Delete a key, or all keys in ``[key, end)`` where ``end`` is not empty."""

    key: str
    end: str = ""


Operation = Union[Put, Delete]


def check_size(operations: Sequence[Operation]) -> None:
    """Raise TooLarge where the values of one commit hold more than `MAX_COMMIT` bytes."""
    size = sum(len(o.value) for o in operations if isinstance(o, Put))
    if size > MAX_COMMIT:
        raise TooLarge(f"{size} bytes are too large for one write; the limit is {MAX_VALUE} bytes for a value")


@dataclass(frozen=True)
class Unchanged:
    """Holds when the key's last change has this revision; revision 0: the key does not exist."""

    key: str
    revision: int = 0


@dataclass(frozen=True)
class Committed:
    """Whether the conditions held; if not, nothing was written and ``found`` are the conditions' keys as they are.

    ``count`` is how many keys there were in what was to be counted, when the operations were done.
    """

    succeeded: bool
    revision: int
    found: Tuple[Entry, ...] = ()
    count: int = 0


@dataclass(frozen=True)
class Span:
    """A key, or the keys in ``[start, end)``, watched from ``revision`` on (that one included; 0: from now)."""

    start: str
    end: str = ""
    revision: int = 0

    def holds(self, key: str) -> bool:
        """Whether ``key`` lies in the span, in etcd's order of UTF-8 bytes."""
        if not self.end:
            return key == self.start
        return self.start.encode() <= key.encode() < self.end.encode()


@dataclass(frozen=True)
class Change:
    """A key was set (``value``) or deleted (None) at ``revision``."""

    key: str
    value: Optional[bytes]
    revision: int


class Watch(Protocol):
    """A live watch: iterate for batches of changes in revision order; ends when closed.

    Iterating raises `Compacted`, `Denied` or `Unavailable`; a lost connection is resumed within the store's
    patience and never loses or doubles a change. ``close`` may be called from any thread.
    """

    def __iter__(self) -> Iterator[Tuple[Change, ...]]: ...

    def close(self) -> None:
        """End the watch; whoever iterates it comes to the end."""


class Lease(Protocol):
    """A lease; keys put on it are deleted when it is revoked or not refreshed for its time to live."""

    id: int
    seconds: float

    def refresh(self) -> None:
        """Start the time to live anew; raises `LeaseExpired`, `Unavailable`."""

    def revoke(self) -> None:
        """End the lease now; no error if it is gone already."""


class Store(Protocol):
    """Ordered keys with revisions. Methods may be called from any thread; all raise `StoreError`."""

    def range(self, start: str, end: str = "") -> Snapshot:
        """The key ``start``, or all keys in ``[start, end)``."""

    def commit(
        self,
        operations: Sequence[Operation],
        conditions: Sequence[Unchanged] = (),
        counted: Optional[Span] = None,
    ) -> Committed:
        """Do all operations at one revision if all conditions hold, else none; count the keys in ``counted`` after.

        After a lost answer the commit may have been done; it is tried again, so that unconditional puts and deletes
        happen at least once and a conditional one may find its own work (compare the value found with one's own).
        """

    def watch(self, spans: Sequence[Span]) -> Watch:
        """Watch several spans over one connection; returns once the server has accepted the watch.

        Each span's changes come in the order of their revisions; those of different spans in any order.
        """

    def lease(self, seconds: float) -> Lease:
        """A new lease with that time to live (servers round up to whole seconds, at least 2)."""

    def close(self) -> None:
        """Close all connections, watches included."""
