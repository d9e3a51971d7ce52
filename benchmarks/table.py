"""The results as text (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_LATENCIES = ("get", "abort", "watch", "poll")


def table(results: Mapping[str, Any]) -> str:
    """All that was measured, for people; the README shows the same."""
    return "\n".join(_lines(results)) + "\n"


def _lines(results: Mapping[str, Any]) -> Iterator[str]:
    machine = results["machine"]
    yield (
        f"{machine['cores']} cores of {machine['processor']}, {machine['memory'] / 1e9:.0f} GB; "
        f"Linux {machine['kernel']}, Python {machine['python']}, ansible-core {machine['ansible-core']}, "
        f"{machine['ssh']}; load before {machine['load_before']:.1f}; {machine['at']}"
    )
    rows = results.get("rows", {})
    if rows:
        yield ""
        yield f"six trivial commands on {results['nodes']} SSH hosts of this same machine, from cold connections"
        floor = rows.get("ssh", {}).get("wall")
        head = ("", "wall s", "x ssh", "CPU s here", "CPU s on hosts", "peak memory MB")
        body = [
            (name, f"{r['wall']:.1f}", f"{r['wall'] / floor:.1f}" if floor else "", f"{r['cpu']:.1f}",
             f"{r['hosts_cpu']:.1f}", f"{r['memory'] / 1e6:.0f}")
            for name, r in sorted(rows.items(), key=lambda item: item[1]["wall"])
        ]  # fmt: skip
        yield from _columns([head, *body])
    latencies = results.get("latencies", {})
    if latencies:
        yield ""
        yield "milliseconds until the last node has it, p50 / p99"
        titles = ("nodes", "blocked get", "abort to steps dead", "raw watch", "polling client")
        lines = [
            (count, *(f"{1000 * found[k]['p50']:.1f} / {1000 * found[k]['p99']:.1f}" for k in _LATENCIES))
            for count, found in latencies.items()
        ]
        yield from _columns([titles, *lines])
    if "peek" in results:
        yield from _peek(results["peek"])
    for title, found in _probes(results):
        yield ""
        yield title
        for name, value in found.items():
            yield f"  {name.replace('_', ' ')}: {_value(name, value)}"


def _peek(found: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "who peeks, beside ssh in the same run: a line of one of 20 chatty nodes (milliseconds), and one log (MB/s)"
    lines = [
        (way, f"{taken['p50']:.1f}", f"{taken['p99']:.1f}", f"{taken['max']:.0f}", *_speeds(found["throughput"], way))
        for way, taken in found["latency"].items()
    ]
    yield from _columns([("", "p50", "p99", "largest", "text", "random bytes"), *lines])


def _speeds(found: Mapping[str, float], way: str) -> Iterator[str]:
    for what in ("text", "random"):
        yield f"{found[f'{way.partition(chr(32))[0]}, {what}']:.0f}"


def _probes(results: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if "blocked" in results:
        yield "all nodes in a blocked get", results["blocked"]
    for count, found in results.get("workspaces", {}).items():
        yield f"{count} local workspaces", found
    if "agent" in results:
        yield "one agent with six steps", results["agent"]
    for word, found in results.get("sizes", {}).items():
        yield f"{word}, 1000 nodes on 2000 machines" if word == "plan" else f"{word}, 1000 nodes", found


def _value(name: str, value: Any) -> str:
    if "memory" in name or "rss" in name:
        return f"{value / 1e6:.0f} MB"
    return f"{value:.4g}"


def _columns(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        )
