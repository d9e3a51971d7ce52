"""The scope of whoever asks, for programs: on a node through its agent, elsewhere straight to the run's etcd.

Both ways the words of the command ``testbed`` are asked, so that a program's calls mean what a script's do.
"""

from __future__ import annotations

import json
import os
import socket
from contextlib import closing, contextmanager
from typing import Any, Callable, Dict, Generator, Iterator, List, Optional, Sequence, Tuple, Union

from testbed.coord.flags import Flag
from testbed.coord.services import Service
from testbed.coord.store import Unavailable
from testbed.coord.waiting import Aborted, Broken, Cancelled, WaitTimeout
from testbed.events import ABORT

OUT, ERR, HELD, END = b"1", b"2", b"r", b"x"
"""Kinds of frames: a piece of output, of what went wrong, the token of a lock now held, the exit code."""

Frame = Tuple[bytes, bytes]
Ask = Callable[[List[str], bytes], Generator[Frame, None, None]]
"""Asks words, with input; gives frames as they come, the last with the exit code. Closing it gives up."""

Value = Union[bytes, str]


class Scope:
    """A run's scope for this process; use it by ``with Scope.here() as scope``.

    The words of the command ``testbed`` are its methods. Values are bytes, or text that is taken as UTF-8; time-outs
    are seconds, without end where None. All raise Unavailable where etcd can't be reached, and ValueError for what
    makes no sense; what waits raises WaitTimeout, Aborted, and Broken where what it waits for can't come any more.
    """

    def __init__(self, ask: Ask) -> None:
        self._asking = ask

    @classmethod
    @contextmanager
    def here(cls, run: Optional[str] = None) -> Iterator[Scope]:
        """The scope of this process's node; of that ``run`` (or local scope, or the newest run) where it is no node's.

        Raises Unavailable in a process of a node whose agent is gone.
        """
        workspace = os.environ.get("TESTBED_WORKSPACE")
        if run is None and workspace and "TESTBED_SCOPE" not in os.environ:
            yield cls(_Agent(os.path.join(workspace, ".testbed")))
            return
        import importlib

        # Only the whole package has what finds runs by name; this module is also in the agent's, which has not.
        with importlib.import_module("testbed.run.reach").asking(run) as ask:
            yield cls(ask)

    # --- values -------------------------------------------------------------------------------------------------

    def set(self, key: str, value: Value = b"", timeout: Optional[float] = None) -> None:
        """Set a value for all nodes; ``timeout`` bounds how long etcd may be away."""
        self._ask(["set", *_timeout(timeout), "--", key, "-"], _bytes(value))

    def unset(self, key: str, timeout: Optional[float] = None) -> None:
        """Remove a value, if it is set."""
        self._ask(["unset", *_timeout(timeout), "--", key])

    def get(self, key: str) -> Optional[bytes]:
        """Read a value; None where it is not set."""
        try:
            return self._ask(["get", "--raw", "--", key])[0]
        except Broken:
            return None

    def keys(self, prefix: str = "") -> List[str]:
        """The keys that are set and begin so."""
        return list(self._data(["keys", "--json", "--", prefix]))

    def wait(self, key: str, timeout: Optional[float] = None) -> bytes:
        """A value as soon as it is set."""
        return self.wait_all([key], timeout)[0]

    def wait_all(self, keys: Sequence[str], timeout: Optional[float] = None) -> List[bytes]:
        """Several values, in the order of the keys, as soon as all are set."""
        return self._ask(["get", "-b", "--all", "--raw", *_timeout(timeout), "--", *keys])

    def wait_any(self, keys: Sequence[str], timeout: Optional[float] = None) -> Tuple[str, bytes]:
        """Key and value of the one that was set first."""
        key, value = self._ask(["get", "-b", "--any", "--raw", *_timeout(timeout), "--", *keys])
        return key.decode(), value

    def wait_value(self, key: str, value: Value, timeout: Optional[float] = None) -> None:
        """Return as soon as the key has that value."""
        wanted = _bytes(value).decode("utf-8", "surrogateescape")
        self._ask(["get", "-b", "--raw", f"--value={wanted}", *_timeout(timeout), "--", key])

    # --- meeting ------------------------------------------------------------------------------------------------

    def barrier(
        self,
        name: str,
        nodes: Sequence[str] = (),
        role: str = "",
        count: int = 0,
        timeout: Optional[float] = None,
    ) -> None:
        """Wait until all nodes are here; or those named, those with a configuration, or so many different ones."""
        who = [f"--nodes={','.join(nodes)}"] if nodes else []
        who += [f"--role={role}"] if role else []
        who += [f"--count={count}"] if count else []
        self._ask(["barrier", *who, *_timeout(timeout), "--", name])

    def next(self, name: str, timeout: Optional[float] = None) -> int:
        """The next number of a sequence: 0, 1, 2 ..., each once in the run."""
        return int(self._ask(["next", *_timeout(timeout), "--", name])[0])

    @contextmanager
    def lock(self, name: str, timeout: Optional[float] = None) -> Iterator[int]:
        """Hold a lock of the run; gives its token, which grows from holder to holder. Freed also if this dies."""
        with closing(self._asking(["lock", *_timeout(timeout), "--", name, "--", "held"], b"")) as frames:
            err = b""
            for kind, data in frames:
                if kind == HELD:
                    yield int(data)
                    return
                err += data if kind == ERR else b""
                if kind == END:
                    _raise(int(data), err)

    def publish(self, topic: str, value: Value = b"", timeout: Optional[float] = None) -> None:
        """Add a message to a stream."""
        self._ask(["publish", *_timeout(timeout), "--", topic, "-"], _bytes(value))

    def subscribe(self, topic: str, count: Optional[int] = None, timeout: Optional[float] = None) -> Iterator[bytes]:
        """The messages of a stream from its first on, ``count`` of them or without end; ``timeout`` for all."""
        bound = [] if count is None else [f"--count={count}"]
        with closing(self._frames(["subscribe", "--raw", *bound, *_timeout(timeout), "--", topic], b"")) as frames:
            yield from frames

    def publish_service(self, name: str, port: Optional[int] = None, host: str = "") -> None:
        """Say that this node offers a service, at its own address unless ``host`` says another."""
        where = ([] if port is None else [f"--port={port}"]) + ([f"--host={host}"] if host else [])
        self._ask(["service", *where, "--", "publish", name])

    def discover(self, name: str, timeout: Optional[float] = None) -> Service:
        """Who offered a service first, as soon as somebody does."""
        return Service(**self._data(["service", "--json", *_timeout(timeout), "--", "discover", name]))

    # --- the run ------------------------------------------------------------------------------------------------

    def nodes(self, role: str = "") -> List[Dict[str, Any]]:
        """The run's nodes (with that configuration): name, index, group, machine, address, configurations each."""
        return list(self._data(["nodes", "--json", *([f"--role={role}"] if role else [])]))

    def hosts(self) -> Dict[str, str]:
        """The address of each node."""
        return dict(self._data(["hosts", "--json"]))

    def whoami(self) -> Dict[str, Any]:
        """The run, this member's name, and what else `nodes` tells of it."""
        return dict(self._data(["whoami", "--json"]))

    def abort(self, reason: str = "") -> None:
        """Stop all nodes now; they finalise."""
        self._ask(["abort", *([f"--reason={reason}"] if reason else [])])

    def finalise(self) -> None:
        """Let all nodes end what they are at, then finalise."""
        self._ask(["finalise"])

    def wait_finalise(self, timeout: Optional[float] = None) -> None:
        """Return when the run finalises."""
        self._ask(["wait", *_timeout(timeout), "finalise"])

    # --- how it is asked ----------------------------------------------------------------------------------------

    def _data(self, words: List[str]) -> Any:
        return json.loads(b"".join(self._ask(words)))

    def _ask(self, words: List[str], data: bytes = b"") -> List[bytes]:
        return list(self._frames(words, data))

    def _frames(self, words: List[str], data: bytes) -> Generator[bytes, None, None]:
        """The output, piece by piece; raises what the exit code says."""
        err = b""
        with closing(self._asking(words, data)) as frames:
            for kind, piece in frames:
                if kind == OUT:
                    yield piece
                elif kind == ERR:
                    err += piece
                elif kind == END:
                    _raise(int(piece), err)


