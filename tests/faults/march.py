"""What each of several nodes does to keep step with the others: march.py FOLDER ROUNDS [GATED ROUND ...].

In every round a node sets how far it is, meets the others, sees that nobody is elsewhere, takes a number, publishes a
message, and waits for the word of the first. In a gated round the last node comes to the barrier ``gate.ROUND`` only
when somebody opens the pipe of that name in FOLDER. What it was given is left in its reports.
"""

import os
import sys
from pathlib import Path

from testbed.coord import Scope


def keep_step(scope: Scope, me: str, others: "list[str]", number: int) -> int:
    """One round; the number that was taken in it."""
    scope.set(f"at.{me}", str(number), timeout=90)
    scope.barrier("step")
    for other in others:
        there = int(scope.get(f"at.{other}") or b"-1")
        assert number <= there <= number + 1, f"{me} is at {number}, {other} at {there}"
    taken = scope.next("turn")
    scope.publish("turns", f"{me} {number}", timeout=90)
    if me < min(others):
        scope.set(f"go.{number}")
    scope.wait(f"go.{number}")
    return taken


def main(folder: str, rounds: int, gates: "list[int]") -> None:
    """All rounds, then what came of them."""
    with Scope.here() as scope:
        names = [node["name"] for node in scope.nodes()]
        me = scope.whoami()["name"]
        others = [name for name in names if name != me]
        taken = []
        for number in range(rounds):
            if number in gates:
                if me == names[-1]:
                    Path(folder, f"gate.{number}").read_text()
                scope.barrier(f"gate.{number}")
            taken.append(keep_step(scope, me, others, number))
        messages = [m.decode() for m in scope.subscribe("turns", rounds * len(names))]
    reports = Path(os.environ["TESTBED_REPORTS"])
    (reports / "taken").write_text("".join(f"{t}\n" for t in taken))
    (reports / "messages").write_text("".join(f"{m}\n" for m in messages))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), [int(n) for n in sys.argv[3:]])
