"""How fast a word of one node reaches all others: a value that is waited for, and an abort.

Beside it, on a server of the same kind: watches by hand through etcd's gateway, and clients that ask every second.
"""

from __future__ import annotations

import json
import os
import random
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import spec
from benchmarks.measure import Failure, measure
from benchmarks.probes import environment, scope_of, testbed
from testbed.coord.gateway import GatewayStore, connect
from testbed.coord.store import Put, Span
from testbed.etcd import binary
from testbed.etcd.server import EmbeddedServer
from testbed.run.directory import RunDirectory

COUNTS = (2, 10, 50, 200)
"""Numbers of nodes that are measured."""

ROUNDS = 20
POLL_ROUNDS = 5
POLL = 1.0
"""Seconds between two questions of a client that polls."""

WAITER = Path(__file__).with_name("waiter.py")


def latencies(nodes: int, folder: Path) -> dict[str, Any]:
    """All of it for so many nodes; in seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    with EmbeddedServer(binary.find(None), _fresh(folder / "etcd"), run="bench") as server, ExitStack() as stack:
        stores = [connect(server.root) for _ in range(nodes)]
        for store in stores:
            stack.callback(store.close)
        watching = _rounds(stores, ROUNDS, _by_watch)
        polling = _rounds(stores, POLL_ROUNDS, _by_polling)
    return {
        "nodes": nodes,
        "get": _blocked_gets(nodes, folder),
        "abort": _abort(nodes, folder),
        "watch": watching,
        "poll": polling,
    }


def summary(samples: Sequence[float]) -> dict[str, float]:
    """p50 and p99 of samples in seconds; with few samples p99 is the largest."""
    ordered = sorted(samples)
    return {"p50": ordered[len(ordered) // 2], "p99": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]}


def _blocked_gets(nodes: int, folder: Path) -> dict[str, float]:
    """From `set` returning on one node to the blocked `get` returning on the last other one."""
    script = f"{shlex.quote(sys.executable)} {shlex.quote(str(WAITER))} {ROUNDS}"
    path = spec.one_test(folder / "gets.yml", script, nodes)
    directory = RunDirectory(folder / f"gets-{nodes}")
    measure([*testbed("run", str(path)), "--run-dir", str(directory.path)], environment(folder), folder)
    found = [
        json.loads((directory.nodes / f"n-{index}" / "reports" / "moments.json").read_text()) for index in range(nodes)
    ]
    return summary([max(other[i] for other in found[1:]) - found[0][i] for i in range(ROUNDS)])


def _abort(nodes: int, folder: Path) -> dict[str, float]:
    """From the abort flag being written to every node's step being dead: p50 and p99 over nodes, and the last."""
    path = spec.one_test(folder / "abort.yml", "exec sleep 600", nodes)
    directory = RunDirectory(folder / f"abort-{nodes}")
    process = subprocess.Popen(
        [*testbed("run", str(path)), "--run-dir", str(directory.path)],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **environment(folder)}, cwd=folder,
    )  # fmt: skip
    assert process.stderr is not None
    running = 0
    for line in process.stderr:
        running += line.rstrip().endswith("part.test.main started")
        if running == nodes:
            break
    with scope_of(directory) as scope:
        scope.raise_flag("abort", "to measure it")
        raised = time.time()
    process.stderr.read()
    process.wait()
    events = [json.loads(line) for line in directory.events.read_text().splitlines()]
    ends = [e["at"] - raised for e in events if e["event"] == "step_ended" and e["target"] == "test"]
    if len(ends) != nodes:
        raise Failure(f"{len(ends)} of {nodes} steps ended")
    return {**summary(ends), "last": max(ends)}


Waiting = Callable[[GatewayStore, str, threading.Event], None]
"""Waits until a key is there; sets the event once it does."""


def _rounds(stores: Sequence[GatewayStore], rounds: int, wait: Waiting) -> dict[str, float]:
    """The same by hand: a thread for each client but the first, which puts the key."""
    samples = []
    for number in range(rounds):
        key = f"/bench/{wait.__name__}/{number}"
        moments: list[float] = []
        ready = [threading.Event() for _ in stores[1:]]

        def one(store: GatewayStore, event: threading.Event, key: str = key, moments: list[float] = moments) -> None:
            wait(store, key, event)
            moments.append(time.monotonic())

        threads = [threading.Thread(target=one, args=pair) for pair in zip(stores[1:], ready, strict=True)]
        for thread in threads:
            thread.start()
        for event in ready:
            event.wait()
        stores[0].commit([Put(key, b"yes")])
        put = time.monotonic()
        for thread in threads:
            thread.join()
        samples.append(max(moments) - put)
    return summary(samples)


def _by_watch(store: GatewayStore, key: str, ready: threading.Event) -> None:
    watch = store.watch([Span(key)])
    ready.set()
    next(iter(watch))
    watch.close()


def _by_polling(store: GatewayStore, key: str, ready: threading.Event) -> None:
    time.sleep(random.random() * POLL)  # noqa: S311  clients do not ask in step
    ready.set()
    while not store.range(key).entries:
        time.sleep(POLL)


def _fresh(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
