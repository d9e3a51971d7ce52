"""The store over etcd's JSON gateway."""

from __future__ import annotations

import threading
import time
from binascii import a2b_base64, b2a_base64
from typing import Any, Iterator, Mapping, Protocol, Sequence

from testbed.coord.bulk import Bulk
from testbed.coord.faults import Passing, Stale
from testbed.coord.store import (
    Change,
    Committed,
    Compacted,
    Denied,
    Entry,
    LeaseExpired,
    Operation,
    Put,
    Snapshot,
    Span,
    StoreError,
    Unchanged,
    check_size,
)
from testbed.coord.wire import PATIENCE, Attempts, Client, Stream

_REFUSALS = 2
"""How often a refused watch is asked for again with a new log-in before the refusal is believed."""

_SETTLED = 5.0
"""Seconds after which a stream counts as having worked, so that its loss begins a new patience."""


class Access(Protocol):
    """How to reach a scope: endpoint URLs, PEM texts; empty where not used."""

    @property
    def endpoints(self) -> Sequence[str]: ...  # noqa: D102  the class says it
    @property
    def user(self) -> str: ...  # noqa: D102
    @property
    def password(self) -> str: ...  # noqa: D102
    @property
    def ca(self) -> str: ...  # noqa: D102
    @property
    def certificate(self) -> str: ...  # noqa: D102
    @property
    def key(self) -> str: ...  # noqa: D102


def connect(access: Access, patience: float = PATIENCE) -> GatewayStore:
    """Make the store that ``access`` leads to; connects on first use. ``patience`` in seconds; raises ValueError."""
    return GatewayStore(
        Client(
            access.endpoints, access.user, access.password, access.ca, access.certificate, access.key, patience=patience
        )
    )


