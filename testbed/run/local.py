"""Local scopes: nodes without machines or agents, whose scripts somebody runs by hand in terminals of this machine.

A scope's server is held by a process of its own, which ends it when told to, or when nothing has happened in the scope
for a long time. Everything of a scope lies in one folder.
"""

from __future__ import annotations

import fcntl
import json
import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from testbed.agent.plan import Access
from testbed.coord.feed import Feed
from testbed.coord.gateway import connect
from testbed.coord.keys import RunKeys, end_of
from testbed.coord.peers import Peer
from testbed.coord.store import Put, Span, StoreError
from testbed.errors import LabError, TestbedError, UsageError
from testbed.run.directory import name_run, state_root

VARIABLE = "TESTBED_SCOPE"
"""Names the file that says how a member reaches its scope."""

BY_HAND = "controller"
"""The member whose file is for whoever looks on."""

UNUSED = 12 * 3600.0
"""Seconds without any change after which a scope ends by itself."""

MOST = 100
"""Nodes of one scope; a server that speaks TLS can't watch for many more."""

LOOPBACK = "127.0.0.1"
_END_PATIENCE = 30.0  # seconds that the holder may take to end its server


@dataclass(frozen=True, slots=True)
class LocalScope:
    """A scope's folder; its name is the scope's id."""

    path: Path

    @property
    def run(self) -> str:
        """The scope's id."""
        return self.path.name

    def file(self, member: str) -> Path:
        """How a member reaches the scope (mode 0600)."""
        return self.path / f"{member}.json"

    @property
    def lock(self) -> Path:
        """Held, and with its process id in it, by the process that holds the server."""
        return self.path / "holder"

    def workspace(self, node: str) -> Path:
        """Where a node's scripts may leave things."""
        return self.path / "workspaces" / node


def setup(nodes: int, unused: float = UNUSED) -> LocalScope:
    """Make a scope for so many nodes, ``node-0`` and on, and leave its server running. Raises UsageError, LabError."""
    if not 1 <= nodes <= MOST:
        raise UsageError(f"a local scope has 1 to {MOST} nodes, not {nodes}")
    scope = LocalScope(_home() / name_run("local"))
    try:
        scope.path.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise LabError(f"cannot make {error.filename}: {error.strerror}") from error
    command = [sys.executable, "-m", "testbed.run.local", str(scope.path), str(nodes), str(unused)]
    log = scope.path / "holder.log"
    with log.open("wb") as errors:
        holder = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, cwd="/", start_new_session=True
        )
    assert holder.stdout is not None  # noqa: S101  it is a pipe
    with holder.stdout:
        ready = holder.stdout.read()
    if ready != b"ready":
        holder.wait()
        said = log.read_text("utf-8", "replace").strip()
        shutil.rmtree(scope.path, ignore_errors=True)
        raise LabError(f"the local scope did not come up: {said or f'its holder ended with {holder.returncode}'}")
    holder.returncode = 0  # it goes on by itself: nobody waits for it here
    return scope


def teardown(name: str) -> LocalScope:
    """End a scope and remove all that is of it. Raises UsageError where there is none, LabError where it stays."""
    scope = find(name)
    if scope is None:
        known = ", ".join(s.run for s in registered())
        raise UsageError(f"there is no local scope {name!r}", f"there are: {known}" if known else "none is up")
    if not _ended(scope, 0):
        try:
            os.kill(int(scope.lock.read_text("ascii")), signal.SIGTERM)
        except ProcessLookupError:
            pass  # it has just ended by itself
        except (OSError, ValueError) as error:
            raise LabError(f"cannot end the holder of {scope.run}: {error}") from error
        if not _ended(scope, _END_PATIENCE):
            raise LabError(f"the server of {scope.run} has not ended within {_END_PATIENCE:g} s", f"see {scope.path}")
    shutil.rmtree(scope.path, ignore_errors=False)
    return scope


def registered() -> list[LocalScope]:
    """All local scopes of this user, oldest first."""
    home = _home()
    return [LocalScope(path) for path in sorted(home.iterdir()) if path.is_dir()] if home.is_dir() else []


def find(name: str) -> LocalScope | None:
    """The local scope of that id, or the only one whose id begins so."""
    found = [scope for scope in registered() if scope.run == name]
    found = found or [scope for scope in registered() if name.startswith("local-") and scope.run.startswith(name)]
    return found[0] if len(found) == 1 else None


