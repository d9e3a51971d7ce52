"""What the death of nodes means: required, optional, and a quorum of a counted node."""

from __future__ import annotations

import pytest

from testbed.diagnostics import Span
from testbed.run.policies import Policies
from testbed.spec.model import OPTIONAL, QUORUM, REQUIRED, Node


def node(name: str, group: str, policy: str, quorum: int = 0) -> Node:
    """A node; what does not matter here is anything."""
    return Node(name, 0, group, ("c",), None, False, Span("spec.yml", 1, 1, 1, 2), policy=policy, quorum=quorum)


NODES = [
    node("a", "a", REQUIRED),
    node("b", "b", OPTIONAL),
    *(node(f"c-{n}", "c", QUORUM, 3) for n in range(5)),
    *(node(f"d-{n}", "d", QUORUM, 1) for n in range(2)),
]


@pytest.mark.parametrize(
    ("dead", "excused"),
    [
        (["a"], [False]),
        (["b"], [True]),
        (["b", "a"], [True, False]),
        (["c-0", "c-4", "c-2"], [True, True, False]),
        (["c-0", "c-0", "c-0", "c-1"], [True, True, True, True]),
        (["c-0", "d-0", "c-1", "d-1"], [True, True, True, False]),
    ],
)
def test_deaths(dead: list[str], excused: list[bool]) -> None:
    """The others go on for as long as nobody who is required is dead; a node dies once, and its kind alone counts."""
    policies = Policies(NODES)
    assert [policies.lose(name) for name in dead] == excused