class GatewayStore:
    """A `Store` in an etcd cluster; ``client`` is closed with it."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self._bulk = Bulk(client)

    def range(self, start: str, end: str = "") -> Snapshot:
        """Read the key ``start``, or all keys in ``[start, end)``."""
        body = {"key": _encode(start)}
        if end:
            body["range_end"] = _encode(end)
        answer = self.client.call("/v3/kv/range", body)
        return Snapshot(_entries(answer), _revision(answer))

    def commit(
        self, operations: Sequence[Operation], conditions: Sequence[Unchanged] = (), counted: Span | None = None
    ) -> Committed:
        """Do all operations at one revision if all conditions hold, else none; count the keys in ``counted`` after."""
        check_size(operations)
        if not conditions and not counted and len(operations) == 1:
            revision = self._bulk.put(operations[0]) if isinstance(operations[0], Put) else None
            if revision is not None:
                return Committed(True, revision)
            path, body = _direct(operations[0])
            return Committed(True, _revision(self.client.call(path, body)))
        counting = [_count(counted)] if counted else []
        answer = self.client.call(
            "/v3/kv/txn",
            {
                "compare": [_compare(c) for c in conditions],
                "success": [*(_operation(o) for o in operations), *counting],
                "failure": [{"request_range": {"key": _encode(c.key)}} for c in conditions],
            },
        )
        succeeded = bool(answer.get("succeeded", False))
        parts = answer.get("responses", [])
        if succeeded:
            count = int(parts[-1]["response_range"].get("count", 0)) if counted else 0
            return Committed(True, _revision(answer), count=count)
        found = tuple(e for part in parts for e in _entries(part.get("response_range", {})))
        return Committed(False, _revision(answer), found)

    def watch(self, spans: Sequence[Span]) -> GatewayWatch:
        """Watch several spans over one connection; returns once etcd has accepted them all."""
        return GatewayWatch(self.client, spans)

    def lease(self, seconds: float) -> GatewayLease:
        """Make a lease; etcd counts whole seconds, at least 2."""
        answer = self.client.call("/v3/lease/grant", {"TTL": max(2, -int(-seconds // 1))})
        return GatewayLease(self.client, int(answer["ID"]), float(answer["TTL"]))

    def close(self) -> None:
        """Close all connections, watches included."""
        self.client.close()
        self._bulk.close()


class GatewayLease:
    """A lease of etcd; ``seconds`` is the time to live that etcd granted."""

    def __init__(self, client: Client, identifier: int, seconds: float) -> None:
        self.id = identifier
        self.seconds = seconds
        self._client = client

    def refresh(self) -> None:
        """Start the time to live anew; tries no longer than the lease may still live."""
        answer = self._client.call("/v3/lease/keepalive", {"ID": self.id}, min(self.seconds, self._client.patience))
        if not int(answer.get("result", {}).get("TTL", 0)):
            raise LeaseExpired(f"etcd: the lease {self.id:x} has expired")

    def revoke(self) -> None:
        """End the lease now; no error if it is gone already. Tries no longer than the lease would live by itself."""
        try:
            self._client.call("/v3/lease/revoke", {"ID": self.id}, min(self.seconds, self._client.patience))
        except LeaseExpired:
            return


class GatewayWatch:
    """Several watches over one request; each span resumes after its own last change.

    All create requests go in one body: the gateway is no full-duplex stream, a later one would never be read.
    """

    def __init__(self, client: Client, spans: Sequence[Span]) -> None:
        if not spans:
            raise ValueError("nothing to watch")
        self._client = client
        self._spans = tuple(spans)
        self._next = [s.revision for s in spans]  # the first revision not yet delivered; 0: not known yet
        self._index: dict[int, int] = {}  # etcd's watch id -> index of the span
        self._early: list[tuple[Change, ...]] = []  # what came before the last acknowledgement
        self._lock = threading.Lock()
        self._stream: Stream | None = None
        self._messages: Iterator[dict[str, Any]] = iter(())
        self._opened = 0.0
        self._used = False
        self._closed = False
        self._open(self._patience())

    def __iter__(self) -> Iterator[tuple[Change, ...]]:
        self._used = True
        attempts = self._patience()
        try:
            while not self._closed:
                early, self._early = self._early, []
                yield from early
                try:
                    for message in self._messages:
                        batch = self._digest(message)
                        if batch:
                            yield batch
                            attempts = self._patience()
                    raise ConnectionError("etcd ended the watch")
                except (OSError, Stale) as error:
                    if time.monotonic() - self._opened > _SETTLED:
                        attempts = self._patience()
                    self._lost(error, attempts)
                if not self._closed:
                    self._open(attempts)
        except StoreError:
            if not self._client.closed:
                raise
        finally:
            self._drop()

    def close(self) -> None:
        """End the watch; whoever iterates it comes to the end."""
        with self._lock:
            self._closed = True
            if self._stream is not None:
                self._stream.cut()
        self._client.wake()
        if not self._used:
            self._drop()

    def _patience(self) -> Attempts:
        return self._client.attempts(ended=lambda: self._closed)

    def _open(self, attempts: Attempts) -> None:
        """Connect until all spans are acknowledged, or the watch is closed."""
        refusals = 0
        while not self._closed:
            stream = self._client.stream("/v3/watch", self._requests(), attempts)
            with self._lock:
                self._stream = stream
                if self._closed:
                    stream.cut()
            try:
                self._acknowledge(stream)
                return
            except (OSError, Stale) as error:
                refusals += isinstance(error, Stale)
                if refusals > _REFUSALS:
                    raise Denied(str(error)) from error
                self._lost(error, attempts)
            except BaseException:
                self._drop()
                raise

    def _requests(self) -> list[dict[str, Any]]:
        requests: list[dict[str, Any]] = []
        for span, revision in zip(self._spans, self._next):
            create: dict[str, Any] = {"key": _encode(span.start)}
            if span.end:
                create["range_end"] = _encode(span.end)
            if revision:
                create["start_revision"] = str(revision)
            requests.append({"create_request": create})
        return requests

    def _acknowledge(self, stream: Stream) -> None:
        self._index = {}
        self._messages = iter(stream)
        for message in self._messages:
            batch = self._digest(message)
            if batch:
                self._early.append(batch)
            if len(self._index) == len(self._spans):
                stream.patient(None)
                self._opened = time.monotonic()
                return
        raise ConnectionError("etcd ended the watch")

    def _digest(self, message: Mapping[str, Any]) -> tuple[Change, ...]:
        result = message.get("result", {})
        if result.get("canceled"):
            raise _refusal(result)
        watch = int(result.get("watch_id", 0))
        if result.get("created"):
            index = self._index[watch] = len(self._index)
            # events older than the header's revision may be yet to come where a start was asked for
            self._next[index] = self._next[index] or _revision(result) + 1
            return ()
        if watch not in self._index:
            raise Passing(f"etcd speaks of a watch that nobody asked for ({watch})")
        index = self._index[watch]
        changes = tuple(_change(e) for e in result.get("events", []))
        fresh = tuple(c for c in changes if c.revision >= self._next[index])
        if fresh:
            self._next[index] = fresh[-1].revision + 1
        return fresh

    def _lost(self, error: OSError | Stale, attempts: Attempts) -> None:
        """Drop the stream and prepare for the next; pauses, raises Unavailable when patience is used up."""
        stream = self._stream
        self._drop()
        if stream is None or self._closed:
            return
        if isinstance(error, Stale):
            self._client.renew(stream.token)
        else:
            attempts.failed(stream.endpoint, error)

    def _drop(self) -> None:
        with self._lock:
            stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()


def _refusal(result: Mapping[str, Any]) -> Exception:
    """What it means that etcd cancels a watch: it is compacted, we may not (any more), or it cannot now."""
    compacted = int(result.get("compact_revision", 0))
    if compacted:
        return Compacted(compacted)
    why = str(result.get("cancel_reason") or "no reason given")
    # a token that has run out is told as a missing permission by some releases: only a new log-in can tell them apart
    denied = any(word in why.lower() for word in ("permission", "unauthenticated", "auth token", "user name"))
    return (Stale if denied else Passing)(f"etcd ended the watch: {why}")


def _encode(key: str) -> str:
    return b2a_base64(key.encode(), newline=False).decode()


def _decode(text: str) -> str:
    return a2b_base64(text).decode("utf-8", "replace")


def _revision(answer: Mapping[str, Any]) -> int:
    return int(answer.get("header", {}).get("revision", 0))


def _entries(answer: Mapping[str, Any]) -> tuple[Entry, ...]:
    return tuple(
        Entry(
            _decode(kv["key"]),
            a2b_base64(kv.get("value", "")),
            int(kv["mod_revision"]),
            int(kv["create_revision"]),
            int(kv.get("lease", 0)),
        )
        for kv in answer.get("kvs", [])
    )


def _change(event: Mapping[str, Any]) -> Change:
    kv = event["kv"]
    gone = event.get("type") == "DELETE"
    return Change(_decode(kv["key"]), None if gone else a2b_base64(kv.get("value", "")), int(kv["mod_revision"]))


def _body(operation: Operation) -> dict[str, Any]:
    body: dict[str, Any] = {"key": _encode(operation.key)}
    if isinstance(operation, Put):
        body["value"] = b2a_base64(operation.value, newline=False).decode()
        if operation.lease:
            body["lease"] = str(operation.lease)
    elif operation.end:
        body["range_end"] = _encode(operation.end)
    return body


def _direct(operation: Operation) -> tuple[str, dict[str, Any]]:
    return "/v3/kv/put" if isinstance(operation, Put) else "/v3/kv/deleterange", _body(operation)


def _operation(operation: Operation) -> dict[str, Any]:
    return {"request_put" if isinstance(operation, Put) else "request_delete_range": _body(operation)}


def _count(span: Span) -> dict[str, Any]:
    body = {"key": _encode(span.start), "count_only": True}
    return {"request_range": {**body, "range_end": _encode(span.end)} if span.end else body}


def _compare(condition: Unchanged) -> dict[str, Any]:
    return {
        "key": _encode(condition.key),
        "target": "MOD",
        "result": "EQUAL",
        "mod_revision": str(condition.revision),
    }
