"""How long a line takes from a step to whoever peeks, and how many bytes come in a second; ``ssh tail -F`` beside it.

Every host of a practice lab has one chatty node. The hosts share this machine's clock, so that a line's own time tells
how long it took.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from testbed.lab.practice import Lab

LINES, PAUSE = 200, 0.05
"""Lines that each node writes, and the seconds between two."""

HOSTS = 20

MEBIBYTES = 100

CHATTY = f"""
deployment: chatty
timeout: 10m
stall: off
configurations:
  talker:
    test: |
      testbed get -b go
      exec python3 -u -c 'import time
      for n in range({LINES}):
          print("line %d at" % n, time.time()); time.sleep({PAUSE})'
    publish: testbed get -b leave
nodes:
  n: {{configurations: [talker], count: COUNT}}
"""

MUCH = f"""
deployment: much
timeout: 10m
stall: off
configurations:
  talker:
    init: |
      python3 -c 'for n in range({MEBIBYTES * 1024 * 1024 // 80}):
          print("2026-11-21T02:31:%02d.%06d INFO worker-%d handled request %08d in 0.%04d s" % (
              n % 60, n * 7919 % 1000000, n % 17, n, n * 31 % 10000))' >"$TESTBED_WORKSPACE/text"
      head -c {MEBIBYTES * 1024 * 1024} /dev/urandom >"$TESTBED_WORKSPACE/random"
    deploy: cat text
    test: cat random
    publish: testbed get -b leave
nodes:
  n: {{configurations: [talker]}}
"""


class Run:
    """A run on the lab, until `leave`."""

    def __init__(self, folder: Path, spec: str, lab: Lab, nodes: int) -> None:
        path = folder / "deployment.yml"
        path.write_text(spec.replace("COUNT", str(nodes)))
        self.environment = {**os.environ, "TESTBED_STATE_HOME": str(folder / "state")}
        command = [sys.executable, "-m", "testbed", "run", str(path), "-i", str(lab.inventory)]
        self.process = subprocess.Popen(
            command, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )

    def await_lines(self, text: str, count: int) -> None:
        """Block until the run has said so as often."""
        for line in self.process.stderr or ():
            count -= text in line
            if not count:
                return
        raise RuntimeError(f"the run ended without {text!r}")

    def logs(self) -> list[tuple[str, str]]:
        """The address of each node's machine, and the folder of its logs there."""
        (path,) = (Path(self.environment["TESTBED_STATE_HOME"]) / "runs").iterdir()
        told = [json.loads(line) for line in (path / "events.jsonl").read_text().splitlines()]
        addresses = {e["node"]: e["address"] for e in told if e["event"] == "node_planned"}
        return [(addresses[e["node"]], f"{e['workspace']}/.testbed/logs") for e in told if e["event"] == "node_started"]

    def command(self, *words: str) -> list[str]:
        """A command about the run."""
        return [sys.executable, "-m", "testbed", *words]

    def set(self, key: str) -> None:
        """Set a value."""
        subprocess.run(self.command("set", key, "1"), env=self.environment, check=True)

    def leave(self) -> None:
        """Let it end."""
        self.set("leave")
        for _ in self.process.stderr or ():
            pass
        if self.process.wait():
            raise RuntimeError(f"the run ended with {self.process.returncode}")


def delays(
    commands: Sequence[Sequence[str]], environment: dict[str, str], started: threading.Barrier, lines: int
) -> list[float]:
    """Seconds from each line's own time to its arrival, over the first ``lines`` that each of the commands prints."""
    found: list[float] = []

    def read(command: Sequence[str]) -> None:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        started.wait()
        assert process.stdout is not None
        left = lines
        for line in process.stdout:
            now = time.time()
            if b" at " in line:
                found.append(now - float(line.rsplit(b" ", 1)[1]))
                left -= 1
            if not left:
                break
        process.terminate()
        process.wait()

    threads = [threading.Thread(target=read, args=(command,)) for command in commands]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def peeking(lab: Lab, folder: Path) -> dict[str, Any]:
    """``latency`` in milliseconds and ``throughput`` in MB/s, each of both ways."""
    found: dict[str, Any] = {}
    for name, measure in (("throughput", throughput), ("latency", latency)):
        place = folder / name
        place.mkdir(parents=True)
        found[name] = measure(lab, place)
    return found


def latency(lab: Lab, folder: Path) -> dict[str, object]:
    """Both ways at the same time over the same lines."""
    hosts = lab.hosts
    run = Run(folder, CHATTY, lab, len(hosts))
    run.await_lines("waits: get go", len(hosts))
    ssh = [
        [*_ssh(lab), f"root@{address}", f"tail -n +1 -F {folder}/talker.test.main.out"]
        for address, folder in run.logs()
    ]
    peek = [run.command("peek", "last", "--step", "test.main", "--from-start")]
    started = threading.Barrier(len(ssh) + len(peek) + 1)
    results: dict[str, list[float]] = {}

    def read(name: str, commands: Sequence[Sequence[str]]) -> None:
        results[name] = delays(commands, run.environment, started, LINES * len(hosts) // len(commands))

    readers = [threading.Thread(target=read, args=way) for way in (("peek", peek), ("ssh tail -F", ssh))]
    for reader in readers:
        reader.start()
    started.wait()
    time.sleep(5)  # until all of them listen; what comes before would measure their start
    run.set("go")
    for reader in readers:
        reader.join()
    run.leave()
    return {name: _spread(found, LINES * len(hosts)) for name, found in results.items()}


def throughput(lab: Lab, folder: Path) -> dict[str, float]:
    """Megabytes per second of a log that is there already, to one client; text and random bytes."""
    run = Run(folder, MUCH, lab, 1)
    run.await_lines("talker.publish.main started", 1)
    found = {}
    ((address, logs),) = run.logs()
    for what, step in (("text", "deploy"), ("random", "test")):
        size = MEBIBYTES * 1024 * 1024
        words = ("--step", f"{step}.main", "--from-start", "--stdout", "-f", "/dev/null")
        ways = {
            "peek": run.command("peek", "last", *words),
            "ssh": [*_ssh(lab), f"root@{address}", f"cat {logs}/talker.{step}.main.out"],
        }
        for name, command in ways.items():
            began = time.monotonic()
            subprocess.run(
                command, env=run.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True
            )
            found[f"{name}, {what}"] = round(size / 1e6 / (time.monotonic() - began), 1)
    run.leave()
    return found


def _ssh(lab: Lab) -> list[str]:
    known = f"-o UserKnownHostsFile={lab.directory}/known_hosts -o BatchMode=yes"
    options = f"-F none -i {lab.directory}/id_ed25519 {known}"
    return ["ssh", *shlex.split(options)]


def _spread(found: list[float], expected: int) -> dict[str, float]:
    ordered = sorted(found)
    at = {name: round(ordered[int(len(ordered) * part)] * 1000, 1) for name, part in (("p50", 0.5), ("p99", 0.99))}
    return {**at, "max": round(ordered[-1] * 1000, 1), "lines": len(found), "expected": expected}