class _Agent:
    """Asks the agent whose folder this is; one connection for a call."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __call__(self, words: List[str], data: bytes) -> Generator[Frame, None, None]:
        arguments = [os.fsencode(word) for word in words]
        head = b"%d %d\n" % (len(arguments), len(data))
        request = head + b"".join(b"%d\n%s" % (len(a), a) for a in arguments) + data
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            try:
                self._connect(connection)
                connection.sendall(request)
                with connection.makefile("rb") as answer:
                    yield from _read(answer)
            except OSError as error:
                raise Unavailable(f"the agent of this node is not there any more ({error})") from error

    def _connect(self, connection: socket.socket) -> None:
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:  # a socket's path may have no more than 107 bytes, a workspace's may
            connection.connect(f"/proc/self/fd/{folder}/agent.sock")
        finally:
            os.close(folder)


def _read(answer: Any) -> Iterator[Frame]:
    while True:
        kind, _, number = answer.readline().partition(b" ")
        if not number:
            raise ConnectionError("the connection ended before the answer")
        if kind in (OUT, ERR):
            yield kind, answer.read(int(number))
            continue
        yield kind, number.strip()
        if kind == END:
            return


def _raise(code: int, err: bytes) -> None:
    """Raise what an exit code stands for; nothing for 0."""
    if code == 0:
        return
    said = err.decode("utf-8", "replace").strip()
    said = said.partition(": ")[2] or said
    if code == 1:
        raise Broken(said)
    if code == 2:
        raise ValueError(said)
    if code == 4:
        raise WaitTimeout.told(said)
    if code == 5:
        by, _, why = said.partition("the run is aborted by ")[2].partition(": ")
        raise Aborted(Flag(ABORT, by, why, 0.0))
    if code == 130:
        raise Cancelled(said)
    raise Unavailable(said)


def _timeout(timeout: Optional[float]) -> List[str]:
    return [] if timeout is None else [f"--timeout={max(0.0, timeout):.6f}"]


def _bytes(value: Value) -> bytes:
    return value.encode() if isinstance(value, str) else value
