"""Every key that testbed writes, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple, Union

ROOT = "/testbed/"


def end_of(prefix: str) -> str:
    """The first key after all keys that begin with ``prefix`` (etcd's range end of a prefix).

    UTF-8 sorts as its code points do, so the last character is counted up, not the last byte: that could be none.
    """
    head, last = prefix[:-1], ord(prefix[-1])
    if last == 0x10FFFF:
        return end_of(head)
    return head + chr(0xE000 if last == 0xD7FF else last + 1)  # no surrogates


def quote(name: str) -> str:
    """The name as one part of a key: a slash in it is none of the key's."""
    return name.replace("%", "%25").replace("/", "%2F")


def unquote(part: str) -> str:
    """The name that `quote` made ``part`` of."""
    return part.replace("%2F", "/").replace("%25", "%")


@dataclass(frozen=True)
class RunKeys:
    """The keys of one run; a run's user may touch nothing outside of `prefix`."""

    run: str

    @property
    def prefix(self) -> str:
        """Where all keys of the run begin."""
        return f"{ROOT}runs/{self.run}/"

    @property
    def span(self) -> Tuple[str, str]:
        """The run's whole range."""
        return self.prefix, end_of(self.prefix)

    @property
    def controller(self) -> str:
        """On the controller's lease while it lives."""
        return self.prefix + "controller"

    @property
    def flags(self) -> str:
        """Prefix of the two flags."""
        return self.prefix + "flags/"

    def flag(self, name: str) -> str:
        """``abort`` or ``finalise``: JSON ``{by, why, at, cause}``, written once, the first writer wins."""
        return self.flags + name

    @property
    def values(self) -> str:
        """Prefix of the users' values."""
        return self.prefix + "kv/"

    def value(self, key: str) -> str:
        """A user's value."""
        return self.values + key

    @property
    def nodes(self) -> str:
        """Prefix of what nodes say of themselves."""
        return self.prefix + "nodes/"

    def alive(self, node: str) -> str:
        """On the agent's lease."""
        return f"{self.nodes}{node}/alive"

    def wants(self, node: str) -> str:
        """The Ansible step this node is ready for: JSON ``{serial, configuration, target, step}``."""
        return f"{self.nodes}{node}/wants"

    def told(self, node: str) -> str:
        """Prefix of what the controller tells this node alone."""
        return f"{self.nodes}{node}/told/"

    def served(self, node: str) -> str:
        """The controller's answer to a wish: JSON ``{serial, verdict, reason}``."""
        return self.told(node) + "served"

    def results(self, node: str) -> str:
        """The node's results as a tar.gz, where they are small; larger ones are fetched over Ansible."""
        return f"{self.nodes}{node}/results"

    def asked(self, node: str) -> str:
        """Somebody wants to know what the node does right now; the value comes back in the answer."""
        return self.told(node) + "asked"

    def doing(self, node: str) -> str:
        """The node's answer: JSON, see docs/coordination.md."""
        return f"{self.nodes}{node}/doing"

    def home(self, node: str) -> str:
        """The controller's word that the results are home: the agent removes its workspace and leaves."""
        return self.told(node) + "home"

    def asks(self, node: str) -> str:
        """Prefix of the requests to see what the node's steps write, among what it is told; see docs/peek.md."""
        return self.told(node) + "peek/"

    def ask(self, node: str, request: str) -> str:
        """A request for output, on its client's lease: JSON, see `testbed.coord.chunks.Ask`."""
        return f"{self.asks(node)}{request}/ask"

    def confirmed(self, node: str, request: str) -> str:
        """How many chunks of a request its client has done with, in decimal; on the client's lease."""
        return f"{self.asks(node)}{request}/confirmed"

    def chunks(self, request: str, node: str = "") -> str:
        """Prefix of what a request is answered by all nodes, or by one."""
        return f"{self.prefix}peeked/{request}/" + (f"{node}/" if node else "")

    def chunk(self, request: str, node: str, number: int) -> str:
        """A chunk of output, on the client's lease; numbers begin with 0."""
        return f"{self.chunks(request, node)}{number:012d}"

    def streamed(self, node: str) -> str:
        """Written by the node whenever it has streamed so much output that etcd should forget the old of it."""
        return f"{self.prefix}streamed/{node}"

    @property
    def all_streamed(self) -> str:
        """Prefix of `streamed` of all nodes."""
        return self.prefix + "streamed/"

    def left(self, node: str) -> str:
        """The agent's last word: nothing of the node is left on its machine."""
        return f"{self.nodes}{node}/left"

    def waiting(self, node: str, wait: Union[int, str]) -> str:
        """What a blocked call waits for, since when, until when; the prefix of all of them where ``wait`` is empty."""
        return f"{self.nodes}{node}/waiting/{wait}"

    def barrier(self, name: str) -> str:
        """Prefix of all of a barrier."""
        return f"{self.prefix}barriers/{quote(name)}/"

    def arrivals(self, name: str, member: str) -> str:
        """How often a member has arrived at a barrier: JSON ``{next, free, by}``; no node's name begins with ``-``."""
        return f"{self.barrier(name)}-/{member}"

    def generation(self, name: str, generation: int) -> str:
        """Prefix of one use of a barrier; below it ``<member>`` for each arrival, ``-/open`` and ``-/withdrawn``."""
        return f"{self.barrier(name)}{generation:08d}/"

    def sequence(self, name: str) -> str:
        """Prefix of a sequence's draws: ``<member>.<nonce>`` each; the first created has the number 0."""
        return f"{self.prefix}sequences/{quote(name)}/"

    def lock(self, name: str) -> str:
        """Prefix of a lock's queue: ``<member>.<nonce>`` each, on a lease; the first created holds it."""
        return f"{self.prefix}locks/{quote(name)}/"

    def probe(self, place: str) -> str:
        """Set for a moment on the lease of a place in a lock's queue, to see whether that lease is still there."""
        return f"{self.prefix}probes/{place[len(self.prefix) + len('locks/') :]}"

    def topic(self, name: str) -> str:
        """Prefix of a stream's messages: ``<member>.<nonce>`` each, in the order of their revisions."""
        return f"{self.prefix}topics/{quote(name)}/"

    def service(self, name: str) -> str:
        """Prefix of who offers a service: ``<member>`` each, JSON ``{host, port, node}``."""
        return f"{self.prefix}services/{quote(name)}/"

    @property
    def gone(self) -> str:
        """Prefix of the members that take part no more: JSON ``{why, excused}`` each."""
        return self.prefix + "gone/"

    @property
    def events(self) -> str:
        """Prefix of all events."""
        return self.prefix + "events/"

    def event(self, writer: str, sequence: int) -> str:
        """One event; ``writer`` is a node, or ``-`` for the controller (no host name)."""
        return f"{self.events}{writer}/{sequence:08d}"
