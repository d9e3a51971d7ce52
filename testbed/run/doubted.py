"""Nodes whose lease has ended, maybe only because etcd was away, and that are given time to come back."""

from __future__ import annotations

from testbed.coord.wire import ANSWER_TIMEOUT


class Doubted:
    """The nodes in doubt; each has ``liveness`` seconds more, and what an agent needs to see that etcd is back."""

    def __init__(self, liveness: float) -> None:
        self._grace = liveness + ANSWER_TIMEOUT
        self._until: dict[str, float] = {}

    def add(self, node: str, now: float) -> None:
        """The node's lease has ended; ``now`` in monotonic seconds."""
        self._until.setdefault(node, now + self._grace)

    @property
    def alarm(self) -> float | None:
        """When the first of them must be back."""
        return min(self._until.values(), default=None)

    def due(self, now: float) -> list[str]:
        """Those who must be back by now; they are in doubt no more."""
        found = [node for node, until in self._until.items() if until <= now]
        for node in found:
            del self._until[node]
        return found
