"""What one agent takes in all, from the first byte on the connection to its end."""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

from benchmarks import spec
from benchmarks.measure import SAMPLE, Detached, measure
from testbed.agent import archive
from testbed.agent.plan import RUN, Peer, Plan, PlannedStep
from testbed.etcd import binary
from testbed.etcd.access import connect, open_scope
from testbed.etcd.server import EmbeddedServer

ROUNDS = 5


def alone(folder: Path) -> dict[str, Any]:
    """CPU seconds and memory of an agent with six steps, over TLS; the median of some."""
    folder.mkdir()
    found = []
    with EmbeddedServer(binary.find(None), folder, tls=True, run="agent") as server:
        root = connect(server.root)
        try:
            user = open_scope(root, "agent")
            access = server.access_for("127.0.0.1", user.user, user.password)
            for number in range(ROUNDS):
                name = f"n-{number}"
                steps = [PlannedStep(t, "part", "main", RUN, spec.command(t)) for t in spec.TARGETS]
                steps.append(PlannedStep("finalise", "still", "main", RUN, f"sleep {3 * SAMPLE}"))  # to be looked at
                peers = [Peer(name, number, name, name, "127.0.0.1", ["part"])]
                plan = Plan("agent", name, number, peers, {}, steps, access, 600.0, finalise=name)
                found.append(_one(plan, folder / name))
        finally:
            root.close()
    return {
        "cpu": statistics.median(cpu for cpu, _ in found),
        "memory": statistics.median(agent.memory for _, agent in found),
        "rss": statistics.median(agent.rss for _, agent in found),
    }


def _one(plan: Plan, workspace: Path) -> tuple[float, Detached]:
    """Start an agent as a connection does, and see it to its end."""
    payload = workspace.with_suffix(".payload")
    payload.write_bytes(archive.payload(plan, str(workspace)))
    script = f"exec {sys.executable} -I -S -c '{archive.BOOTSTRAP}' < {payload}"
    cost = measure(["sh", "-c", script], patient=True)
    return cost.all_cpu, max(cost.detached, key=lambda d: d.cpu)
