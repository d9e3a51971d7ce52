"""One member's view of a run: everything by which nodes and controller coordinate, as methods."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Mapping, Optional, Sequence

from testbed.coord.feed import Feed
from testbed.coord.flags import Flag, read_flag
from testbed.coord.keys import RunKeys, end_of
from testbed.coord.peers import Peer
from testbed.coord.store import MAX_VALUE, Delete, Put, Span, Store, StoreError, TooLarge, Unchanged
from testbed.coord.values import ALL, MAX_KEY, BadKey, View, Wanted, check_key
from testbed.coord.waiting import (
    Aborted,
    Awaited,
    Board,
    Broken,
    Cancel,
    Cancelled,
    NoBoard,
    Standing,
    Waiting,
    WaitTimeout,
)
from testbed.events import FINALISE

if TYPE_CHECKING:  # what few nodes use is imported when they do: an agent's start counts
    from testbed.coord.locks import Held
    from testbed.coord.services import Service

CONTROLLER = "controller"
"""The member that is no node."""


class Scope:
    """One run's scope for one member, ``by`` (a node's name, or who acts for the controller).

    ``nodes`` are the run's; ``lease`` gives the id of the lease on which the member lives (without it, there are no
    locks); ``board`` is told of every wait. All methods may be called from any thread and raise StoreError. Waits go
    over ``feed`` (an own one if None), take a ``timeout`` in seconds, and raise Aborted, WaitTimeout, Cancelled.
    """

    def __init__(
        self,
        store: Store,
        run: str,
        by: str,
        feed: Optional[Feed] = None,
        *,
        nodes: Sequence[Peer] = (),
        lease: Optional[Callable[[], int]] = None,
        board: Optional[Board] = None,
    ) -> None:
        self.run, self.by, self.nodes = run, by, tuple(nodes)
        self.keys_of = RunKeys(run)
        self.feed = feed or Feed(store)
        self.member = by if any(peer.name == by for peer in nodes) or not nodes else CONTROLLER
        self._own_feed = feed is None
        self._store = store
        self._lease = lease
        self._waiting = Waiting(store, self.feed, self.keys_of, board or NoBoard(), self._explain)

    # --- values -------------------------------------------------------------------------------------------------

    def set(self, key: str, value: bytes) -> None:
        """Set the user's value ``key``; raises BadKey, TooLarge."""
        check_key(key)
        _check_size(value, f"the value of {key!r}")
        self._store.commit([Put(self.keys_of.value(key), value)])

    def unset(self, key: str) -> None:
        """Remove the user's value ``key``, if it is set; raises BadKey."""
        check_key(key)
        self._store.commit([Delete(self.keys_of.value(key))])

    def get(self, key: str) -> Optional[bytes]:
        """Read the user's value ``key``, None where it is not set; raises BadKey."""
        check_key(key)
        entries = self._store.range(self.keys_of.value(key)).entries
        return entries[0].value if entries else None

    def keys(self, prefix: str = "") -> List[str]:
        """List the users' keys that begin with ``prefix``."""
        start = self.keys_of.values + prefix
        return [e.key[len(self.keys_of.values) :] for e in self._store.range(start, end_of(start)).entries]

    def wait(self, key: str, timeout: Optional[float] = None, cancelled: Optional[Cancel] = None) -> bytes:
        """Give the user's value ``key`` as soon as it is set; one that is there also when the run is aborted."""
        return self.wait_for(Wanted((key,)), timeout, cancelled)[key]

    def wait_for(
        self, wanted: Wanted, timeout: Optional[float] = None, cancelled: Optional[Cancel] = None
    ) -> Dict[str, bytes]:
        """Give the wanted values as soon as they are there."""
        view = View(self._store, self.keys_of, wanted, timeout)

        def standing() -> Standing:
            from testbed.coord.explain import listed

            if len(wanted.keys) == 1 or wanted.mode != ALL:
                return Standing()
            left = [k for k in wanted.keys if k not in view.values()]
            return Standing(told=f"not set: {listed([repr(k) for k in left])}")

        return self._waiting.wait(wanted.awaited(), view.spans, view.look, timeout, cancelled, standing)

    # --- flags --------------------------------------------------------------------------------------------------

    def raise_flag(self, name: str, why: str, cause: Optional[Mapping[str, Any]] = None) -> Flag:
        """Raise a flag of the run; the first writer wins: gives the flag that stands, one's own or the other's."""
        flag = Flag(name, self.by, why, time.time(), cause or {})
        told = {k: v for k, v in asdict(flag).items() if k != "name"}
        key = self.keys_of.flag(name)
        committed = self._store.commit([Put(key, json.dumps(told).encode())], [Unchanged(key)])
        return flag if committed.succeeded else read_flag(name, committed.found[0].value)

    def flag(self, name: str) -> Optional[Flag]:
        """Read a flag of the run, None where it is not raised."""
        entries = self._store.range(self.keys_of.flag(name)).entries
        return read_flag(name, entries[0].value) if entries else None

    def wait_flag(
        self, name: str = FINALISE, timeout: Optional[float] = None, cancelled: Optional[Cancel] = None
    ) -> Flag:
        """Give the flag as soon as it is raised; waiting for another than abort ends on abort too."""
        key = self.keys_of.flag(name)
        awaited = Awaited("wait", [name], f"the flag {name}", "was not raised")
        raised = self._waiting.wait(
            awaited, [Span(key)], lambda changes: next((c.value for c in changes if c.value is not None), None),
            timeout, cancelled,
        )  # fmt: skip
        return read_flag(name, raised)

    # --- members ------------------------------------------------------------------------------------------------

    def peer(self) -> Optional[Peer]:
        """The node that this member is; None for the controller."""
        return next((peer for peer in self.nodes if peer.name == self.member), None)

    def nodes_with(self, configuration: str) -> List[str]:
        """The names of the nodes that carry a configuration."""
        return [peer.name for peer in self.nodes if configuration in peer.configurations]

    # --- more ways to meet --------------------------------------------------------------------------------------

    def barrier(
        self,
        name: str,
        nodes: Sequence[str] = (),
        count: int = 0,
        timeout: Optional[float] = None,
        cancelled: Optional[Cancel] = None,
    ) -> int:
        """Meet the ``nodes`` (all of the run, unless said), or ``count`` different members; gives the generation.

        Raises Mismatch and BadKey for what makes no sense, Broken where somebody who is missing takes part no more.
        """
        from testbed.coord.barriers import Barrier, Meeting

        check_key(name, "barrier's name")
        everyone = tuple(peer.name for peer in self.nodes)
        meeting = Meeting(count=count) if count else Meeting(tuple(nodes) or everyone, all_nodes=not nodes)
        return Barrier(self._waiting, name, self.member, meeting).pass_through(timeout, cancelled)

    def next(self, name: str) -> int:
        """Take the next number of a sequence: 0, 1, 2 ..., each once in the run."""
        from testbed.coord.sequences import draw

        check_key(name, "sequence's name")
        return draw(self._store, self.keys_of, name, self.member)

    @contextmanager
    def lock(self, name: str, timeout: Optional[float] = None, cancelled: Optional[Cancel] = None) -> Iterator[Held]:
        """Hold a lock of the run: one holder at a time, in the order of asking; freed also when the holder dies.

        Where it was lost meanwhile, because etcd has not heard of the member for its lease's time, leaving raises
        StoreError.
        """
        from testbed.coord.locks import Lock

        check_key(name, "lock's name")
        if self._lease is None:
            raise StoreError("this scope has no lease to hold a lock on")
        held = Lock(self._waiting, name, self.member, self._lease).acquire(timeout, cancelled)
        try:
            yield held
        except BaseException:
            with suppress(StoreError):  # then the lease frees it; what happened under the lock must be told
                held.release()
            raise
        if not held.release():
            raise StoreError(f"the lock {name!r} was lost before it was released: the lease of {self.member} had ended")

    def publish(self, topic: str, value: bytes = b"") -> None:
        """Add a message to a stream; raises BadKey, TooLarge."""
        from testbed.coord.streams import publish

        check_key(topic, "topic")
        _check_size(value, f"the message of {topic!r}")
        publish(self._store, self.keys_of, topic, self.member, value)

    def subscribe(
        self,
        topic: str,
        count: Optional[int] = None,
        timeout: Optional[float] = None,
        cancelled: Optional[Cancel] = None,
    ) -> Iterator[bytes]:
        """Give the messages of a stream from its beginning on, the first ``count`` or without end; raises BadKey."""
        from testbed.coord.streams import subscribe

        check_key(topic, "topic")
        return subscribe(self._waiting, topic, count, timeout, cancelled)

    def publish_service(self, name: str, port: Optional[int] = None, host: str = "") -> Service:
        """Offer a service; ``host`` is the node's own address unless said. Raises BadKey."""
        from testbed.coord.services import Service, publish_service

        check_key(name, "service's name")
        peer = self.peer()
        host = host or (peer.address if peer else "")
        if not host:
            raise BadKey(f"{self.member} is no node with an address: say at which host the service {name!r} is")
        service = Service(host, port, self.member)
        publish_service(self._store, self.keys_of, name, service)
        return service

    def discover(self, name: str, timeout: Optional[float] = None, cancelled: Optional[Cancel] = None) -> List[Service]:
        """Give all who offer a service, the first before the others, as soon as there is one; raises BadKey."""
        from testbed.coord.services import discover

        check_key(name, "service's name")
        return discover(self._waiting, name, timeout, cancelled)

    def close(self) -> None:
        """End all waits; they raise StoreError."""
        self._waiting.close()
        if self._own_feed:
            self.feed.close()

    def _explain(self, standing: Standing) -> str:
        from testbed.coord.explain import explain

        names = [peer.name for peer in self.nodes]
        return explain(self._store, self.feed, self.keys_of, names, self.member, standing)


def _check_size(value: bytes, what: str) -> None:
    if len(value) > MAX_VALUE:
        raise TooLarge(f"{what} holds {len(value)} bytes; the limit is {MAX_VALUE} bytes (1 MiB)")


__all__ = [
    "CONTROLLER", "MAX_KEY", "Aborted", "BadKey", "Broken", "Cancel", "Cancelled", "Flag", "Scope", "WaitTimeout",
    "Wanted", "read_flag",
]  # fmt: skip
