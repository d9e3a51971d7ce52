"""A private etcd server for one run: started on a fresh data directory, revived, and removed with its data."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import secrets
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from testbed.agent.plan import Access
from testbed.coord.store import StoreError
from testbed.errors import LabError
from testbed.etcd.access import connect
from testbed.etcd.addresses import LOOPBACK, free_port, is_loopback, url
from testbed.etcd.binary import Binary, text_of
from testbed.etcd.certificates import Authority, Issued
from testbed.etcd.command import CA, CERTIFICATE, KEY, command, environment
from testbed.etcd.failures import PORT_TAKEN, ending, explain, tail, with_log
from testbed.etcd.process import BoundProcess

START_TIMEOUT = 30.0
"""Seconds that a server may take until it answers; it takes about 0.15 on an idle machine."""

STOP_GRACE = 5.0
"""Seconds between TERM and KILL; its data is thrown away, so nothing is lost by KILL."""

CUT_GRACE = 1.0
"""Seconds that a server may take to end in order when connections are cut; what it has acknowledged is kept anyway."""

RESTARTS = 3
"""How often a server that ends unasked is started again before the run does without."""

_ATTEMPTS = 5
_WILDCARDS = frozenset({"0.0.0.0", "::"})  # noqa: S104  known here in order to be treated apart


@dataclass(frozen=True, slots=True)
class _Listening:
    """A started server, its port, and the byte of the log where it began."""

    process: BoundProcess
    port: int
    log_begin: int
    expected: bool = False  # its end


class EmbeddedServer:
    """An etcd server for one run, as a context manager: started on entry, gone with its data on exit.

    It listens for clients on 127.0.0.1 and on ``addresses`` (IP addresses of this machine), over TLS where ``tls``:
    then only for clients with a certificate that it issued itself. ``names`` are further names and addresses under
    which nodes reach it. ``ports`` are tried in order; where empty, a free port is found. Its log goes to
    ``directory/etcd.log`` and stays; all else lies in a private directory beside it and goes with the server.

    Authentication is on when entry returns. Entry raises `LabError`, with what etcd said last. The server dies with
    this process, however that ends. If it ends unasked, it is started again on its data and its port, at most
    ``restarts`` times; clients see a pause, and leases begin to run anew.
    """

    def __init__(
        self,
        binary: Binary,
        directory: Path,
        addresses: Sequence[str] = (),
        tls: bool = True,
        *,
        run: str = "",
        names: Sequence[str] = (),
        ports: Sequence[int] = (),
        restarts: int = RESTARTS,
    ) -> None:
        if not tls and not all(is_loopback(a) for a in addresses):
            raise ValueError("an etcd server that is reached from other machines needs TLS")
        self.binary = binary
        self.log = directory / "etcd.log"
        self._directory = directory
        wildcard = next((a for a in addresses if a in _WILDCARDS), None)
        self._listen = (wildcard,) if wildcard else tuple(dict.fromkeys((LOOPBACK, *addresses)))
        self._names = tuple(
            dict.fromkeys(n for n in (LOOPBACK, "localhost", *addresses, *names) if n not in _WILDCARDS)
        )
        self._scheme = "https" if tls else "http"
        self._run = run
        self._ports = tuple(ports)
        self._authority: Authority | None = None
        self._own = Issued("", "")
        self._password = secrets.token_urlsafe(24)
        self._home: Path | None = None
        self._server: _Listening | None = None
        self._restarts_left = restarts
        self._turn = threading.RLock()  # one start or stop at a time; guards all below
        self._stopping = False
        self._failed: LabError | None = None
        self._tellers: list[Callable[[LabError], None]] = []
        self._revivals: list[Callable[[str], None]] = []
        # Every end of the process, told by the thread that waits for it: that one must end, another one restarts.
        self._ends: queue.SimpleQueue[tuple[BoundProcess, int] | None] = queue.SimpleQueue()
        self._guard: threading.Thread | None = None

    def __enter__(self) -> EmbeddedServer:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop()
        except LabError as fault:
            if error is None:
                raise
            error.add_note(f"{fault.message} ({fault.help})")

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._running().process.pid

    @property
    def port(self) -> int:
        """The TCP port for clients, the same on all addresses."""
        return self._running().port

    @property
    def root(self) -> Access:
        """The controller's access, over loopback, to everything on the server."""
        return self._access(LOOPBACK, "root", self._password, self._own)

    @property
    def failed(self) -> LabError | None:
        """Why the server ended although nobody stopped it; None while it is well."""
        return self._failed

    def endpoints_for(self, address: str) -> list[str]:
        """Give the client URLs for somebody who reaches this machine under ``address``."""
        return [url(self._scheme, address, self.port)]

    def access_for(self, address: str, user: str, password: str) -> Access:
        """Give a node its access: the server at ``address``, that user, and a client certificate of its own."""
        issued = self._authority.issue_client(f"user {user}") if self._authority else Issued("", "")
        return self._access(address, user, password, issued)

    def on_exit(self, callback: Callable[[LabError], None]) -> None:
        """Call ``callback`` with the reason if the server is gone for good (at once if it is), from another thread."""
        with self._turn:
            if self._failed is None:
                self._tellers.append(callback)
                return
        callback(self._failed)

    def on_restart(self, callback: Callable[[str], None]) -> None:
        """Call ``callback`` with what happened when the server ended unasked and runs again, from another thread."""
        with self._turn:
            self._revivals.append(callback)

    def cut(self) -> None:
        """Cut all open connections, watches too, by a restart: whoever still has a user comes back by himself.

        For a user that was deleted: etcd lets an open watch live on. Raises `LabError` if the server does not come
        back; then it is gone for good.
        """
        with self._turn:
            if self._stopping or self._failed is not None:
                return
            server = self._running()
            self._server = replace(server, expected=True)
            server.process.stop(CUT_GRACE)
            failure = self._relaunch()
        if failure is not None:
            self._give_up(failure)
            raise failure

    def stop(self) -> None:
        """End the server and remove its data; no error if that is done already.

        Raises `LabError` if the data could not be removed.
        """
        with self._turn:
            self._stopping = True
            if self._server is not None:
                self._server.process.stop(STOP_GRACE)
        guard, self._guard = self._guard, None
        if guard is not None:
            self._ends.put(None)
            guard.join()
        self._remove_home()

    # --- staying alive ------------------------------------------------------------------------------------------

    def _watch_over(self) -> None:
        """On a thread of its own: start the server again when it ends unasked."""
        while True:
            end = self._ends.get()
            if end is None:
                return
            process, exit_code = end
            with self._turn:
                server = self._running()
                if self._stopping or server.expected or server.process is not process:
                    continue
                loss = self._loss(exit_code)
                process.stop(0)  # gives back what it held
                failure: LabError | None = loss
                if self._restarts_left:
                    self._restarts_left -= 1
                    failure = self._relaunch()
                revivals = tuple(self._revivals)
            if failure is not None:
                self._give_up(loss)
                continue
            for tell in revivals:
                tell(f"the run's etcd server on this machine {ending(exit_code)}; it was started again on its data")

    def _relaunch(self) -> LabError | None:
        """Start the server on the data and the port that it had; None when it is ready."""
        server = self._running()
        assert self._home is not None  # noqa: S101  there is no server without one
        failure: LabError | None = None
        for _ in range(_ATTEMPTS):
            try:
                failure = self._launch(self._home, server.port)
            except OSError as error:
                failure = self._refusal(error)
            # A client that looks for the server in vain may for a moment have got its port as its own.
            if failure is None or PORT_TAKEN not in failure.message:
                break
        return failure

    def _give_up(self, loss: LabError) -> None:
        with self._turn:
            self._failed = loss
            tellers, self._tellers = self._tellers, []
        for tell in tellers:
            tell(loss)

    def _running(self) -> _Listening:
        if self._server is None:
            raise RuntimeError("the etcd server is not started")
        return self._server

    def _access(self, address: str, user: str, password: str, issued: Issued) -> Access:
        ca = self._authority.certificate if self._authority else ""
        return Access(self.endpoints_for(address), user, password, ca, issued.certificate, issued.key)

    def _start(self) -> None:
        failure: LabError | None = None
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._scheme == "https":
                self._authority = Authority(self._run)
                self._own = self._authority.issue_client("controller")
            for port in self._candidates():
                self._home = Path(tempfile.mkdtemp(prefix="etcd-", dir=self._directory))  # 0700
                self._write_certificates(self._home)
                failure = self._launch(self._home, port)
                if failure is None:
                    break
                self._remove_home()
                if PORT_TAKEN not in failure.message:
                    break
            if failure is not None:
                raise failure
        except OSError as error:
            raise self._refusal(error) from error
        self._enable_authentication()
        self._guard = threading.Thread(target=self._watch_over, name="guard of etcd", daemon=True)
        self._guard.start()

    def _candidates(self) -> Iterator[int]:
        if self._ports:
            yield from self._ports
            return
        for _ in range(_ATTEMPTS):  # between choosing a port and taking it, somebody else may take it
            yield free_port(self._listen)

    def _launch(self, home: Path, port: int) -> LabError | None:
        """Start the server on that port; None when it is ready, else why it did not get so."""
        begin = self.log.stat().st_size if self.log.exists() else 0
        clients = [url(self._scheme, address, port) for address in self._listen]
        advertised = url(self._scheme, LOOPBACK, port)
        arguments = command(self.binary, clients, advertised, tls=self._authority is not None)
        process = BoundProcess(arguments, home, self.log, environment())
        try:
            if process.wait_ready(START_TIMEOUT):
                self._server = _Listening(process, port, begin)
                process.on_exit(lambda code: self._ends.put((process, code)))
                return None
        except BaseException:
            process.stop(0)
            raise
        unanswered = process.exit_code is None
        process.stop(STOP_GRACE)
        said = tail(self.log, begin)
        end = f"was not ready within {START_TIMEOUT:.0f} s" if unanswered else ending(process.exit_code or 0)
        cause, advice = explain(said, f"it {end}")
        message = (
            f"etcd {text_of(self.binary.version)} did not start at {' and '.join(clients)} on this machine: {cause}"
        )
        return LabError(with_log(message, said), help=advice or f"Its whole log is {self.log}.")

    def _write_certificates(self, home: Path) -> None:
        if self._authority is None:
            return
        issued = self._authority.issue_server(self._names)
        texts = {CA: self._authority.certificate, CERTIFICATE: issued.certificate, KEY: issued.key}
        for name, text in texts.items():
            _write_private(home / name, text)

    def _enable_authentication(self) -> None:
        try:
            with contextlib.closing(connect(replace(self.root, user="", password=""), START_TIMEOUT)) as client:
                client.call("/v3/auth/user/add", {"name": "root", "password": self._password})
                client.call("/v3/auth/role/add", {"name": "root"})
                client.call("/v3/auth/user/grant", {"user": "root", "role": "root"})
                client.call("/v3/auth/enable", {})
            with contextlib.closing(connect(self.root, START_TIMEOUT)) as client:
                users = client.call("/v3/auth/user/list", {}).get("users", [])
        except StoreError as error:
            exit_code = self._running().process.exit_code
            if exit_code is not None:
                raise self._loss(exit_code) from error
            raise LabError(
                f"etcd {text_of(self.binary.version)} started, but authentication could not be switched on: {error}",
                help=f"Its log is {self.log}.",
            ) from error
        if users != ["root"]:
            raise LabError(
                "somebody else of this machine made a user on the run's etcd server before authentication was on",
                help="Start the run again, and see who works on this machine.",
            )

    def _loss(self, exit_code: int) -> LabError:
        message = f"the run's etcd server on this machine is gone: it {ending(exit_code)}"
        advice = f"Its log is {self.log}."
        if exit_code == -signal.SIGKILL:
            advice += " A kill that nobody sent comes from the kernel when memory runs out: see `dmesg`."
        return LabError(with_log(message, tail(self.log, self._running().log_begin)), help=advice)

    def _refusal(self, error: OSError) -> LabError:
        cause, advice = explain([os.strerror(error.errno or errno.EIO)], str(error))
        message = f"the run's etcd server cannot have its files in {self._directory} on this machine: {cause}"
        return LabError(f"{message} ({error})", help=advice or "Choose another run directory with --run-dir.")

    def _remove_home(self) -> None:
        home, self._home = self._home, None
        if home is None:
            return
        try:
            shutil.rmtree(home)
        except OSError as error:
            raise LabError(
                f"the data of the run's etcd server stay on this machine: {error}", f"Remove {home}."
            ) from error


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
