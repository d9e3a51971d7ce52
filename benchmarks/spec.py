"""The specs and inventories that are measured."""

from __future__ import annotations

from pathlib import Path

TARGETS = ("clean", "init", "deploy", "test", "publish", "finalise")
"""Six targets; in every row each of them does one trivial command."""


def command(target: str) -> str:
    """What a target does."""
    return f"echo {target}"


def six_targets(path: Path, nodes: int) -> Path:
    """Write a spec of ``nodes`` nodes with six targets of one trivial command each."""
    return _write(path, "six", "all", {target: command(target) for target in TARGETS}, nodes)


def one_test(path: Path, script: str, nodes: int, finalise: str = "all") -> Path:
    """Write a spec of ``nodes`` nodes that all do ``script`` in their test."""
    return _write(path, "one", finalise, {"test": script}, nodes)


def many_named(path: Path, nodes: int) -> Path:
    """Write a spec in which every one of ``nodes`` nodes has an entry of its own, and four configurations differ."""
    lines = ["deployment: many", "finalise: all", "timeout: 10m", "configurations:"]
    for index in range(4):
        lines += [f"  part-{index}:", *(f"    {target}: {command(target)} {index}" for target in TARGETS)]
    lines.append("nodes:")
    for index in range(nodes):
        lines.append(f"  machine-{index:04d}: {{configurations: [part-{index % 4}, part-{(index + 1) % 4}]}}")
    path.write_text("\n".join(lines) + "\n")
    return path


def many_machines(path: Path, count: int) -> Path:
    """Write an inventory of ``count`` machines in groups of a hundred; nobody ever connects to them."""
    lines = ["all:", "  vars: {ansible_user: root}", "  children:"]
    for index in range(count):
        if index % 100 == 0:
            lines += [f"    rack-{index // 100}:", "      hosts:"]
        lines.append(
            f"        m-{index:04d}: {{ansible_host: 192.0.2.{index % 250 + 1}, ansible_port: {10000 + index}}}"
        )
    path.write_text("\n".join(lines) + "\n")
    return path


def _write(path: Path, name: str, finalise: str, targets: dict[str, str], nodes: int) -> Path:
    lines = [f"deployment: {name}", f"finalise: {finalise}", "timeout: 30m", "stall: off", "configurations:", "  part:"]
    for target, script in targets.items():
        lines += [f"    {target}: |", *("      " + line for line in script.splitlines())]
    lines += ["nodes:", f"  n: {{configurations: [part], count: {nodes}}}"]
    path.write_text("\n".join(lines) + "\n")
    return path
