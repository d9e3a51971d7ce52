"""The loop's link to its nodes through etcd: what they are told, and what is looked up of them beside all watches."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from testbed.coord.keys import RunKeys, end_of
from testbed.coord.scope import Flag, Scope, read_flag
from testbed.coord.store import Entry, Put, Store, StoreError


class Link:
    """Writes and reads for the loop, for as long as etcd is there.

    The first error calls ``on_lost``; from then on, as after `cut`, nothing is told and nothing is found.
    No method raises StoreError.
    """

    def __init__(self, store: Store, scope: Scope, keys: RunKeys, on_lost: Callable[[StoreError], None]) -> None:
        self._store, self._scope, self._keys, self._on_lost = store, scope, keys, on_lost
        self._cut = False

    def cut(self) -> None:
        """Take in that etcd is lost, which somebody else has found."""
        self._cut = True

    # --- what is told -------------------------------------------------------------------------------------------

    def raise_flag(self, flag: str, why: str, cause: Mapping[str, Any]) -> None:
        """Tell every node to abort or to finalise."""
        if self._cut:
            return
        try:
            self._scope.raise_flag(flag, why, dict(cause))
        except StoreError as error:
            self._lose(error)

    def tell_served(self, node: str, serial: int, verdict: str, reason: str) -> None:
        """Tell a node how the Ansible step ended that it waits for."""
        answer = {"serial": serial, "verdict": verdict, "reason": reason}
        self._put(self._keys.served(node), json.dumps(answer).encode())

    def tell_home(self, node: str) -> None:
        """Tell a node that its results are here: it removes its workspace and leaves."""
        self._put(self._keys.home(node), b"")

    def tell_gone(self, node: str, why: str, excused: bool) -> None:
        """Tell who waits for the node that it takes part no more; ``excused``: they need not wait for it."""
        self._put(self._keys.gone + node, json.dumps({"why": why, "excused": excused}).encode())

    def _put(self, key: str, value: bytes) -> None:
        if self._cut:
            return
        try:
            self._store.commit([Put(key, value)])
        except StoreError as error:
            self._lose(error)

    def _lose(self, error: StoreError) -> None:
        self._cut = True
        self._on_lost(error)

    # --- what is looked up --------------------------------------------------------------------------------------

    def results_of(self, node: str) -> bytes | None:
        """What the node has sent of its results, still to be checked; None where there is nothing."""
        found = self._range(self._keys.results(node))
        return found[0].value if found else None

    def is_alive(self, node: str) -> bool:
        """Whether the node has a lease. Without etcd nobody is taken for dead: that loss is told by itself."""
        found = self._range(self._keys.alive(node))
        return found is None or bool(found)

    def has_ended(self, node: str) -> bool:
        """Whether the node has written its end, which the watch may still keep back; without etcd, as `is_alive`."""
        prefix = f"{self._keys.events}{node}/"
        written = self._range(prefix, end_of(prefix))
        return written is None or any(b'"event":"node_ended"' in entry.value for entry in written[-4:])

    def flag(self, name: str) -> Flag | None:
        """The flag that stands, if one does and etcd can say so."""
        found = self._range(self._keys.flag(name))
        return read_flag(name, found[0].value) if found else None

    def _range(self, key: str, end: str = "") -> Sequence[Entry] | None:
        """What etcd holds there; None where it is lost."""
        if self._cut:
            return None
        try:
            return self._store.range(key, end).entries
        except StoreError as error:
            self._lose(error)
            return None
