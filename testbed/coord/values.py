"""The users' values, and the ways to wait for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Dict, Optional, Sequence, Tuple

from testbed.coord.keys import RunKeys
from testbed.coord.store import Change, Span, Store, Unchanged
from testbed.coord.waiting import Awaited, Bound, newest

ALL, ANY, VALUE = "all", "any", "value"
"""What of several keys is waited for: each of them, one of them, or that the one has a certain value."""

MAX_KEY = 1024
"""The longest key a user may set, in bytes of UTF-8; and the longest name of anything else."""

_AT_ONCE = 100  # conditions of one transaction; etcd takes 128 (--max-txn-ops)
_SHOWN = 200  # characters of a wanted value that are told


class BadKey(ValueError):
    """A key that no value can have."""


def check_key(key: str, what: str = "key") -> None:
    """Raise BadKey unless a value can have this key, or something else this name."""
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise BadKey(f"the {what} {key!r} is not UTF-8") from None
    if not key:
        raise BadKey(f"a {what} must not be empty")
    if "\0" in key:
        raise BadKey(f"the {what} {key!r} holds a NUL")
    if size > MAX_KEY:
        raise BadKey(f"the {what} {key[:40]!r}... holds {size} bytes; the limit is {MAX_KEY}")


@dataclass(frozen=True)
class Wanted:
    """Which values are wanted: ``mode`` `ALL` or `ANY` of ``keys``, or `VALUE`, ``value`` under the only key."""

    keys: Tuple[str, ...]
    mode: str = ALL
    value: bytes = b""

    def __post_init__(self) -> None:
        for key in self.keys:
            check_key(key)

    def among(self, values: Dict[str, bytes]) -> Optional[Dict[str, bytes]]:
        """The values that are wanted, in the order of the keys; None where they are not (all) there."""
        found = {key: values[key] for key in self.keys if key in values}
        if self.mode == ANY:
            return dict(list(found.items())[:1]) or None
        if self.mode == VALUE:
            return found if found.get(self.keys[0]) == self.value else None
        return found if len(found) == len(set(self.keys)) else None

    def awaited(self) -> Awaited:
        """How the wait for them is told."""
        named = f"the value {self.keys[0]!r}"
        details: Dict[str, object] = {"mode": self.mode}
        if self.mode == VALUE:
            details["value"] = self.value.decode("utf-8", "replace")[:_SHOWN]
            named += f" {details['value']!r}"
        elif len(self.keys) > 1:
            named = f"{self.mode} of the values {', '.join(map(repr, self.keys))}"
        return Awaited("get", list(self.keys), named, details=details)


class View:
    """The wanted values as a wait sees them come and go."""

    def __init__(self, store: Store, keys: RunKeys, wanted: Wanted, timeout: Optional[float] = None) -> None:
        awaited = wanted.awaited()
        self._bound = Bound(awaited.phrase, awaited.missed, timeout)
        self._store, self._prefix, self._wanted = store, keys.values, wanted
        self._view: Dict[str, Tuple[bytes, int]] = {}
        self.spans = [Span(keys.value(key)) for key in dict.fromkeys(wanted.keys)]

    def look(self, changes: Sequence[Change]) -> Optional[Dict[str, bytes]]:
        """What is wanted, once it is there; a value that was there and is unset again counts too, if it was enough.

        Changes of several keys may come in another order than they were made in (etcd keeps the order of each watch
        only), so that all of several keys count as there when the store says so.
        """
        for change in sorted(changes, key=lambda c: c.revision):
            newest([change], self._view)
            found = self._wanted.among(self.values())
            if found is not None and (self._wanted.mode != ALL or len(self._view) == 1):
                return found
        return None if self._wanted.among(self.values()) is None else self._bound.ask(self._confirm)

    def _confirm(self) -> Optional[Dict[str, bytes]]:
        """All that is wanted as it stands in the store, None where something is missing there."""
        seen = [Unchanged(key, revision) for key, (_, revision) in self._view.items()]
        there = self.values()
        for start in range(0, len(seen), _AT_ONCE):
            asked = seen[start : start + _AT_ONCE]
            committed = self._store.commit((), asked)
            if committed.succeeded:
                continue
            if len(committed.found) < len(asked):
                return None
            there.update((e.key[len(self._prefix) :], e.value) for e in committed.found)
        return self._wanted.among(there)

    def values(self) -> Dict[str, bytes]:
        """The values that are there now."""
        return {key[len(self._prefix) :]: value for key, (value, _) in self._view.items()}
