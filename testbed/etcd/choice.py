"""Where a run is told to coordinate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a client of etcd takes long to load, and most runs make a server of their own
    from testbed.etcd.access import ExternalCluster


@dataclass(frozen=True, slots=True)
class EtcdChoice:
    """Where a run coordinates: on the lab's ``cluster``, or a server of its own, reached at ``advertise``.

    ``shared_credentials`` allows the cluster's user itself for all nodes where it may not make users.
    """

    cluster: ExternalCluster | None = None
    binary: str | None = None
    advertise: str | None = None
    shared_credentials: bool = False
