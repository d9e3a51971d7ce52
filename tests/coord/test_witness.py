"""An independent client that speaks gRPC sees what we write, and we see what it writes: it is plain etcd data."""

from __future__ import annotations

import os

import pytest

from testbed.coord.gateway import GatewayStore
from testbed.coord.keys import end_of
from testbed.coord.store import Put, Span
from tests.coord.etcd_process import DEBIAN, DISTRO, client_of

ALL_BYTES = bytes(range(256))
KEY = "/t/witness/ключ"


@pytest.fixture(params=[DISTRO, DEBIAN])
def both(request, servers):
    """Our store and the etcd3 package's client of the same server."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    etcd3 = pytest.importorskip("etcd3")
    server = servers[f"{request.param}-plain"]
    store = GatewayStore(client_of(server))
    witness = etcd3.client(host="127.0.0.1", port=server.port)
    yield store, witness
    witness.close()
    store.close()


def test_witness_reads_what_we_write(both):
    """Keys, values, revisions and leases arrive as etcd's own."""
    store, witness = both
    lease = store.lease(60)
    committed = store.commit([Put(KEY, ALL_BYTES, lease.id), Put(KEY + "2", b"")])
    value, metadata = witness.get(KEY)
    assert value == ALL_BYTES
    assert metadata.key == KEY.encode()
    assert metadata.mod_revision == committed.revision
    assert metadata.lease_id == lease.id
    assert set(witness.get_lease_info(lease.id).keys) == {KEY.encode()}
    lease.revoke()
    assert witness.get(KEY)[0] is None
    assert witness.get(KEY + "2")[0] == b""


def test_we_see_what_the_witness_writes(both):
    """Its puts, deletes and leases come on our watch and in our reads."""
    store, witness = both
    watch = store.watch([Span("/t/witness/", end_of("/t/witness/"))])
    changes = iter(watch)
    lease = witness.lease(60)
    witness.put(KEY, ALL_BYTES, lease)
    (put,) = next(changes)
    (entry,) = store.range(KEY).entries
    assert (put.key, put.value, put.revision) == (KEY, ALL_BYTES, entry.revision)
    assert entry.lease == lease.id
    witness.delete(KEY)
    (deleted,) = next(changes)
    assert (deleted.key, deleted.value) == (KEY, None)
    watch.close()
