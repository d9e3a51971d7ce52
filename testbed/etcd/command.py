"""How an etcd server of one member is told what to be: its command line and its environment."""

from __future__ import annotations

import os
from collections.abc import Sequence

from testbed.etcd.binary import Binary

CA, CERTIFICATE, KEY = "ca.pem", "server.pem", "server.key"
"""The files, in its working directory, that a server with TLS shows and judges certificates by."""

_PEER = "unix://localhost:1"  # a server of one has no peers: a socket in its private directory instead of a TCP port

_OPTIONS = (
    # A server of one elects itself after one to two election timeouts, and nobody else can: short ones start it in
    # 0.15 s for under 1 % of a core; 100/1000, the default, takes up to 2 s.
    "--heartbeat-interval=20",
    "--election-timeout=200",
    # Passwords here are 192 random bits, which need no slow hash; at the default cost a log-in takes 57 ms of CPU.
    "--bcrypt-cost=4",
    # Signed tokens would all die whenever a user is added. The time to live, in seconds, slides with use.
    "--auth-token=simple",
    "--auth-token-ttl=3600",
    # A watch may start at any revision of the run: nothing is dropped by time, only what output that was looked at
    # leaves behind.
    "--auto-compaction-retention=0",
    # Writes after which what was written is dropped from the server's memory, but for the last 5000 (which cannot be
    # set). The default is 100000: more than a gigabyte where somebody looks at much output.
    "--snapshot-count=1000",
    # Bytes. Far more than coordination needs; a run that loops on `set` must not fill the operator's disk.
    "--quota-backend-bytes=2147483648",
    "--logger=zap",
    "--log-outputs=stderr",
)
# Writes need not reach the disk before they count: a crash of this machine ends the run, and its data with it.
_NO_FSYNC, _NO_FSYNC_SINCE = "--unsafe-no-fsync", (3, 4, 23)


def command(binary: Binary, clients: Sequence[str], advertised: str, tls: bool) -> list[str]:
    """Give the command that serves at the URLs ``clients``, with its data below the working directory.

    ``advertised`` is where its own gateway calls it. The same command starts it again on the data it left.
    """
    arguments = [
        str(binary.path),
        "--name=run",
        "--data-dir=data",
        f"--listen-client-urls={','.join(clients)}",
        f"--advertise-client-urls={advertised}",
        f"--listen-peer-urls={_PEER}",
        f"--initial-advertise-peer-urls={_PEER}",
        f"--initial-cluster=run={_PEER}",
        *_OPTIONS,
    ]
    if binary.version >= _NO_FSYNC_SINCE:
        arguments.append(_NO_FSYNC)
    if tls:
        arguments += [f"--cert-file={CERTIFICATE}", f"--key-file={KEY}"]
        arguments += ["--client-cert-auth", f"--trusted-ca-file={CA}"]
    return arguments


def environment() -> dict[str, str]:
    """Give the whole environment of a server."""
    # etcd takes every setting from ETCD_* too, and the operator's are for another server
    kept = ("PATH", "HOME", "TZ", "LANG", "LC_ALL", "ETCD_UNSUPPORTED_ARCH")
    return {name: os.environ[name] for name in kept if name in os.environ}
