"""What an agent is told: the node's plan as frozen values, and its JSON form that travels on stdin."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Optional, Sequence

from testbed.coord.peers import Peer as Peer
from testbed.events import FINALISE

RUN, ANSIBLE, SERVICE = "run", "ansible", "service"
"""The kinds of steps: a script that the agent runs, Ansible content that the controller runs, a service to start."""

PORT, COMMAND, KEY = "port", "command", "key"
"""What can say that a service is ready: a TCP port (a number), a script, a user's key."""


@dataclass(frozen=True)
class PlannedStep:
    """One step of one target of one configuration, in running order."""

    target: str
    configuration: str
    step: str  # pre, main, post; the name of a service
    kind: str  # RUN, ANSIBLE or SERVICE
    script: str = ""
    timeout: Optional[float] = None  # seconds; None: only the run's deadline bounds it
    continue_on_error: bool = False
    ready: Optional[Dict[str, Any]] = None  # of a service: one of PORT, COMMAND, KEY and what is said of it


@dataclass(frozen=True)
class Access:
    """How to reach the run's scope: PEM texts, never paths; empty where not used."""

    endpoints: List[str]
    user: str
    password: str = field(repr=False, default="")
    ca: str = field(repr=False, default="")
    certificate: str = field(repr=False, default="")
    key: str = field(repr=False, default="")


@dataclass(frozen=True)
class Plan:
    """All that a node's agent needs; times in seconds."""

    run: str
    node: str
    index: int
    peers: List[Peer]
    parameters: Dict[str, Any]
    steps: List[PlannedStep]
    access: Access
    timeout: float  # what is left of the run's, counted from the agent's start
    finalise: str  # a node's name, "all" or "explicit"
    finalise_timeout: float = 120.0  # for all finalise steps of the node, where a target says nothing else
    grace: float = 10.0  # between TERM and KILL
    liveness: float = 15.0  # time to live of the agent's lease
    outage: float = 120.0  # how long etcd may be away
    packing: float = 30.0  # how long it may take to end, beyond all these limits, before it is killed
    delivery: int = 0  # bytes up to which results go home through etcd; larger ones wait to be fetched


def longest_end(steps: Sequence[PlannedStep], finalise_timeout: float, grace: float) -> float:
    """Seconds that a node with these steps may take, by its own rules, from an abort to its end.

    A `post` of the step that failed comes first; then all finalise steps, those with a time of their own beside the
    time that the others share. Whatever is stopped meanwhile may take the grace.
    """
    last = [step for step in steps if step.target == FINALISE]
    post = any(step.step == "post" and step.target != FINALISE for step in steps)
    own = sum(step.timeout for step in last if step.timeout is not None)
    return (1 + post) * finalise_timeout + own + (3 + len(last)) * grace


def to_json(plan: Plan) -> str:
    """The plan as one JSON text; holds secrets."""
    return json.dumps(asdict(plan), separators=(",", ":"))


def from_json(text: str) -> Plan:
    """The plan that ``text`` holds; raises ValueError, TypeError or KeyError if it is none."""
    raw = json.loads(text)
    raw["peers"] = [Peer(**p) for p in raw["peers"]]
    raw["steps"] = [PlannedStep(**s) for s in raw["steps"]]
    raw["access"] = Access(**raw["access"])
    return Plan(**raw)
