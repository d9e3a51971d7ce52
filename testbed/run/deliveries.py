"""Small results that nodes send through etcd, so that Ansible need not fetch them: taken in, and their nodes let go."""

from __future__ import annotations

from testbed.run.conductor import ENDED, Conductor
from testbed.run.link import Link
from testbed.run.phases import Phases


class Deliveries:
    """Results are taken in once a node has told its end, in whatever order etcd brings the two.

    A node that has ended and sent nothing, or what cannot be unpacked, is left to be collected by Ansible.
    """

    def __init__(self, link: Link, conductor: Conductor, phases: Phases) -> None:
        self._link, self._conductor, self._phases = link, conductor, phases
        self._seen: set[str] = set()
        self._waiting: dict[str, bytes] = {}

    def arrived(self, node: str, archive: bytes) -> None:
        """The node's results are here; what it sends after these counts for nothing."""
        if node not in self._seen:
            self._seen.add(node)
            self._waiting[node] = archive
        self.take_in(node)

    def take_in(self, node: str) -> None:
        """Unpack the node's results if they are here and it has ended, and let its agent go."""
        if self._conductor.phase(node) != ENDED or node not in self._waiting:
            return
        if self._phases.deliver(node, self._waiting.pop(node)):
            self._conductor.leaving(node)
            self._link.tell_home(node)

    def look(self) -> None:
        """Take in what is in etcd already of nodes that have ended: they send it first, but over another watch.

        Where very many end at once etcd may be seconds late with one of the two, and Ansible would fetch for nothing.
        """
        for node in self._conductor.in_phase(ENDED):
            if node not in self._seen:
                archive = self._link.results_of(node)
                if archive is not None:
                    self.arrived(node, archive)
