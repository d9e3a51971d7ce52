"""Services: registered by name, found by name, and waited for until somebody offers them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Dict, List, Optional, Sequence, Tuple

from testbed.coord.keys import RunKeys, end_of
from testbed.coord.store import Change, Put, Span, Store
from testbed.coord.waiting import Awaited, Cancel, Waiting, newest
from testbed.events import UNREADABLE


@dataclass(frozen=True)
class Service:
    """Where a service is offered: ``host`` an address or name, ``port`` None where it has none, and by which node."""

    host: str
    port: Optional[int]
    node: str


def offer(keys: RunKeys, name: str, service: Service) -> Put:
    """What tells all where the service is."""
    return Put(keys.service(name) + service.node, json.dumps(asdict(service)).encode())


def publish_service(store: Store, keys: RunKeys, name: str, service: Service) -> None:
    """Tell all where the service is; replaces what the same node told before. Raises StoreError."""
    store.commit([offer(keys, name, service)])


def discover(waiting: Waiting, name: str, timeout: Optional[float], cancelled: Optional[Cancel]) -> List[Service]:
    """Give all who offer the service, whoever was first before the others, as soon as somebody does.

    A node that takes part no more offers nothing. Raises Aborted, WaitTimeout, Cancelled, StoreError.
    """
    keys = waiting.keys
    prefix = keys.service(name)
    view: Dict[str, Tuple[bytes, int]] = {}

    def look(changes: Sequence[Change]) -> Optional[List[Service]]:
        newest(changes, view)
        offers = sorted((revision, key, value) for key, (value, revision) in view.items() if key.startswith(prefix))
        found = [_read(key[len(prefix) :], value) for _, key, value in offers]
        return [s for s in found if keys.gone + s.node not in view] or None

    spans = [Span(prefix, end_of(prefix)), Span(keys.gone, end_of(keys.gone))]
    awaited = Awaited("service", [name], f"the service {name!r}", "was not offered")
    return waiting.wait(awaited, spans, look, timeout, cancelled)


def _read(node: str, raw: bytes) -> Service:
    """What a node told, as far as it makes sense; the node is the one whose key it is."""
    try:
        told = dict(json.loads(raw))
    except UNREADABLE:
        told = {}
    port = told.get("port")
    return Service(str(told.get("host", "")), port if isinstance(port, int) else None, node)
