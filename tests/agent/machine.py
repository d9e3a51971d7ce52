"""A machine as the controller sees it: agents are started, asked and removed by the commands that travel to nodes."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from testbed.agent import archive, process
from testbed.agent.answer import MARK
from testbed.agent.environment import run_marks
from testbed.agent.plan import RUN, Access, Peer, Plan, PlannedStep
from testbed.agent.workspace import Workspace, read_pid, wait_free
from testbed.coord.gateway import GatewayStore, connect
from testbed.coord.keys import RunKeys
from testbed.coord.scope import Scope
from testbed.coord.store import Span

LIMIT = 60.0
"""Seconds after which a test gives up on an agent that should have ended."""


class Machine:
    """Workspaces below ``root``, whose agents speak to the etcd at ``url``; `close` leaves nothing of them.

    ``access`` may hold user, password and ca.
    """

    def __init__(self, root: Path, url: str, run: str, python: str = sys.executable, **access: str) -> None:
        self.root, self.run, self.python = root, run, python
        self.access = Access([url], **{"user": "", **access})
        self.keys = RunKeys(run)
        self.store: GatewayStore = connect(self.access)
        self.scope = Scope(self.store, run, "controller")
        self.workspace = Workspace(str(root / "lab" / run / "n0"))

    def rename(self, run: str) -> None:
        """Take part in that run instead of one's own."""
        self.run, self.keys = run, RunKeys(run)
        self.scope.close()
        self.scope = Scope(self.store, run, "controller")
        self.workspace = Workspace(str(self.root / "lab" / run / "n0"))

    def plan(self, *steps: PlannedStep, **changes: Any) -> Plan:
        """A plan for node n0 of two."""
        peers = [Peer("n0", 0, "n", "here", "127.0.0.1", ["a"]), Peer("n1", 1, "n", "there", "192.0.2.7", ["a"])]
        plan = Plan(
            run=self.run, node="n0", index=0, peers=peers, parameters={}, steps=list(steps), access=self.access,
            timeout=50.0, finalise="n0", finalise_timeout=10.0, grace=3.0, liveness=5.0, outage=20.0,
        )  # fmt: skip
        return dataclasses.replace(plan, **changes)

    def start(self, plan: Plan | str, files: bytes = b"", workspace: str = "") -> dict[str, Any]:
        """Start an agent by the one command; its answer."""
        payload = archive.payload(plan, workspace or self.workspace.path, files)
        return self.feed(payload)

    def feed(self, payload: bytes) -> dict[str, Any]:
        """Give ``payload`` to the bootstrap."""
        command = [self.python, "-I", "-S", "-c", archive.BOOTSTRAP]
        done = subprocess.run(command, input=payload, capture_output=True, cwd="/", timeout=LIMIT, check=False)
        answer, rest = parse(done.stdout)
        assert rest == b"", done
        assert done.returncode == (0 if answer["ok"] else 1), done
        return answer

    def ask(self, *words: str) -> tuple[dict[str, Any], bytes]:
        """One of the agent's own commands; its answer and what follows it."""
        (pyz,) = Path(self.workspace.own()).glob("agent-*.pyz")
        command = [self.python, "-I", "-S", str(pyz), *words]
        done = subprocess.run(
            command, capture_output=True, cwd="/", stdin=subprocess.DEVNULL, timeout=LIMIT, check=False
        )
        return parse(done.stdout)

    def collect(self, *words: str, chunk: int = 1 << 20) -> dict[str, bytes]:
        """The results, file by file, fetched in chunks and checked."""
        data = b""
        while True:
            answer, rest = self.ask("collect", *words, str(len(data)), str(chunk))
            assert answer["ok"], answer
            data += base64.b64decode(rest)
            if len(data) >= answer["size"]:
                break
        assert hashlib.sha256(data).hexdigest() == answer["sha256"]
        with tarfile.open(fileobj=io.BytesIO(data)) as packed:
            return {m.name: packed.extractfile(m).read() for m in packed if m.isreg()}  # type: ignore[union-attr]

    def await_end(self) -> None:
        """Block until the agent has ended."""
        assert wait_free(self.workspace, LIMIT), self.log()

    def happenings(self) -> Iterator[str]:
        """One line for every event, flag and value, as they come, from the run's beginning; ends after `LIMIT`."""
        watch = self.store.watch([Span(*self.keys.span, revision=1)])
        timer = threading.Timer(LIMIT, watch.close)
        timer.start()
        try:
            for batch in watch:
                for change in batch:
                    if change.value is not None:
                        line = self._line(change.key, change.value)
                        if line:
                            yield line
        finally:
            timer.cancel()
            watch.close()

    def await_line(self, line: str) -> None:
        """Block until that happens, or has happened."""
        seen = []
        for happening in self.happenings():
            seen.append(happening)
            if happening == line:
                return
        raise AssertionError(f"{line!r} did not come; {seen}")

    def _line(self, key: str, value: bytes) -> str:
        if key.startswith(self.keys.events):
            return describe(json.loads(value))
        if key.startswith(self.keys.flags):
            return f"flag {key[len(self.keys.flags) :]}"
        if key.startswith(self.keys.values):
            return f"set {key[len(self.keys.values) :]}"
        return ""

    def events(self) -> list[dict[str, Any]]:
        """All events of the node as etcd holds them."""
        start = f"{self.keys.events}n0/"
        return [json.loads(e.value) for e in self.store.range(start, start + "~").entries]

    def lines(self) -> list[str]:
        """All events of the node, a line each; but not those of values, which come from threads of their own."""
        return [describe(event) for event in self.events() if event["event"] != "value_set"]

    def go(self, plan: Plan, files: bytes = b"") -> list[str]:
        """Start an agent, wait for its end, and give its events."""
        answer = self.start(plan, files)
        assert answer["ok"], answer
        self.await_end()
        return self.lines()

    def output(self, step: str) -> str:
        """What a step wrote, output and errors."""
        logs = Path(self.workspace.logs)
        return (logs / f"{step}.out").read_text() + (logs / f"{step}.err").read_text()

    def log(self) -> str:
        """What the agent says of itself."""
        return Path(self.workspace.log).read_text()

    def left(self) -> list[process.Process]:
        """Processes of the run that live."""
        return process.find((), run_marks(self.run, "n0"))

    def close(self) -> None:
        """Kill what lives and delete everything."""
        if not wait_free(self.workspace, 0):
            os.kill(read_pid(self.workspace) or 0, 9)
            assert wait_free(self.workspace, LIMIT)
        process.stop(self.left, 0)
        self.scope.close()
        self.store.close()
        shutil.rmtree(self.root, ignore_errors=True)


