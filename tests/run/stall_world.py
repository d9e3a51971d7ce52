"""A run in miniature, played step by step: the model against which the detection of stalls is held.

It knows nothing of members, facts or waits; it only plays. Each node has a script of operations; `play` lets one actor
do its next thing, if it can do any.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

Operation = tuple[Any, ...]

PERSON, CONTROLLER, LEASES = "a person", "the controller", "the leases"


@dataclass
class Node:
    """A node at some place in its script; ``arrived`` are its (barrier, generation)s that it still waits at."""

    script: list[Operation]
    at: int = 0
    over: str = ""  # why it is gone: ended, dead, excused
    began: bool = False  # it has begun to wait at its operation
    read: int = 0  # messages that it has read of the stream it waits at
    arrivals: Counter[str] = field(default_factory=Counter)

    @property
    def through(self) -> bool:
        """Whether nothing but the end is left."""
        return self.at >= len(self.script)

    @property
    def operation(self) -> Operation:
        """What it does next."""
        return ("finalise",) if self.through else self.script[self.at]


class World:
    """All of a run: its nodes, and what etcd holds."""

    def __init__(self, scripts: dict[str, list[Operation]], ending: str) -> None:
        self.nodes = {name: Node(script) for name, script in scripts.items()}
        self.ending = ending
        self.values: dict[str, str] = {}
        self.arrived: dict[tuple[str, int], set[str]] = {}
        self.opened: set[tuple[str, int]] = set()
        self.queues: dict[str, list[tuple[str, int]]] = {}
        self.services: set[str] = set()
        self.topics: Counter[str] = Counter()
        self.finalising = False
        self.aborted = False

    @property
    def living(self) -> list[str]:
        """Who is not gone."""
        return [name for name, node in self.nodes.items() if not node.over]

    @property
    def actors(self) -> list[str]:
        """Who might do something."""
        return [*self.nodes, CONTROLLER, PERSON, LEASES]

    def kill(self, name: str, excused: bool) -> None:
        """A node dies; its arrivals stay, what it has on its lease goes a little later."""
        self.nodes[name].over = "excused" if excused else "dead"

    def play(self, actor: str) -> bool:
        """Let an actor do one thing; whether it could do any."""
        if self.aborted:
            return False
        if actor == LEASES:
            return self._run_out()
        if actor == PERSON:
            return self._may_end(self.ending == "explicit" and any(self._awaits_end(n) for n in self.living))
        if actor == CONTROLLER:
            return self._may_end(self.ending == "all" and bool(self.living) and all(
                self.nodes[n].through and self.nodes[n].began for n in self.living))  # fmt: skip
        node = self.nodes[actor]
        if node.over:
            return False
        if node.through:
            return self._finish(actor, node)
        return self._do(actor, node)

    def _awaits_end(self, name: str) -> bool:
        return self.nodes[name].began and self.nodes[name].operation in (("finalise",), ("wait finalise",))

    def _may_end(self, due: bool) -> bool:
        if not due or self.finalising:
            return False
        self.finalising = True
        return True

    def _run_out(self) -> bool:
        """Let a dead node's place in a queue go for which somebody waits."""
        for lock, queue in self.queues.items():
            waited = any(self.nodes[n].began and self.nodes[n].operation == ("lock", lock) for n in self.living)
            if waited and self.nodes[queue[0][0]].over:
                queue.pop(0)
                return True
        return False

    def _finish(self, name: str, node: Node) -> bool:
        if not node.began:
            node.began = True
            return True
        if self.ending == name and not self.finalising:
            self.finalising = True
            return True
        if self.finalising:
            node.over = "ended"
            return True
        return False

    def _do(self, name: str, node: Node) -> bool:
        """One operation: what takes no waiting at once, anything else in two: to begin to wait, and to be released."""
        kind, *rest = node.operation
        if not node.began and self._begin(name, node, kind, rest):
            return True
        if not self._released(name, node, kind, rest):
            return False
        node.at, node.began = node.at + 1, False
        return True

    def _begin(self, name: str, node: Node, kind: str, rest: list[Any]) -> bool:
        """Do what needs no waiting, or begin to wait; False where a wait is over before it has begun."""
        match kind, rest:
            case "set", [key, value]:
                self.values[key] = value
            case "unset", [key]:
                self.values.pop(key, None)
            case "offer", [service]:
                self.services.add(service)
            case "publish", [topic]:
                self.topics[topic] += 1
            case "unlock", [lock]:
                queue = self.queues.get(lock, [])
                if queue and queue[0][0] == name:
                    queue.pop(0)
            case _:
                if kind == "barrier":
                    generation = node.arrivals[rest[0]]
                    node.arrivals[rest[0]] += 1
                    self.arrived.setdefault((rest[0], generation), set()).add(name)
                if kind == "lock":
                    self.queues.setdefault(rest[0], []).append((name, node.at))
                node.began, node.read = True, 0
                return True
        node.at += 1
        return True

    def _released(self, name: str, node: Node, kind: str, rest: list[Any]) -> bool:
        match kind, rest:
            case "get", ["all", keys, _]:
                return all(key in self.values for key in keys)
            case "get", ["any", keys, _]:
                return any(key in self.values for key in keys)
            case "get", ["value", [key], value]:
                return self.values.get(key) == value
            case "either", gets:
                return any(self._released(name, node, *(g[0], list(g[1:]))) for g in gets)
            case "barrier", [barrier, who]:
                return self._passes(barrier, node.arrivals[barrier] - 1, who)
            case "lock", [lock]:
                return self.queues[lock][0] == (name, node.at)
            case "discover", [service]:
                return service in self.services
            case "subscribe", [topic, count]:
                node.read = min(count, self.topics[topic])
                return node.read >= count
            case "wait finalise", []:
                return self.finalising
        raise AssertionError(kind)

    def _passes(self, barrier: str, generation: int, who: Any) -> bool:
        """Whether the barrier opens; who waits for somebody that is gone for good fails, and aborts the run."""
        use = (barrier, generation)
        if use in self.opened:
            return True
        here = self.arrived[use]
        if isinstance(who, int):
            full = len(here) >= who
        else:
            absent = [n for n in (who or self.nodes) if n not in here and self.nodes[n].over != "excused"]
            full = not absent
            if any(self.nodes[n].over for n in absent):
                self.aborted = True
                return True
        if full:
            self.opened.add(use)
        return full
