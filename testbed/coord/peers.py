"""The nodes of a run, as every node sees them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List


@dataclass(frozen=True)
class Peer:
    """A node of the run as every node sees it; ``address`` is where its peers reach it."""

    name: str
    index: int
    group: str
    machine: str
    address: str
    configurations: List[str]
