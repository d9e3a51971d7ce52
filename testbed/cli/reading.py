"""A run as its directory tells of it, for the commands that only read."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.report.lastwords import complete
from testbed.report.state import RunState, fold
from testbed.report.verdict import Judgement, judge
from testbed.run.directory import RunDirectory, find


@dataclass(frozen=True, slots=True)
class Reading:
    """A run's directory, its state after the events so far, and the judgement that these allow."""

    directory: RunDirectory
    state: RunState
    judgement: Judgement

    @property
    def over(self) -> bool:
        """Whether the run has ended; of one whose controller died this is never said."""
        return bool(self.state.verdict)


def read(name: str) -> Reading:
    """The run of that name; raises UsageError where there is none."""
    return read_directory(find(name))


def read_directory(directory: RunDirectory) -> Reading:
    """The run in that directory."""
    state = fold(directory.read_events())
    state.run = state.run or directory.run
    return Reading(directory, state, complete(judge(state), directory.nodes))
