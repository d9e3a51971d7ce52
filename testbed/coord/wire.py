"""The etcd client: calls and streams over the JSON gateway, with log-in, fail-over and bounded patience."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from typing import Any, Callable, Iterator, Mapping, Sequence, TypeVar

from testbed.coord.faults import PRECONDITION, Outrun, Refused, Stale, judge
from testbed.coord.http1 import Connection, Endpoint, parse_endpoint, tls_context
from testbed.coord.store import Denied, StoreError, Unavailable

T = TypeVar("T")

PATIENCE = 30.0
"""How many seconds of unavailability an operation bears where nothing else is said."""

ANSWER_TIMEOUT = 6.0
"""Seconds a server may stay silent before it is taken for dead; must leave a lease time to be refreshed elsewhere."""

_LOGIN_FACTOR = 3  # many agents may log in at once, and hashing passwords is slow on purpose
_LOGINS = 3  # in one call: with tokens that live a second, one may die between the log-in and its use
_RACES = 3  # in one call: that often the same token is tried again after users were changed
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_IDLE = 8


class Attempts:
    """One operation's patience: counts from its first failure, pauses between rounds over the endpoints."""

    def __init__(self, client: Client, patience: float, ended: Callable[[], bool]) -> None:
        self._client = client
        self._patience = patience
        self._ended = ended
        self._since: float | None = None
        self._failures = 0
        self._hopeless = 0

    def failed(self, endpoint: Endpoint, error: Exception) -> None:
        """Leave that endpoint and wait for the next attempt's time; raises Unavailable when patience is used up."""
        client = self._client
        client.suspect(endpoint)
        client.check()
        now = time.monotonic()
        self._since = now if self._since is None else self._since
        self._failures += 1
        self._hopeless = self._hopeless + 1 if _hopeless(error) else 0
        left = self._since + self._patience - now
        if left <= 0 or self._hopeless >= len(client.endpoints):
            raise Unavailable(self._report(endpoint, error, now)) from error
        rounds, rest = divmod(self._failures, len(client.endpoints))
        if not rest:
            client.tell_away(f"{endpoint}: {_reason(error)}")
            pause = min(_FIRST_PAUSE * 2 ** min(rounds - 1, 10), _LONGEST_PAUSE)
            pause *= 0.75 + os.urandom(1)[0] / 512  # so that many agents do not come back at one instant
            client.pause(min(pause, left), self._ended)

    def _report(self, endpoint: Endpoint, error: Exception, now: float) -> str:
        places = ", ".join(str(e) for e in self._client.endpoints)
        tried = f" for {now - self._since:.0f} s" if self._since is not None and now - self._since >= 1 else ""
        return f"etcd at {places} did not answer{tried}; last from {endpoint}: {_reason(error)}"


def _hopeless(error: Exception) -> bool:
    """Whether trying the same endpoint again cannot help: it is TLS that does not fit, not the network."""
    reason = str(getattr(error, "reason", None) or "")
    return "CERTIFICATE" in reason or "WRONG_VERSION" in reason or "UNKNOWN_CA" in reason


def _reason(error: Exception) -> str:
    if isinstance(error, socket.timeout):
        return f"no answer in time ({error})"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


class Stream:
    """A request whose answer goes on: iterate for its messages; `close` from any thread.

    Iterating raises OSError when the connection is lost, and ends only when the server ended the answer in order.
    """

    def __init__(self, client: Client, connection: Connection, token: str) -> None:
        self.endpoint = connection.endpoint
        self.token = token
        self._client = client
        self._connection = connection

    def patient(self, timeout: float | None) -> None:
        """Let reading wait so many seconds, or for ever (TCP's own probes still find a peer that is gone)."""
        self._connection.patient(timeout)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        buffer: list[bytes] = []
        for piece in self._connection.pieces():
            *lines, rest = piece.split(b"\n")
            for line in lines:
                whole = b"".join(buffer) + line
                buffer.clear()
                if whole.strip():
                    yield judge(200, whole)
            if rest:
                buffer.append(rest)

    def cut(self) -> None:
        """End the stream from any thread: whoever iterates it finds the connection lost."""
        self._connection.cut()

    def close(self) -> None:
        """End the stream and give its socket back; by the thread that iterates."""
        self._client.forget(self)
        self._connection.cut()
        self._connection.close()


