"""The run's scope in etcd as a context: a private server or the lab's cluster; all of it removed after."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Self

from testbed.agent.plan import Access
from testbed.coord.store import StoreError
from testbed.coord.wire import Client
from testbed.errors import LabError
from testbed.etcd import advisories, binary
from testbed.etcd.access import (
    ExternalCluster,
    MayNotMakeUsers,
    admit,
    borrow_scope,
    close_scope,
    connect,
    expel,
    forget,
    open_scope,
    return_scope,
    server_version,
)
from testbed.etcd.addresses import ANY, LOOPBACK, is_own, reachable_address
from testbed.etcd.choice import EtcdChoice
from testbed.etcd.server import EmbeddedServer
from testbed.inventory import Machine
from testbed.run.directory import RunDirectory
from testbed.run.freeze import write_private

Lost = Callable[[str], None]
"""Called with a reason, from another thread, when the run's own server is gone for good."""

Notice = Callable[[str], None]
"""Told, from any thread, in a sentence what the operator should know."""


@dataclass(frozen=True, slots=True)
class OpenScope:
    """An open scope: the controller's access to it, the same from ``anywhere``, and each node's.

    ``on_lost`` registers who is told of its loss. ``expel`` ends the access of a node; ``forget`` has the run's own
    etcd forget what was before a revision. Neither waits for it.
    """

    controller: Access
    anywhere: Access
    nodes: Mapping[str, Access]
    on_lost: Callable[[Lost], None]
    expel: Callable[[str], None]
    forget: Callable[[int], None]


@contextmanager
def etcd_scope(
    run: str, machines: Mapping[str, Machine], choice: EtcdChoice, directory: RunDirectory, notice: Notice
) -> Iterator[OpenScope]:
    """The run's scope while it lasts. Raises `LabError` where etcd can't be had or does not suit the run."""
    with ExitStack() as stack:
        if choice.cluster is not None:
            scope = _on_cluster(stack, run, tuple(machines), choice.cluster, choice.shared_credentials, notice)
        else:
            scope = _on_own_server(stack, run, _addresses(machines, choice.advertise), choice, directory, notice)
        write_access(directory.access, scope.anywhere)
        yield scope


def _on_cluster(
    stack: ExitStack, run: str, nodes: Sequence[str], cluster: ExternalCluster, shared: bool, notice: Notice
) -> OpenScope:
    client = _client(stack, cluster.root)
    _warn_of_leaks(client, notice)
    try:
        own = open_scope(client, run)
    except MayNotMakeUsers as error:
        if not shared:
            raise
        notice(
            f"{error.message}; so the nodes work as {cluster.user}, and may touch what it may (--shared-credentials)"
        )
        borrow_scope(client, run)
        stack.callback(_quietly, return_scope, client, run)
        shared_access = dict.fromkeys(nodes, cluster.root)
        return OpenScope(cluster.root, cluster.root, shared_access, lambda _: None, lambda _: None, lambda _: None)
    stack.callback(_quietly, close_scope, client, run)
    users = admit(client, run, nodes)
    upkeep = stack.enter_context(Upkeep(client, run, lambda: None, notice))
    access = cluster.access_for(own.user, own.password)
    return OpenScope(
        access,
        access,
        {node: cluster.access_for(u.user, u.password) for node, u in users.items()},
        lambda _: None,
        upkeep.expel,
        lambda _: None,  # the past of a shared cluster is its administrator's
    )


def _on_own_server(
    stack: ExitStack, run: str, addresses: Mapping[str, str], choice: EtcdChoice, directory: RunDirectory,
    notice: Notice,
) -> OpenScope:  # fmt: skip
    server = stack.enter_context(_server(run, addresses, choice, directory, notice))
    server.on_restart(notice)
    client = _client(stack, server.root)
    own = open_scope(client, run)
    users = admit(client, run, tuple(addresses))
    made = {a: server.access_for(a, own.user, own.password) for a in dict.fromkeys((LOOPBACK, *addresses.values()))}
    upkeep = stack.enter_context(Upkeep(client, run, server.cut, notice))
    return OpenScope(
        made[LOOPBACK],
        replace(made[LOOPBACK], endpoints=[url for a in made for url in made[a].endpoints]),
        {n: replace(made[a], user=users[n].user, password=users[n].password) for n, a in addresses.items()},
        lambda lost: server.on_exit(lambda error: lost(error.message.partition("\n")[0])),
        upkeep.expel,
        upkeep.forget,
    )


