"""A node's part in a run of three, over any store."""

from __future__ import annotations

import json

from testbed.coord.peers import Peer
from testbed.coord.scope import Scope
from testbed.coord.store import Lease, Put, Store
from tests.coord.background import Blocked

PEERS = [Peer(f"n{n}", n, "n", "here", f"192.0.2.{n}", ["even" if n % 2 == 0 else "odd"]) for n in range(3)]


class Member:
    """A node with a scope and a lease of its own; ``board`` tells when it blocks."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.board = Blocked()
        self.lease: Lease = self.store.lease(60)
        self.scope = Scope(self.store, "r1", name, nodes=PEERS, lease=lambda: self.lease.id, board=self.board)

    def gone(self, node: str, why: str, excused: bool) -> None:
        """Write that a node takes part no more."""
        told = json.dumps({"why": why, "excused": excused})
        self.store.commit([Put(self.scope.keys_of.gone + node, told.encode())])
