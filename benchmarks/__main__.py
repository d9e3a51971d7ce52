"""``python -m benchmarks [PART ...]``: measure, print the table, write results/latest.json.

``--check`` measures nothing: it fails where the latest results miss the goals.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import agent, latency, machine, peeking, probes, rows
from benchmarks.goals import goals
from benchmarks.measure import Failure
from benchmarks.table import table
from testbed.lab import practice
from testbed.lab.practice import Lab

RESULTS = Path(__file__).with_name("results") / "latest.json"
LAB = "bench"
PARTS = ("rows", "blocked", "workspaces", "agent", "sizes", "latencies", "peek")


def main() -> int:
    """Measure what the arguments name, all of it where they name nothing."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--nodes", type=int, default=50, help="SSH hosts (default 50)")
    parser.add_argument("--rows", help="rows to measure, with commas between (default all)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the fast rows; the median counts")
    parser.add_argument("--check", action="store_true", help="fail where the latest results miss the goals")
    arguments = parser.parse_args()
    if set(arguments.parts) - set(PARTS):
        parser.error(f"the parts are {', '.join(PARTS)}")
    if not arguments.check:
        _measure(arguments)
    results = json.loads(RESULTS.read_text())
    print(table(results))
    found = list(goals(results))
    print("\n".join(str(goal) for goal in found))
    return int(arguments.check and not (found and all(goal.reached for goal in found)))


def _measure(arguments: argparse.Namespace) -> None:
    """Measure part by part; what is not measured again stays only if it is of as many nodes."""
    wanted = arguments.parts or PARTS
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() and arguments.parts else {}
    if results.get("nodes") != arguments.nodes:
        results = {}
    results.update(machine=machine.facts(), nodes=arguments.nodes)
    with tempfile.TemporaryDirectory(prefix="tb-", dir="/tmp") as name:  # short: sockets lie in it
        folder = Path(name)
        if {"rows", "blocked"} & set(wanted):
            lab = practice.up(arguments.nodes, folder / "bench.yml", LAB)
            try:
                if "rows" in wanted:
                    only = arguments.rows.split(",") if arguments.rows else [row.name for row in rows.ROWS]
                    results.setdefault("rows", {}).update(_rows(lab, folder, only, arguments.rounds))
                if "blocked" in wanted:
                    results["blocked"] = _told("blocked", lambda: probes.blocked(lab, folder))
            finally:
                practice.down(LAB)
        for count in (100, 1000) if "workspaces" in wanted else ():
            found = _told(f"{count} workspaces", partial(probes.workspaces, count, folder / "local"))
            results.setdefault("workspaces", {})[str(count)] = found
        if "agent" in wanted:
            results["agent"] = _told("agent", lambda: agent.alone(folder / "agent"))
        if "sizes" in wanted:
            results["sizes"] = _told("sizes", lambda: probes.sizes(folder))
        for count in latency.COUNTS if "latencies" in wanted else ():
            found = _told(f"latencies at {count}", partial(latency.latencies, count, folder / "latency"))
            results.setdefault("latencies", {})[str(count)] = found
        if "peek" in wanted:
            lab = practice.up(peeking.HOSTS, folder / "peek.yml", LAB)
            try:
                results["peek"] = _told("peek", lambda: peeking.peeking(lab, folder / "peek"))
            finally:
                practice.down(LAB)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


def _rows(lab: Lab, folder: Path, only: list[str], rounds: int) -> dict[str, Any]:
    """The median round of each row, with the memory of one further round: looking at memory takes time.

    Rounds go over the fast rows in turn, so that a busy moment hits all of them.
    """
    taken: dict[str, list[rows.Measured]] = {}
    for number in range(-1, rounds):
        for row in rows.ROWS:
            if row.name in only and (row.fast or number < 1):
                what = row.name if number >= 0 else f"{row.name}'s memory"
                try:
                    found = _told(what, partial(rows.run, row, lab, folder / row.name, look=number < 0))
                except Failure as failure:  # a peer that fails on a busy machine is no reason to lose the others
                    if row.fast:
                        raise
                    print(f"{row.name} failed and has no figures: {failure}", file=sys.stderr)
                else:
                    taken.setdefault(row.name, []).append(found)
    return {name: _median(*found) for name, found in taken.items() if len(found) > 1}


def _median(looked: rows.Measured, *found: rows.Measured) -> dict[str, Any]:
    middle = statistics.median_low(m.cost.wall for m in found)
    chosen = next(m for m in found if m.cost.wall == middle)
    seen = ("memory", "etcd_cpu", "etcd_memory")
    raw = {k: v for k, v in asdict(chosen.cost).items() if k not in ("detached", "code", *seen)}
    raw |= {key: getattr(looked.cost, key) for key in seen}
    return {**raw, "cpu": chosen.cost.all_cpu, "hosts_cpu": chosen.hosts_cpu, "rounds": [m.cost.wall for m in found]}


def _told(what: str, do: Callable[[], Any]) -> Any:
    print(f"{what} ...", file=sys.stderr, end=" ", flush=True)
    found = do()
    print("done", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