def environment(scope: LocalScope, node: Peer, nodes: Sequence[Peer]) -> dict[str, str]:
    """What a node's scripts find in their environment; no secret is in it."""
    workspace = scope.workspace(node.name)
    return {
        VARIABLE: str(scope.file(node.name)),
        "TESTBED_RUN": scope.run,
        "TESTBED_NODE": node.name,
        "TESTBED_INDEX": str(node.index),
        "TESTBED_NODES": " ".join(peer.name for peer in nodes),
        **{f"TESTBED_HOST_{peer.index}": peer.address for peer in nodes},
        "TESTBED_WORKSPACE": str(workspace),
        "TESTBED_REPORTS": str(workspace / "reports"),
    }


def script(scope: LocalScope) -> str:
    """Shell text: the scope's id, and for each node one line that makes a terminal that node's."""
    nodes = peers_of(scope)
    lines = [f"# local scope {scope.run}", f"# end it with: testbed local-teardown {scope.run}"]
    for node in nodes:
        words = [f"{name}={shlex.quote(value)}" for name, value in environment(scope, node, nodes).items()]
        lines += [f"# {node.name}", f"export {' '.join(words)}"]
    return "\n".join(lines) + "\n"


def peers_of(scope: LocalScope) -> list[Peer]:
    """The nodes of a scope."""
    return [Peer(**node) for node in json.loads(scope.file(BY_HAND).read_text("utf-8"))["nodes"]]


def _home() -> Path:
    return state_root() / "local"


def _ended(scope: LocalScope, seconds: float) -> bool:
    """Whether nobody holds the scope, waiting for that for so long."""
    try:
        with scope.lock.open("r+b") as lock:
            if seconds == 0:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            # The kernel wakes us when the holder has ended, whichever way; a thread, because a lock has no time-out.
            waiter = threading.Thread(target=fcntl.flock, args=(lock, fcntl.LOCK_EX), daemon=True)
            waiter.start()
            waiter.join(seconds)
            return not waiter.is_alive()
    except FileNotFoundError:
        return True
    except BlockingIOError:
        return False


# --- the holder -------------------------------------------------------------------------------------------------------


def hold(path: Path, nodes: int, unused: float) -> None:
    """Be the holder: start the server, write the members' files, say that it is ready, and stay until the end."""
    scope = LocalScope(path)
    lock = os.open(scope.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.write(lock, str(os.getpid()).encode())
    heard: queue.SimpleQueue[bool] = queue.SimpleQueue()  # True: it is over
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: heard.put(True))
    peers = [Peer(f"node-{n}", n, "node", "localhost", LOOPBACK, []) for n in range(nodes)]
    with _served(scope, peers) as access:
        store = connect(access)
        feed = Feed(store)
        prefix = RunKeys(scope.run).prefix
        feed.follow(Span(prefix, end_of(prefix)), lambda _: heard.put(False), lambda _: heard.put(True))
        os.write(1, b"ready")
        os.close(1)
        used = True
        try:
            while not heard.get(timeout=unused):
                pass
        except queue.Empty:
            used = False
        store.close()
        feed.close()
    if not used:  # nobody will come to tear it down
        shutil.rmtree(scope.path, ignore_errors=True)


@contextmanager
def _served(scope: LocalScope, peers: Sequence[Peer]) -> Iterator[Access]:
    """The scope's server with its users, and every member's file."""
    from testbed.etcd import binary
    from testbed.etcd.access import admit, open_scope
    from testbed.etcd.access import connect as connect_client
    from testbed.etcd.server import EmbeddedServer
    from testbed.run.freeze import write_private

    with EmbeddedServer(binary.find(None), scope.path / "etcd", run=scope.run) as server:
        with closing(connect_client(server.root, patience=10.0)) as client:
            own = open_scope(client, scope.run)
            users = admit(client, scope.run, [peer.name for peer in peers])
        access = server.access_for(LOOPBACK, own.user, own.password)
        members = {BY_HAND: access}
        for peer in peers:
            user = users[peer.name]
            members[peer.name] = server.access_for(LOOPBACK, user.user, user.password)
            (scope.workspace(peer.name) / "reports").mkdir(mode=0o700, parents=True)
        told = {"run": scope.run, "nodes": [asdict(peer) for peer in peers]}
        for member, reached in members.items():
            write_private(scope.file(member), json.dumps({**told, "node": member, "access": asdict(reached)}))
        store = connect(access)
        keys = RunKeys(scope.run)
        store.commit([Put(keys.value(f"host_{peer.index}"), peer.address.encode()) for peer in peers])
        store.close()
        yield access


def _main() -> int:
    path, nodes, unused = sys.argv[1:]
    try:
        hold(Path(path), int(nodes), float(unused))
    except TestbedError as error:
        sys.stderr.write(f"{error.message}{f' ({error.help})' if error.help else ''}\n")
        return error.exit_code
    except StoreError as error:
        sys.stderr.write(f"the scope's etcd cannot be used: {error}\n")
        return LabError.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(_main())
