"""Users and roles: a run may touch its own keys and nothing else, on its own server and on a shared cluster alike."""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import stat
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from testbed.agent.plan import Access
from testbed.coord.faults import PRECONDITION, Refused
from testbed.coord.http1 import Endpoint, parse_endpoint
from testbed.coord.keys import ROOT, RunKeys
from testbed.coord.store import Denied, StoreError, Unavailable
from testbed.coord.wire import Client
from testbed.errors import LabError, UsageError
from testbed.etcd.addresses import is_loopback
from testbed.etcd.binary import Version

ENDPOINTS = "TESTBED_ETCD"
USER, PASSWORD, PASSWORD_FILE = "TESTBED_ETCD_USER", "TESTBED_ETCD_PASSWORD", "TESTBED_ETCD_PASSWORD_FILE"
CA, CERTIFICATE, KEY = "TESTBED_ETCD_CA", "TESTBED_ETCD_CERT", "TESTBED_ETCD_KEY"

_AT_ONCE = 8  # users that are made at a time: where the cost of hashing is etcd's default, each takes 60 ms of a core

_HOW = "docs/etcd.md shows the commands."
_LARGEST_FILE = 1024 * 1024  # bytes; nothing that is named here is larger


@dataclass(frozen=True, slots=True)
class ExternalCluster:
    """A cluster of the lab: where it is, and a user of it that may make users; PEM texts, empty where not used."""

    endpoints: tuple[str, ...]
    user: str
    password: str = field(repr=False)
    ca: str = field(repr=False, default="")
    certificate: str = field(repr=False, default="")
    key: str = field(repr=False, default="")

    @property
    def root(self) -> Access:
        """The controller's access."""
        return self.access_for(self.user, self.password)

    def access_for(self, user: str, password: str) -> Access:
        """Give another user's access; nodes show the same client certificate, where one is used."""
        return Access(list(self.endpoints), user, password, self.ca, self.certificate, self.key)


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user of etcd and its password."""

    user: str
    password: str = field(repr=False)


class MayNotMakeUsers(LabError):
    """The cluster's user may log in, but only one with the role root may make users."""


def connect(access: Access, patience: float | None = None) -> Client:
    """Make a client with that access; it opens no connection yet. ``patience`` in seconds, the client's own if None."""
    further = {} if patience is None else {"patience": patience}
    return Client(access.endpoints, access.user, access.password, access.ca, access.certificate, access.key, **further)


def external_cluster(
    endpoints: str | None = None, environment: Mapping[str, str] | None = None
) -> ExternalCluster | None:
    """Read the settings of the lab's cluster; None where there are none: then a run has a server of its own.

    ``endpoints`` (``--etcd``) are comma-separated URLs and go before ``TESTBED_ETCD`` of ``environment`` (this
    process's by default), which holds all else. Raises `UsageError` for the first setting that is wrong.
    """
    environment = os.environ if environment is None else environment
    source = "--etcd" if endpoints else ENDPOINTS
    places = endpoints or environment.get(ENDPOINTS, "")
    if not places:
        return None
    parsed = _read_endpoints(places, source)
    user = environment.get(USER, "")
    if not user:
        raise UsageError(
            f"{source} names an etcd cluster, but {USER} names no user of it: a run is never without authentication",
            help=f"Set {USER} and {PASSWORD_FILE} to a user that may make users; {_HOW}",
        )
    password = _read_password(environment)
    ca = _read_file(environment, CA)
    certificate, key = _read_file(environment, CERTIFICATE), _read_file(environment, KEY, private=True)
    _check_certificates(ca, certificate, key)
    return ExternalCluster(tuple(str(e) for e in parsed), user, password, ca, certificate, key)


def server_version(client: Client) -> Version:
    """Ask the server for its version; raises `LabError` where it cannot be told."""
    with _explained(client, "telling its version"):
        text = str(client.call("/v3/maintenance/status", {}).get("version", ""))
    numbers = text.partition("-")[0].split(".")
    if len(numbers) != 3 or not all(n.isdigit() for n in numbers):
        raise LabError(f"{_place(client)} calls its version {text[:50]!r}; is it etcd?")
    return int(numbers[0]), int(numbers[1]), int(numbers[2])


