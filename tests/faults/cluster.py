"""A real etcd cluster of three members on loopback, whose leader can be killed."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from testbed.etcd.addresses import free_port


class Cluster:
    """Three members with authentication; ``password`` is that of their user root."""

    def __init__(self, binary: str, password: str) -> None:
        self._binary, self._password = binary, password
        self._directory = Path(tempfile.mkdtemp(prefix="testbed-cluster-"))
        ports = [free_port(["127.0.0.1"]) for _ in range(6)]
        self.urls = [f"http://127.0.0.1:{port}" for port in ports[:3]]
        self._peers = [f"http://127.0.0.1:{port}" for port in ports[3:]]
        self._members: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start all members, and switch authentication on."""
        self._start_members()
        for words in (
            ["user", "add", f"root:{self._password}"],
            ["role", "add", "root"],
            ["user", "grant-role", "root", "root"],
            ["auth", "enable"],
        ):
            self._etcdctl(",".join(self.urls), *words)

    def revive(self) -> None:
        """Start the members that were killed on what data they have; returns when they know what the others know."""
        dead = [url for url in self.urls if url not in self._members]
        self._start_members()
        for url in dead:
            self._etcdctl(url, "--user", f"root:{self._password}", "get", "nothing")

    def _etcdctl(self, endpoints: str, *words: str) -> None:
        """Have etcd's own client do something, as soon as it can be done."""
        patient = ["--dial-timeout", "60s", "--command-timeout", "60s"]
        command = [Path(self._binary).with_name("etcdctl"), "--endpoints", endpoints, *patient, *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

    def _start_members(self) -> None:
        initial = ",".join(f"m{n}={peer}" for n, peer in enumerate(self._peers))
        for n, (url, peer) in enumerate(zip(self.urls, self._peers, strict=True)):
            if url in self._members:
                continue
            self._members[url] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", self._binary, "--name", f"m{n}", "--data-dir", f"data-{n}",
                 "--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls", peer,
                 "--initial-advertise-peer-urls", peer, "--initial-cluster", initial, "--heartbeat-interval", "50",
                 "--election-timeout", "500", "--unsafe-no-fsync", "--bcrypt-cost", "4", "--log-level", "error"],
                cwd=self._directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def kill_leader(self) -> None:
        """Kill -9 of the member that leads."""
        statuses = {url: self._post(url, "/v3/maintenance/status", {}) for url in self._members}
        (leader,) = [url for url, s in statuses.items() if s["leader"] == s["header"]["member_id"]]
        member = self._members.pop(leader)
        member.kill()
        member.wait()

    def users(self) -> list[str]:
        """The users that there are."""
        url = next(iter(self._members))
        token = self._post(url, "/v3/auth/authenticate", {"name": "root", "password": self._password})["token"]
        return list(self._post(url, "/v3/auth/user/list", {}, token)["users"])

    def close(self) -> None:
        """Remove all of it."""
        for member in self._members.values():
            member.kill()
            member.wait()
        shutil.rmtree(self._directory)

    def _post(self, url: str, path: str, body: dict[str, Any], token: str = "") -> Any:
        headers = {"Authorization": token} if token else {}
        request = urllib.request.Request(url + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            return json.load(answer)
