"""What `testbed clean` fetched becomes a part of the run's record, and its reports are written anew."""

from __future__ import annotations

import time
from collections.abc import Mapping

from testbed import events
from testbed.report.lastwords import complete
from testbed.report.state import fold
from testbed.report.verdict import EXIT_CODES, judge
from testbed.run.directory import RunDirectory
from testbed.run.journal import Journal
from testbed.run.outcome import write_outcome
from testbed.run.phases import own_events

NEVER_JUDGED = "its controller ended without a verdict"


def take_in(directory: RunDirectory, fetched: Mapping[str, tuple[int, int]]) -> list[str]:
    """Record results that came late, node -> (bytes, files), with what their nodes told; write the run's reports anew.

    The verdict stays what it was; a run whose controller was killed before it could judge gets its end here, and is
    an error. Gives warnings about users' files that are not in the report. Raises LabError where the reports cannot be
    written, OSError where the record can't.
    """
    known = list(directory.read_events())
    lines = {events.encode(event) for event in known}
    with Journal(directory.events, known.append) as journal:
        for node, (size, files) in fetched.items():
            told = list(own_events(directory.nodes / node / "events.jsonl", node))
            if any(isinstance(event, events.NodeEnded) for event in told):
                for event in told:
                    if events.encode(event) not in lines:
                        journal.take(event)
            journal.say(events.ResultsCollected, node, size=size, files=files)
        if not any(isinstance(event, events.RunEnded) for event in known):
            _end(journal, known)
    state = fold(known)
    return write_outcome(directory, state, complete(judge(state), directory.nodes))


def _end(journal: Journal, known: list[events.Event]) -> None:
    """Record the end of a run that nobody saw through: its nodes may have passed, the run has not."""
    began = next((event.at for event in known if isinstance(event, events.RunStarted)), 0.0)
    last = max((event.at for event in known if isinstance(event, events.NodeEnded)), default=began)
    journal.record(
        events.RunEnded(
            time.time(), "", events.ERROR, EXIT_CODES[events.ERROR], NEVER_JUDGED, round(max(0.0, last - began), 3)
        )
    )