def open_scope(client: Client, run: str) -> Credentials:
    """Make the run's user, who may read and write exactly the run's keys, and give its random password.

    ``client`` belongs to a user that may make users. Raises `LabError` where authentication is off, where that user
    may not, or where the run has a user already.
    """
    keys = RunKeys(run)
    name = _name(run)
    password = secrets.token_urlsafe(24)
    require_authentication(client)
    with _explained(client, f"making the user {name}", users=True):
        if name in client.call("/v3/auth/user/list", {}).get("users", []):
            raise LabError(
                f"{_place(client)} has a user {name} already: a run of that name is under way, or was left behind",
                help=f"Clean it up with `testbed clean {run}`, or choose another name for this run.",
            )
        _drop(client, "role", name)  # of an earlier attempt that got no further
        _make(client, "role", {"name": name})
        start, end = keys.span
        permission = {"permType": "READWRITE", "key": _encode(start), "range_end": _encode(end)}
        client.call("/v3/auth/role/grant", {"name": name, "perm": permission})
        _make(client, "user", {"name": name, "password": password})
        client.call("/v3/auth/user/grant", {"user": name, "role": name})
    return Credentials(name, password)


def admit(client: Client, run: str, nodes: Sequence[str]) -> dict[str, Credentials]:
    """Make a user for each of the run's nodes, with the rights of the run's own; raises `LabError`.

    A user for each, because only so can one node's access end before the run does.
    """

    def make(node: str) -> Credentials:
        credentials = Credentials(_name(run, node), secrets.token_urlsafe(24))
        _make(client, "user", {"name": credentials.user, "password": credentials.password})
        client.call("/v3/auth/user/grant", {"user": credentials.user, "role": _name(run)})
        return credentials

    with (
        _explained(client, f"making users for the nodes of {run}", users=True),
        ThreadPoolExecutor(_AT_ONCE, "making users") as pool,
    ):
        return dict(zip(nodes, pool.map(make, nodes), strict=True))


def expel(client: Client, run: str, node: str) -> None:
    """End a node's access: it writes and reads nothing more, under a token of before neither. No error if it is gone.

    etcd lets a watch live on that the node has open; see `EmbeddedServer.cut`. Raises `LabError`.
    """
    name = _name(run, node)
    with _explained(client, f"removing the user {name}", users=True):
        _drop(client, "user", name)


def forget(client: Client, revision: int) -> None:
    """Have the server forget what of its past was over before that revision; no error if it has. Raises `LabError`.

    Watches that resume from before it must read again what stands, as `testbed.coord.feed.Feed` does.
    """
    with _explained(client, "compacting its history"):
        try:
            client.call("/v3/kv/compaction", {"revision": str(revision)})
        except Refused as error:
            if "has been compacted" not in str(error):
                raise


def borrow_scope(client: Client, run: str) -> None:
    """Check that the client's own user may write the run's keys, of which there are none yet; raises `LabError`."""
    require_authentication(client)
    with _explained(client, f"writing below {RunKeys(run).prefix}"):
        _drop_keys(client, run)


def return_scope(client: Client, run: str) -> None:
    """Delete the keys of a run that had no user of its own; raises `LabError`."""
    with _explained(client, "removing the run's keys"):
        _drop_keys(client, run)


def close_scope(client: Client, run: str) -> None:
    """Delete the run's users, its role and all its keys, in that order; no error for what is gone already.

    etcd lets a watch live on whose user is gone: it sees the deletion of the keys, and nothing after. Raises
    `LabError`.
    """
    name = _name(run)
    with _explained(client, f"removing the user {name} and the run's keys", users=True):
        for user in client.call("/v3/auth/user/list", {}).get("users", []):
            if user == name or user.startswith(_name(run, "")):
                _drop(client, "user", user)
        _drop(client, "role", name)
        _drop_keys(client, run)


def require_authentication(client: Client) -> None:
    """Raise `LabError` unless the cluster asks every user for a password."""
    with _explained(client, "asking for its authentication"):
        try:
            # nobody is called so: a server with authentication refuses, one without says that it has none
            client.call("/v3/auth/authenticate", {"name": "testbed?", "password": "?"})
        except Denied:
            return
        except Refused as error:
            if error.code != PRECONDITION:
                return
        raise LabError(
            f"authentication is off on {_place(client)}: everybody could read and change this run",
            help=f"Switch it on (`etcdctl auth enable`, after a user and role named root were made); {_HOW}",
        )


def _name(run: str, node: str | None = None) -> str:
    """The user and role of a run, or the user of one of its nodes: a dot is in the names of neither."""
    return f"testbed-{run}" if node is None else f"testbed-{run}.{node}"


def _encode(key: str) -> str:
    return base64.b64encode(key.encode()).decode("ascii")


def _place(client: Client) -> str:
    return "etcd at " + ", ".join(str(e) for e in client.endpoints)


def _drop_keys(client: Client, run: str) -> None:
    start, end = RunKeys(run).span
    client.call("/v3/kv/deleterange", {"key": _encode(start), "range_end": _encode(end)})


