"""What a run does next: told what happens, it answers with actions; it touches nothing and knows no clock (pure)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from testbed.events import ABORT, FINALISE
from testbed.spec.model import ALL

STARTING, RUNNING, WANTING, SERVING, PUBLISHED, ENDED, COLLECTING, LEAVING, HOME = (
    "starting", "running", "wanting", "serving", "published", "ended", "collecting", "leaving", "home",
)  # fmt: skip
"""The phases of a node as the controller sees it; PUBLISHED: nothing left to do but to finalise; LEAVING: its results
are home, its agent removes the workspace."""


@dataclass(frozen=True, slots=True)
class Serve:
    """Do these Ansible steps: node -> (serial of the wish, name of the step's task file)."""

    wishes: Mapping[str, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Collect:
    """Bring these nodes' results home."""

    nodes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Raise:
    """Raise a flag of the run."""

    flag: str
    why: str
    cause: Mapping[str, Any] = field(default_factory=dict)


Action = Serve | Collect | Raise


@dataclass(slots=True)
class _Node:
    phase: str = STARTING
    wish: tuple[int, str] | None = None
    over: set[str] = field(default_factory=set)


class Conductor:
    """The run's state machine over its nodes.

    ``finalise`` is the deployment's; with `ALL` the conductor raises the flag when no node has anything else to do.
    ``serve_limit`` bounds the serve bursts at once; 0 for none at all.
    """

    def __init__(self, nodes: Iterable[str], finalise: str, serve_limit: int = 4) -> None:
        self._nodes = {name: _Node() for name in nodes}
        self._counts = Counter(state.phase for state in self._nodes.values())
        self._finalise = finalise
        self._serve_limit = serve_limit
        self._serving = 0
        self._collecting = False
        self._raised: set[str] = set()
        self.aborted = False

    def started(self, node: str) -> None:
        """The node's agent is up."""
        if self._nodes[node].phase == STARTING:
            self._move(node, RUNNING)

    def never_started(self, node: str) -> None:
        """The node's agent could not be started; there is nothing to collect."""
        self._move(node, HOME)

    def wanted(self, node: str, serial: int, step: str) -> None:
        """The node stands before an Ansible step. What is told late, of a step that is over, counts for nothing."""
        state = self._nodes[node]
        if step not in state.over and state.phase in (STARTING, RUNNING, WANTING, PUBLISHED, SERVING):
            state.wish = (serial, step)
            self._move(node, WANTING)

    def published(self, node: str) -> None:
        """The node has done all but finalise."""
        if self._nodes[node].phase in (STARTING, RUNNING):
            self._move(node, PUBLISHED)

    def moved_on(self, node: str, step: str) -> None:
        """The step is over (served, aborted or timed out); the node may stand before its next one already."""
        state = self._nodes[node]
        state.over.add(step)
        if state.phase in (WANTING, SERVING) and state.wish is not None and state.wish[1] == step:
            state.wish = None
            self._move(node, RUNNING)

    def ended(self, node: str) -> None:
        """The node's agent has ended, or is lost: what it has can be collected."""
        if self._nodes[node].phase not in (COLLECTING, LEAVING, HOME):
            self._move(node, ENDED)

    def leaving(self, node: str) -> None:
        """The node's results are home already; its agent has been told to go."""
        if self._nodes[node].phase == ENDED:
            self._move(node, LEAVING)

    def left(self, node: str) -> None:
        """The agent has gone and left nothing behind."""
        if self._nodes[node].phase == LEAVING:
            self._move(node, HOME)

    def stranded(self, node: str) -> None:
        """The agent was to go and has not, or not cleanly: somebody has to look."""
        if self._nodes[node].phase == LEAVING:
            self._move(node, ENDED)

    def collected(self, nodes: Iterable[str]) -> None:
        """A collect burst over these nodes is over, whatever it brought."""
        self._collecting = False
        for node in nodes:
            self._move(node, HOME)

    def served(self) -> None:
        """A serve burst is over."""
        self._serving -= 1

    def flagged(self, flag: str) -> None:
        """A flag of the run stands."""
        self._raised.add(flag)
        self.aborted = self.aborted or flag == ABORT

    def _move(self, node: str, phase: str) -> None:
        state = self._nodes[node]
        self._counts[state.phase] -= 1
        self._counts[phase] += 1
        state.phase = phase

    def phase(self, node: str) -> str:
        """The node's phase."""
        return self._nodes[node].phase

    def in_phase(self, *phases: str) -> list[str]:
        """The nodes in one of these phases, in index order."""
        return [name for name, state in self._nodes.items() if state.phase in phases]

    @property
    def busy(self) -> int:
        """How many nodes are at what is not theirs alone: they start, or Ansible works for them or is to."""
        return sum(self._counts[phase] for phase in (STARTING, WANTING, SERVING))

    @property
    def living(self) -> int:
        """How many nodes' agents go through their plans."""
        return self._counts[RUNNING] + self._counts[PUBLISHED]

    @property
    def raised(self) -> frozenset[str]:
        """The flags of the run that stand, or are being raised."""
        return frozenset(self._raised)

    @property
    def finished(self) -> bool:
        """Whether every node is home."""
        return self._counts[HOME] == len(self._nodes)

    def flags_due(self) -> list[Raise]:
        """The flags to raise now; each is named once."""
        if self._finalise != ALL or FINALISE in self._raised or self.aborted:
            return []
        if any(self._counts[phase] for phase in (STARTING, RUNNING, WANTING, SERVING)) or not self._counts[PUBLISHED]:
            return []
        self._raised.add(FINALISE)
        return [Raise(FINALISE, "every node's publish is done")]

    @property
    def has_work(self) -> bool:
        """Whether `work_due` has something to name."""
        may_serve = not self.aborted and self._serving < self._serve_limit
        return bool((may_serve and self._counts[WANTING]) or (not self._collecting and self._counts[ENDED]))

    def work_due(self) -> list[Serve | Collect]:
        """The Ansible work to begin now; each piece is named once."""
        work: list[Serve | Collect] = []
        wanting = self.in_phase(WANTING)
        if wanting and not self.aborted and self._serving < self._serve_limit:
            wishes = {}
            for node in wanting:
                state = self._nodes[node]
                assert state.wish is not None  # noqa: S101  a node is WANTING only with a wish
                wishes[node] = state.wish
                self._move(node, SERVING)
            self._serving += 1
            work.append(Serve(wishes))
        ended = self.in_phase(ENDED)
        if ended and not self._collecting:
            self._collecting = True
            for node in ended:
                self._move(node, COLLECTING)
            work.append(Collect(tuple(ended)))
        return work
