"""What the figures must reach, and whether they do (pure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MB = 1e6


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal: what is measured, the figure, its bound, and whether the bound is an upper one."""

    what: str
    figure: float
    bound: float
    at_most: bool = True
    unit: str = ""

    @property
    def reached(self) -> bool:
        """Whether the figure keeps the bound."""
        return self.figure <= self.bound if self.at_most else self.figure >= self.bound

    def __str__(self) -> str:
        mark, word = ("ok    " if self.reached else "MISSED"), ("at most" if self.at_most else "at least")
        return f"{mark} {self.what}: {self.figure:.3g}{self.unit}, {word} {self.bound:g}{self.unit}"


def goals(results: Mapping[str, Any]) -> Iterator[Goal]:
    """The goals for which there are figures."""
    rows = results.get("rows", {})
    if "testbed" in rows:
        own = rows["testbed"]["wall"]
        if "ssh" in rows:
            yield Goal("testbed's wall time over plain ssh's", own / rows["ssh"]["wall"], 2.0, unit="x")
        for peer, times in (("ansible-free", 8.0), ("ansible-per-node", 8.0), ("mitogen", 2.0), ("pyinfra", 2.0)):
            if peer in rows:
                yield Goal(f"{peer}'s wall time over testbed's", rows[peer]["wall"] / own, times, False, "x")
            else:
                yield Goal(f"figures for {peer}", 0, 1, False)
    if "blocked" in results:
        found = results["blocked"]
        yield Goal("Ansible processes while all nodes wait", found["ansible_processes"], 0)
        yield Goal("controller CPU while all nodes wait", 100 * found["controller_cpu_share"], 1.0, unit=" % of a core")
        yield Goal("controller memory while all nodes wait", found["controller_memory"] / MB, 150, unit=" MB")
    if "workspaces" in results:
        few, many = results["workspaces"]["100"], results["workspaces"]["1000"]
        growth = many["controller_cpu_per_node"] / few["controller_cpu_per_node"]
        yield Goal("controller CPU per node at 1000 workspaces over that at 100", growth, 1.2, unit="x")
        yield Goal("controller memory with 1000 workspaces", many["controller_memory"] / MB, 400, unit=" MB")
    if "agent" in results:
        yield Goal("memory of an agent", results["agent"]["memory"] / MB, 15, unit=" MB")
        yield Goal("CPU of an agent in all", results["agent"]["cpu"], 0.15, unit=" s")
    if "peek" in results:
        lines, speed = results["peek"]["latency"]["peek"], results["peek"]["throughput"]
        yield Goal("half of the lines of 20 chatty nodes are seen", lines["p50"], 50, unit=" ms")
        yield Goal("99 % of them", lines["p99"], 250, unit=" ms")
        yield Goal("lines that are missing", lines["expected"] - lines["lines"], 0)
        yield Goal("random bytes that one client sees", speed["peek, random"], 20, False, " MB/s")
    if "sizes" in results:
        yield Goal("validating 1000 nodes", results["sizes"]["validate"]["wall"], 1.0, unit=" s")
        yield Goal("planning 1000 nodes on 2000 machines", results["sizes"]["plan"]["wall"], 3.0, unit=" s")