def _make(client: Client, what: str, body: Mapping[str, str]) -> None:
    """Make a user or a role that there was not; one that is there was made by a first request whose answer was lost.

    Of a user its password shows whether that is so.
    """
    try:
        client.call(f"/v3/auth/{what}/add", body)
    except Refused as error:
        if "already exists" not in str(error):
            raise
        if what == "user":
            client.call("/v3/auth/authenticate", body)


def _drop(client: Client, what: str, name: str) -> None:
    """Delete a user or a role if there is one."""
    try:
        client.call(f"/v3/auth/{what}/delete", {"name" if what == "user" else "role": name})
    except Refused as error:
        if "not found" not in str(error):  # else somebody else was quicker, or our first request's answer was lost
            raise


class _explained(contextlib.AbstractContextManager[None]):
    """Turns the store's errors into the lab's: what was tried where, and what to do; ``users``: with users or roles."""

    def __init__(self, client: Client, doing: str, users: bool = False) -> None:
        self._client, self._doing, self._users = client, doing, users

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, StoreError):
            return
        if isinstance(error, Unavailable):
            advice = "Check that it runs, that a firewall lets this machine through, and its certificates."
        elif isinstance(error, Denied) and "authentication failed" in str(error):
            advice = f"Check the user and its password: {USER}, {PASSWORD_FILE}."
        elif isinstance(error, Denied) and self._users:
            raise MayNotMakeUsers(
                f"{_place(self._client)}: {self._doing} failed: {error}",
                help=f"The user needs etcd's role root, because only that may make users; {_HOW} Where nobody gives you"
                " that, --shared-credentials has all nodes work as that user itself.",
            ) from error
        elif isinstance(error, Denied):
            advice = f"The user needs to read and write everything below {ROOT}runs/; {_HOW}"
        else:
            advice = "See the server's log."
        raise LabError(f"{_place(self._client)}: {self._doing} failed: {error}", help=advice) from error


def _read_endpoints(text: str, source: str) -> Sequence[Endpoint]:
    found: list[Endpoint] = []
    for piece in (p.strip() for p in text.split(",")):
        try:
            endpoint = parse_endpoint(piece)
        except ValueError as error:
            raise UsageError(f"{source}: {error}", help="Example: https://etcd1:2379,https://etcd2:2379") from error
        if not endpoint.tls and not is_loopback(endpoint.host):
            raise UsageError(
                f"{source}: {endpoint} is another machine without TLS: passwords would cross the network readably",
                help=f"Use https:// and name the cluster's authority with {CA}; {_HOW}",
            )
        found.append(endpoint)
    if len({e.tls for e in found}) > 1:
        raise UsageError(f"{source} mixes http:// and https:// endpoints", help="Name one cluster, all of it by https.")
    return found


def _read_password(environment: Mapping[str, str]) -> str:
    if environment.get(PASSWORD) and environment.get(PASSWORD_FILE):
        raise UsageError(f"{PASSWORD} and {PASSWORD_FILE} are both set", help=f"Keep {PASSWORD_FILE}.")
    password = environment.get(PASSWORD) or _read_file(environment, PASSWORD_FILE, private=True).rstrip("\r\n")
    if not password:
        raise UsageError(
            f"{USER} is set, but there is no password: "
            + (
                f"the file of {PASSWORD_FILE} is empty" if environment.get(PASSWORD_FILE) else f"{PASSWORD_FILE} is not"
            ),
            help=f"Write the password to a file with mode 0600 and name it in {PASSWORD_FILE}.",
        )
    return password


def _read_file(environment: Mapping[str, str], variable: str, private: bool = False) -> str:
    name = environment.get(variable, "")
    if not name:
        return ""
    path = Path(name).expanduser()
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_LARGEST_FILE)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"{variable}: {path} cannot be read: {why}", help=f"Correct {variable}.") from error
    if private and stat.S_ISREG(mode) and mode & 0o077:
        raise UsageError(f"{variable}: {path} can be read by other users", help=f"Do `chmod 600 {path}`.")
    return text


def _check_certificates(ca: str, certificate: str, key: str) -> None:
    from testbed.etcd.certificates import Unusable, check_authority, check_client

    if bool(certificate) != bool(key):
        missing, there = (KEY, CERTIFICATE) if certificate else (CERTIFICATE, KEY)
        raise UsageError(f"{there} is set, but {missing} is not", help="A client certificate needs both.")
    variable = CA
    try:
        if ca:
            check_authority(ca)
        variable = f"{CERTIFICATE} and {KEY}"
        if certificate:
            check_client(certificate, key)
    except Unusable as error:
        raise UsageError(f"{variable}: {error}", help=f"Correct {variable}; {_HOW}") from error