class Client:
    """A client of one etcd cluster; all its methods may be called from any thread.

    ``endpoints`` are URLs; ``ca``, ``certificate`` and ``key`` PEM texts, empty where not used; ``user`` is empty
    where etcd has no authentication; ``patience`` and ``answer`` in seconds. Opens no connection before it must.
    Raises ValueError for endpoints or certificates that cannot be used.
    """

    def __init__(
        self,
        endpoints: Sequence[str],
        user: str = "",
        password: str = "",
        ca: str = "",
        certificate: str = "",
        key: str = "",
        patience: float = PATIENCE,
        answer: float = ANSWER_TIMEOUT,
    ) -> None:
        if not endpoints:
            raise ValueError("no etcd endpoint given")
        self.endpoints: tuple[Endpoint, ...] = tuple(parse_endpoint(e) for e in endpoints)
        self.patience = patience
        self.answer = answer
        self._user, self._password = user, password
        self._trust = (ca, certificate, key)
        self._tls = self.secured()
        self._token: str | None = None if user else ""  # None: not logged in; empty: not needed
        self._login = threading.Lock()
        self.listen: Callable[[str], None] = lambda _: None
        """Is told why when no endpoint answers any more, and "" when one does again; by any thread, must not block."""
        self._telling = threading.Lock()  # guards the next one, and the order in which it is told
        self._away = False
        self._changed = threading.Condition()  # guards all below
        self._current = 0
        self._idle: list[Connection] = []
        self._busy: dict[int, Connection] = {}
        self._streams: list[Stream] = []
        self._closed = False

    def call(self, path: str, body: Mapping[str, Any], patience: float | None = None) -> dict[str, Any]:
        """POST ``body`` to ``path`` and give the answer; ``patience`` in seconds, the client's own where None.

        Raises `Unavailable`, `Denied`, `TooLarge`, `LeaseExpired`, or `Refused` with etcd's own words. A request
        whose answer got lost is sent again, so it may have been done twice.
        """
        data = json.dumps(body, separators=(",", ":")).encode()

        def ask(endpoint: Endpoint, token: str) -> dict[str, Any]:
            return self._exchange(endpoint, path, data, token, self.answer)

        return self._persist(ask, self.attempts(patience))

    def stream(self, path: str, bodies: Sequence[Mapping[str, Any]], attempts: Attempts | None = None) -> Stream:
        """POST all ``bodies`` in one request and give the stream of what comes back."""
        data = b"\n".join(json.dumps(b, separators=(",", ":")).encode() for b in bodies)

        def ask(endpoint: Endpoint, token: str) -> Stream:
            return self._open(endpoint, path, data, token)

        return self._persist(ask, attempts or self.attempts())

    def attempts(self, patience: float | None = None, ended: Callable[[], bool] = lambda: False) -> Attempts:
        """Give the patience for one operation; its pauses end early when ``ended()`` holds (and `wake` was called)."""
        return Attempts(self, self.patience if patience is None else patience, ended)

    def renew(self, stale: str) -> None:
        """Forget the token ``stale``, so that the next request logs in again; raises Denied if there is no user."""
        if not self._user:
            raise Denied("etcd asks for a user, and none is given")
        with self._changed:
            if self._token == stale:
                self._token = None

    def suspect(self, endpoint: Endpoint) -> None:
        """Take that endpoint for dead: cut its streams, drop its idle connections, go on with the next one."""
        with self._changed:
            if self.endpoints[self._current] == endpoint:
                self._current = (self._current + 1) % len(self.endpoints)
            for stream in self._streams:
                if stream.endpoint == endpoint:
                    stream.cut()
        self._drop_idle(endpoint)

    def pause(self, seconds: float, ended: Callable[[], bool]) -> None:
        """Wait so long, or until the client is closed or ``ended()`` holds."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or ended(), seconds)
        self.check()

    def wake(self) -> None:
        """Let everyone who pauses look again."""
        with self._changed:
            self._changed.notify_all()

    def tell_away(self, why: str) -> None:
        """Let who listens know that no endpoint answers; empty: that one does again."""
        with self._telling:
            if self._away != bool(why):
                self._away = bool(why)
                self.listen(why)

    @property
    def endpoint(self) -> Endpoint:
        """The endpoint that is in use."""
        return self.endpoints[self._current]

    @property
    def token(self) -> str | None:
        """What the requests of this client are allowed by; empty where nothing is needed, None before the log-in."""
        return self._token

    def secured(self, protocol: str = "") -> Any:
        """Make a TLS context that asks for that application protocol; None where no endpoint uses TLS."""
        if not any(e.tls for e in self.endpoints):
            return None
        context = tls_context(*self._trust)
        if protocol:
            context.set_alpn_protocols([protocol])
        return context

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def check(self) -> None:
        """Raise StoreError if the client is closed."""
        if self._closed:
            raise StoreError("the connection to etcd is closed")

    def forget(self, stream: Stream) -> None:
        """Count the stream as over."""
        with self._changed:
            if stream in self._streams:
                self._streams.remove(stream)

    def close(self) -> None:
        """End all calls and streams; they raise StoreError."""
        with self._changed:
            self._closed = True
            for stream in self._streams:
                stream.cut()
            for connection in self._busy.values():
                connection.cut()
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for connection in idle:
            connection.close()

    def _persist(self, ask: Callable[[Endpoint, str], T], attempts: Attempts) -> T:
        began = time.monotonic()
        logins = races = 0
        while True:
            self.check()
            endpoint = self.endpoint
            token = ""
            try:
                token = self._credentials(endpoint)
                answer = ask(endpoint, token)
                if self._away:
                    self.tell_away("")
                return answer
            except OSError as error:
                attempts.failed(endpoint, error)
            except Outrun as error:
                races += 1
                if time.monotonic() - began > max(self.patience, self.answer):
                    raise Unavailable(f"{error}, again and again for {time.monotonic() - began:.0f} s") from error
                if races > _RACES:  # a signed token is good for one state of the users only
                    self.renew(token)
            except Stale as error:
                logins += 1
                if logins > _LOGINS:
                    raise Denied(str(error)) from error
                self.renew(token)

    def _credentials(self, endpoint: Endpoint) -> str:
        token = self._token
        if token is not None:
            return token
        with self._login:
            token = self._token
            if token is None:
                token = self._token = self._log_in(endpoint)
            return token

    def _log_in(self, endpoint: Endpoint) -> str:
        body = json.dumps({"name": self._user, "password": self._password}).encode()
        try:
            answer = self._exchange(endpoint, "/v3/auth/authenticate", body, "", _LOGIN_FACTOR * self.answer)
            return str(answer["token"])
        except Refused as error:
            if error.code == PRECONDITION:
                return ""  # authentication is switched off
            raise
        except KeyError:
            raise StoreError(f"{endpoint} answered a log-in without a token; is it etcd?") from None

    def _exchange(self, endpoint: Endpoint, path: str, data: bytes, token: str, timeout: float) -> dict[str, Any]:
        while True:
            connection = self._take(endpoint)
            try:
                status = connection.post(path, data, token, timeout)
                raw = connection.read()
            except OSError as error:
                self._drop(connection)
                if connection.reused and not isinstance(error, socket.timeout):
                    self._drop_idle(endpoint)  # the server was restarted meanwhile; that costs no patience
                    continue
                raise
            except BaseException:
                self._drop(connection)
                raise
            self._give_back(connection)
            return judge(status, raw)

    def _open(self, endpoint: Endpoint, path: str, data: bytes, token: str) -> Stream:
        connection = Connection(endpoint, self._tls)
        stream = Stream(self, connection, token)
        with self._changed:
            self._streams.append(stream)
        try:
            self.check()
            status = connection.post(path, data, token, self.answer, last=True)
            if status != 200:
                judge(status, connection.read())
        except BaseException:
            stream.close()
            raise
        return stream

    def _take(self, endpoint: Endpoint) -> Connection:
        with self._changed:
            for connection in reversed(self._idle):
                if connection.endpoint == endpoint:
                    self._idle.remove(connection)
                    connection.reused = True
                    self._busy[id(connection)] = connection
                    return connection
        connection = Connection(endpoint, self._tls)
        with self._changed:
            self._busy[id(connection)] = connection
            closed = self._closed
        if closed:
            self._drop(connection)
            self.check()
        return connection

    def _give_back(self, connection: Connection) -> None:
        with self._changed:
            keep = connection.lasting and not self._closed and len(self._idle) < _IDLE
            if keep:
                del self._busy[id(connection)]
                self._idle.append(connection)
        if not keep:
            self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        with self._changed:
            self._busy.pop(id(connection), None)
        connection.close()

    def _drop_idle(self, endpoint: Endpoint) -> None:
        with self._changed:
            dead = [c for c in self._idle if c.endpoint == endpoint]
            self._idle = [c for c in self._idle if c.endpoint != endpoint]
        for connection in dead:
            connection.close()
