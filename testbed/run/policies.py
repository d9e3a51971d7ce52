"""What the death of a node means for the run, by its policy (pure)."""

from __future__ import annotations

from collections.abc import Iterable

from testbed.spec.model import OPTIONAL, QUORUM, Node


class Policies:
    """Counts the dead of a run's nodes."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._nodes = {node.name: node for node in nodes}
        self._dead: set[str] = set()

    def lose(self, name: str) -> bool:
        """Count a node as dead; whether the others go on without it."""
        node = self._nodes[name]
        self._dead.add(name)
        if node.policy == QUORUM:
            kin = [n for n, other in self._nodes.items() if other.group == node.group]
            return sum(n not in self._dead for n in kin) >= node.quorum
        return node.policy == OPTIONAL