class Upkeep:
    """What only an administrator of etcd may do, on a thread of its own: what was asked for is done on exit.

    ``cut`` ends the connections that a node may have open; it is done once for all nodes that go together.
    """

    def __init__(self, client: Client, run: str, cut: Callable[[], None], notice: Notice) -> None:
        self._client, self._run, self._cut, self._notice = client, run, cut, notice
        self._asked: queue.SimpleQueue[str | int | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="upkeep of etcd", daemon=True)

    def expel(self, node: str) -> None:
        """Have the node's access ended soon."""
        self._asked.put(node)

    def forget(self, revision: int) -> None:
        """Have what was written before that revision and is no more, or stands otherwise now, forgotten soon."""
        self._asked.put(revision)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._asked.put(None)
        self._thread.join()

    def _work(self) -> None:
        expelled = False
        asked = self._asked.get()
        while asked is not None:
            if isinstance(asked, int):
                self._try("the past of the run's etcd", partial(forget, self._client, asked))
            else:
                self._try(f"the access of {asked} to etcd", partial(expel, self._client, self._run, asked))
                expelled = True
            if expelled and self._asked.empty():
                self._try("the open connections of lost nodes", self._cut)
                expelled = False
            asked = self._asked.get()

    def _try(self, what: str, end: Callable[[], None]) -> None:
        try:
            end()
        except (LabError, StoreError) as error:
            self._notice(f"{what} could not be ended: {error}")


def _warn_of_leaks(client: Client, notice: Notice) -> None:
    version = server_version(client)
    found = advisories.for_shared_use(version)
    if found:
        notice(
            f"etcd {binary.text_of(version)} does not keep the users of a shared cluster apart"
            f" ({', '.join(a.id for a in found)}): others of it may reach this run; `testbed doctor` says more"
        )


def _addresses(machines: Mapping[str, Machine], advertise: str | None) -> dict[str, str]:
    """For each node, the address at which it reaches this machine."""
    routes: dict[str, str] = {}
    found = {}
    for node, machine in machines.items():
        if machine.connection == "local":
            found[node] = LOOPBACK
        elif advertise:
            found[node] = advertise
        else:
            if machine.address not in routes:
                routes[machine.address] = reachable_address(machine.address)
            found[node] = routes[machine.address]
    return found


def _server(
    run: str, addresses: Mapping[str, str], choice: EtcdChoice, directory: RunDirectory, notice: Notice
) -> EmbeddedServer:
    found = binary.find(choice.binary)
    remote = sorted(set(addresses.values()) - {LOOPBACK})
    # An address that is not this machine's own (a router forwards it) can't be listened on: then on all of them.
    listen = remote if all(is_own(a) for a in remote) else [ANY]
    limit = binary.watch_limit(found.version, tls=True)
    too_many = limit is not None and len(addresses) > limit.nodes
    if limit is not None and too_many and remote:
        raise LabError(f"{len(addresses)} nodes are more than {found} can watch: {limit.reason}", limit.remedy)
    if too_many:
        notice(f"{found} can't serve {len(addresses)} nodes over TLS: it listens on loopback without it")
    return EmbeddedServer(found, directory.path / "etcd", listen, tls=not too_many, run=run, names=remote)


def _client(stack: ExitStack, root: Access) -> Client:
    client = connect(root, patience=10.0)
    stack.callback(client.close)
    return client


def _quietly(close: Callable[[Client, str], None], client: Client, run: str) -> None:
    """Close a scope at the end of a run; what fails then is left to `testbed clean`."""
    with suppress(LabError, StoreError):
        close(client, run)


def write_access(path: Path, access: Access) -> None:
    """Write how the run's scope is reached, readable for its owner alone."""
    write_private(path, json.dumps(asdict(access)))


def read_access(path: Path) -> Access:
    """What `write_access` wrote; raises FileNotFoundError when the run is over."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    return Access(**raw)
