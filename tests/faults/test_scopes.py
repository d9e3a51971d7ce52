"""A run's scope as its controller holds it: TLS while the server can, and no access for who was shut out."""

from __future__ import annotations

import contextlib
import queue
from pathlib import Path

import pytest

from testbed.coord.gateway import connect
from testbed.coord.keys import RunKeys
from testbed.coord.store import Denied, Put, Span
from testbed.etcd.choice import EtcdChoice
from testbed.inventory import Machine
from testbed.run.directory import RunDirectory, create
from testbed.run.scopes import etcd_scope

HERE = Machine("here", "127.0.0.1", "local")


@pytest.fixture
def directory() -> RunDirectory:
    """A new run's directory."""
    return create("run-1")


def test_local_runs_have_tls_too(directory: RunDirectory) -> None:
    """A run on this machine alone speaks TLS; its nodes have users and passwords of their own."""
    told: list[str] = []
    with etcd_scope("run-1", {"a": HERE, "b": HERE}, EtcdChoice(), directory, told.append) as scope:
        accesses = [scope.controller, *scope.nodes.values()]
        assert all(e.startswith("https://127.0.0.1:") for a in accesses for e in a.endpoints)
        assert len({a.user for a in accesses}) == len({a.password for a in accesses}) == 3
        assert all(a.certificate and a.key and a.ca for a in accesses)
    assert told == []


def test_more_nodes_than_tls_can_watch(directory: RunDirectory) -> None:
    """Beyond what the server's version can watch over TLS, local nodes get plain loopback, and that is said."""
    told: list[str] = []
    machines = {f"n{n}": HERE for n in range(201)}
    with etcd_scope("run-1", machines, EtcdChoice(), directory, told.append) as scope:
        endpoints = {e for a in (scope.controller, *scope.nodes.values()) for e in a.endpoints}
        assert len(endpoints) == 1
        assert endpoints.pop().startswith("http://127.0.0.1:")
        store = connect(scope.nodes["n200"])
        store.commit([Put(RunKeys("run-1").value("a"), b"1")])
        store.close()
    assert len(told) == 1
    assert "201 nodes" in told[0]


def test_who_is_shut_out_hears_and_says_nothing_more(directory: RunDirectory) -> None:
    """A node that is expelled has its watch ended and its writes refused, at once; the others go on."""
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    keys = RunKeys("run-1")
    with etcd_scope("run-1", {"a": HERE, "b": HERE}, EtcdChoice(), directory, told.put) as scope:
        with (
            contextlib.closing(connect(scope.nodes["a"])) as lost,
            contextlib.closing(connect(scope.nodes["b"])) as kept,
        ):
            lost_watch, kept_watch = iter(lost.watch([Span(*keys.span)])), iter(kept.watch([Span(*keys.span)]))
            scope.expel("a")
            with pytest.raises(Denied):
                next(lost_watch)
            with pytest.raises(Denied):
                lost.commit([Put(keys.value("a"), b"1")])
            kept.commit([Put(keys.value("b"), b"1")])
            assert [c.key for c in next(kept_watch)] == [keys.value("b")]
        assert told.empty()


def test_nothing_stays(directory: RunDirectory) -> None:
    """After the scope the server's data and certificates are gone; the log stays."""
    with etcd_scope("run-1", {"a": HERE}, EtcdChoice(), directory, lambda _: None):
        assert len(list((directory.path / "etcd").iterdir())) > 1
    assert [p.name for p in Path(directory.path / "etcd").iterdir()] == ["etcd.log"]
