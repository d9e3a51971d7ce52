"""What is known to be wrong with etcd servers, by version."""

from __future__ import annotations

from dataclasses import dataclass

from testbed.etcd.binary import Version


@dataclass(frozen=True, slots=True)
class Advisory:
    """A published fault; ``fixed`` holds the first release without it of each series, from the oldest on.

    Series before the first one listed were never mended; series after the last one never had it. ``shared`` says that
    it matters where several users share a server; the others matter only to a server that is started again on its
    old data.
    """

    id: str
    title: str
    fixed: tuple[Version, ...]
    since: Version = (3, 0, 0)
    shared: bool = True

    def affects(self, version: Version) -> bool:
        """Whether a server of that version has the fault."""
        if version < self.since:
            return False
        for release in self.fixed:
            if version[:2] <= release[:2]:
                return version < release
        return False


SAFE_FOR_SHARING: tuple[Version, ...] = ((3, 5, 33), (3, 6, 14), (3, 7, 1))
"""The first release of each kept series without a known way around its access control."""

ADVISORIES: tuple[Advisory, ...] = (
    Advisory(
        "GHSA-xg4h-6gfc-h4m8",
        "a user watches keys outside of the ranges granted to it",
        SAFE_FOR_SHARING,
    ),
    Advisory(
        "CVE-2026-73500",
        "unfinished TLS handshakes keep a server from answering",
        SAFE_FOR_SHARING,
    ),
    Advisory(
        "CVE-2026-44283",
        "a user reads former values and attaches leases outside of its ranges through transactions",
        ((3, 4, 44), (3, 5, 30), (3, 6, 11)),
    ),
    Advisory(
        "CVE-2026-33343",
        "a user reads and writes keys outside of its ranges through nested transactions",
        ((3, 4, 42), (3, 5, 28), (3, 6, 9)),
    ),
    Advisory(
        "CVE-2026-33413",
        "members are listed and leases granted without any login",
        ((3, 4, 42), (3, 5, 28), (3, 6, 9)),
    ),
    Advisory(
        "CVE-2023-32082",
        "a user lists the names of keys outside of its ranges through leases",
        ((3, 4, 26), (3, 5, 9)),
    ),
    Advisory(
        "CVE-2021-28235",
        "the debug log tells passwords",
        ((3, 4, 25), (3, 5, 8)),
    ),
    Advisory(
        "etcd-io/etcd#13766",
        "a crash can lose writes without a trace",
        ((3, 5, 3),),
        since=(3, 5, 0),
        shared=False,
    ),
    Advisory(
        "etcd-io/etcd#14370",
        "a server of one member can lose confirmed writes in a crash",
        ((3, 4, 21), (3, 5, 5)),
        shared=False,
    ),
)


def known(version: Version) -> list[Advisory]:
    """Every advisory that a server of that version falls under."""
    return [a for a in ADVISORIES if a.affects(version)]


def for_shared_use(version: Version) -> list[Advisory]:
    """Those that matter where the users of a server must be kept apart; empty: fit for sharing."""
    return [a for a in known(version) if a.shared]
