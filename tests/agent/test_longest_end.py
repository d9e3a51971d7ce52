"""What a plan's own times come to."""

from __future__ import annotations

import pytest

from testbed.agent.plan import PlannedStep, longest_end
from tests.agent.machine import step

FINALISE, OWN = step("finalise", "main", "true"), step("finalise", "main", "true", timeout=600.0)


@pytest.mark.parametrize(
    ("steps", "seconds"),
    [
        ([], 100 + 3),
        ([step("test", "main", "true", timeout=50.0), FINALISE], 100 + 4),
        ([step("test", "main", "true"), step("test", "post", "true"), FINALISE], 200 + 4),
        ([FINALISE, OWN, OWN], 100 + 1200 + 6),
        ([step("finalise", "post", "true")], 100 + 4),
    ],
)
def test_longest_end(steps: list[PlannedStep], seconds: float) -> None:
    """From an abort to its end a node has the time for a post, for finalising, what that says itself, and graces."""
    assert longest_end(steps, 100.0, 1.0) == seconds