def parse(stdout: bytes) -> tuple[dict[str, Any], bytes]:
    """The answer in what a command printed, and what follows it."""
    before, found, after = stdout.partition(MARK.encode())
    assert found, stdout
    assert before == b"\n"
    line, _, rest = after.partition(b"\n")
    return json.loads(line), rest


def step(target: str, name: str, script: str, configuration: str = "a", kind: str = RUN, **more: Any) -> PlannedStep:
    """A step of a plan."""
    return PlannedStep(target, configuration, name, kind, script, **more)


def describe(event: dict[str, Any]) -> str:
    """An event in one line, without what differs from time to time."""
    kind = event["event"]
    if "step" in event:
        where = f"{kind} {event['configuration']}.{event['target']}.{event['step']}"
        return where if kind != "step_ended" else f"{where} {event['verdict']} {event['exit_code']}"
    shown: dict[str, Callable[[], object]] = {
        "node_ended": lambda: event["verdict"],
        "wait_started": lambda: " ".join([event["what"], *event["names"]]),
        "wait_ended": lambda: event["outcome"],
        "processes_stopped": lambda: " ".join(sorted(p["signal"] for p in event["processes"])),
        "notice": lambda: event["message"],
    }
    return f"{kind} {shown[kind]()}" if kind in shown else kind


def tarball(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    """A tar.gz of these members."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as packed:
        for member, data in members:
            member.size = len(data)
            packed.addfile(member, io.BytesIO(data))
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    """A member of a tar."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info
