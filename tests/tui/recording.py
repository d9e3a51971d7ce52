"""Makes a recorded run of any size: nodes that deploy, meet at barriers, wait for values, and finalise.

``python -m tests.tui.recording NODES FILE`` writes its events, one a line; about 60 a node.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

from testbed import events as ev
from testbed.events import Event

BEGAN = 1795228282.0
ROUNDS = 5


def recording(nodes: int, fails: int = 7, seed: int = 1) -> list[Event]:
    """The events of a run in which every ``fails``-hundredth node fails, in order of time."""
    chance = random.Random(seed)
    found: list[Event] = [
        ev.RunStarted(BEGAN, "", f"crowd-20261121-023122-{nodes:04x}", "crowd", "", 3600.0, "all", "0.1")
    ]
    names = [f"worker-{n}" for n in range(nodes)]
    targets = [["deploy", "worker", ["main"]], ["test", "worker", ["pre", "main", "post"]],
               ["publish", "worker", ["main"]], ["finalise", "worker", ["main"]]]  # fmt: skip
    for n, name in enumerate(names):
        machine, address = f"lab-{n}", f"10.{n // 65536}.{n // 256 % 256}.{n % 256}"
        found.append(ev.NodePlanned(BEGAN + 0.1, name, n, machine, address, ["worker"], targets))
    found.append(ev.BurstStarted(BEGAN + 0.2, "", 1, ev.START, names))
    lives = [e for n, name in enumerate(names) for e in _life(name, n, nodes, fails, chance)]
    found += sorted(lives, key=lambda e: e.at)
    end = found[-1].at
    found.append(ev.BurstEnded(BEGAN + 5.0, "", 1, ev.START, 4.8))
    found += [ev.ResultsCollected(end + 1.0, name, 2048, 7) for name in names]
    found.append(ev.RunEnded(end + 2.0, "", ev.FAILED if nodes >= fails * 100 else ev.PASSED,
                             1 if nodes >= fails * 100 else 0, "", end + 2.0 - BEGAN))  # fmt: skip
    return found


def _life(name: str, n: int, nodes: int, fails: int, chance: random.Random) -> Iterator[Event]:
    at = BEGAN + 1.0 + chance.random() * 3
    yield ev.NodeStarted(at, name, f"host-{n}", 4711, f"/root/.testbed/{name}", "3.11.2")
    bad = n % (fails * 100) == fails * 100 - 1
    for target, steps in (("deploy", ["main"]), ("test", ["pre", "main", "post"]), ("publish", ["main"]),
                          ("finalise", ["main"])):  # fmt: skip
        for step in steps:
            began, at = at, at + 0.01
            yield ev.StepStarted(at, name, "worker", target, step, 600.0)
            if step == "main" and target == "test":
                for number in range(ROUNDS * 3):
                    at += 0.01 + chance.random()
                    yield ev.ValueSet(at, name, f"done.{number}.{name}", 4)
                    yield ev.WaitStarted(at, name, number, "get", [f"done.{number}.worker-{(n + 1) % nodes}"], 60.0)
                    since, at = at, at + 0.01 + chance.random() * 2
                    yield ev.WaitEnded(at, name, number, "met", at - since)
            at += 0.1 + chance.random()
            verdict = ev.FAILED if bad and (target, step) == ("test", "post") else ev.PASSED
            code = 3 if verdict == ev.FAILED else 0
            yield ev.StepEnded(
                at, name, "worker", target, step, verdict, code, at - began, "exit code 3" if code else ""
            )
    yield ev.NodeEnded(at, name, ev.FAILED if bad else ev.PASSED, "worker.test.post: exit code 3" if bad else "")


def write(path: Path, nodes: int) -> int:
    """Write the recording; how many events it has."""
    found = recording(nodes)
    path.write_text("".join(ev.encode(e) + "\n" for e in found), "utf-8")
    return len(found)


if __name__ == "__main__":
    sys.stdout.write(f"{write(Path(sys.argv[2]), int(sys.argv[1]))} events\n")
