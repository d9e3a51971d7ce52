"""What `testbed clean` takes away."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from testbed.coord.gateway import GatewayStore
from testbed.coord.keys import RunKeys
from testbed.coord.store import Put
from testbed.etcd import binary
from testbed.etcd.access import admit, connect, open_scope
from testbed.etcd.server import EmbeddedServer

ROOT = Path(__file__).parents[2]


def test_clean_removes_what_a_dead_controller_left_on_a_cluster(tmp_path: Path) -> None:
    """Users, role and keys of a run that stayed on the lab's cluster are gone after `testbed clean`."""
    (tmp_path / "cluster").mkdir()
    with EmbeddedServer(binary.find(), tmp_path / "cluster", tls=False) as lab, closing(connect(lab.root)) as client:
        environment = {
            **os.environ,
            "TESTBED_STATE_HOME": str(tmp_path / "state"),
            "TESTBED_ETCD": lab.root.endpoints[0],
            "TESTBED_ETCD_USER": lab.root.user,
            "TESTBED_ETCD_PASSWORD": lab.root.password,
        }
        do("run", "examples/hello/deployment.yml", environment=environment)
        (run,) = (path.name for path in (tmp_path / "state/runs").iterdir())
        assert client.call("/v3/auth/user/list", {})["users"] == ["root"]
        own = open_scope(client, run)  # as its controller had before it was killed
        admit(client, run, ["alice", "bob"])
        leave_a_key(lab, own.user, own.password, run)
        do("clean", run, environment=environment)
        assert client.call("/v3/auth/user/list", {})["users"] == ["root"]
        assert client.call("/v3/auth/role/list", {})["roles"] == ["root"]
        assert "kvs" not in client.call("/v3/kv/range", {"key": "AA==", "range_end": "AA=="})


def leave_a_key(lab: EmbeddedServer, user: str, password: str, run: str) -> None:
    """Write a value as that user."""
    client = connect(lab.access_for("127.0.0.1", user, password))
    with closing(GatewayStore(client)) as store:
        store.commit([Put(RunKeys(run).value("left"), b"behind")])


def do(*words: str, environment: dict[str, str]) -> None:
    """Do a command; fails with its words where it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "testbed", *words],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
