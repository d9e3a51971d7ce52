"""The run's scope in etcd as a context: a private server or the lab's cluster; all of it removed after."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from testbed.agent.plan import Access
from testbed.coord.store import StoreError
from testbed.errors import LabError
from testbed.etcd import binary
from testbed.etcd.access import Credentials, ExternalCluster, close_scope, connect, open_scope
from testbed.etcd.addresses import ANY, LOOPBACK, is_own, reachable_address
from testbed.etcd.server import EmbeddedServer
from testbed.inventory import Machine
from testbed.run.directory import RunDirectory
from testbed.run.freeze import write_private

Lost = Callable[[str], None]
"""Called with a reason, from another thread, when the run's own server ends unasked."""


@dataclass(frozen=True, slots=True)
class EtcdChoice:
    """Where a run coordinates: on the lab's ``cluster``, or a server of its own, reached at ``advertise``."""

    cluster: ExternalCluster | None = None
    binary: str | None = None
    advertise: str | None = None


@dataclass(frozen=True, slots=True)
class OpenScope:
    """An open scope: the controller's access to it, and each node's; ``on_lost`` registers who is told of its loss."""

    controller: Access
    nodes: Mapping[str, Access]
    on_lost: Callable[[Lost], None]


@contextmanager
def etcd_scope(
    run: str, machines: Mapping[str, Machine], choice: EtcdChoice, directory: RunDirectory
) -> Iterator[OpenScope]:
    """The run's scope while it lasts. Raises `LabError` where etcd can't be had or does not suit the run."""
    with ExitStack() as stack:
        if choice.cluster is not None:
            cluster = choice.cluster
            user = _enter_scope(stack, cluster.root, run)
            access = cluster.access_for(user.user, user.password)
            scope = OpenScope(access, dict.fromkeys(machines, access), lambda _: None)
        else:
            addresses = _addresses(machines, choice.advertise)
            server = stack.enter_context(_server(run, addresses, choice, directory))
            user = _enter_scope(stack, server.root, run)
            made = {a: server.access_for(a, user.user, user.password) for a in {LOOPBACK, *addresses.values()}}
            scope = OpenScope(
                made[LOOPBACK],
                {node: made[address] for node, address in addresses.items()},
                lambda lost: server.on_exit(lambda error: lost(error.message.partition("\n")[0])),
            )
        write_access(directory.access, scope.controller)
        yield scope


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


def _server(run: str, addresses: Mapping[str, str], choice: EtcdChoice, directory: RunDirectory) -> EmbeddedServer:
    found = binary.find(choice.binary)
    remote = sorted(set(addresses.values()) - {LOOPBACK})
    # An address that is not this machine's own (a router forwards it) can't be listened on: then on all of them.
    listen = remote if all(is_own(a) for a in remote) else [ANY]
    limit = binary.watch_limit(found.version, tls=bool(remote))
    if limit is not None and len(addresses) > limit.nodes:
        raise LabError(f"{len(addresses)} nodes are more than {found} can watch: {limit.reason}", limit.remedy)
    return EmbeddedServer(found, directory.path / "etcd", listen, tls=bool(remote), run=run, names=remote)


def _enter_scope(stack: ExitStack, root: Access, run: str) -> Credentials:
    """Make the run's user, to be removed on the way out; a server that is gone by then takes the user with it."""
    client = connect(root, patience=10.0)
    stack.callback(client.close)
    user = open_scope(client, run)

    def close() -> None:
        with suppress(LabError, StoreError):
            close_scope(client, run)

    stack.callback(close)
    return user


def write_access(path: Path, access: Access) -> None:
    """Write how the run's scope is reached, readable for its owner alone."""
    write_private(path, json.dumps(asdict(access)))


def read_access(path: Path) -> Access:
    """What `write_access` wrote; raises FileNotFoundError when the run is over."""
    raw = json.loads(path.read_text(encoding="utf-8"))
    return Access(**raw)
