"""What every node of the latency run does: ask its agent as the command `testbed` does, and note when answers come.

It keeps one process instead of starting one for every word: 200 starts at once are another thing to measure.
Arguments: how many rounds. Node 0 sets a key in each; all others sit in a blocked get for it.
"""

import json
import os
import socket
import sys
import time

PAUSE = 0.3  # seconds in which the gets of a round that are on their way come to wait


def ask(*words: str) -> None:
    """Have the node's agent do a word; raises SystemExit unless it succeeds."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect("agent.sock")
        request = b"%d 0\n" % len(words) + b"".join(b"%d\n%s" % (len(w), w.encode()) for w in words)
        connection.sendall(request)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    if not answer.endswith(b"x 0\n"):
        raise SystemExit(f"{' '.join(words)}: {answer!r}")


def main() -> None:
    """All rounds; the moments (CLOCK_MONOTONIC, seconds, one clock for the whole machine) go to the reports."""
    index, count = int(os.environ["TESTBED_INDEX"]), len(os.environ["TESTBED_NODES"].split())
    os.chdir(os.path.join(os.environ["TESTBED_WORKSPACE"], ".testbed"))
    moments = []
    for number in range(int(sys.argv[1])):
        if index:
            ask("set", f"ready.{number}.{index}", "yes")
            ask("get", "--block", f"go.{number}")
        else:
            for other in range(1, count):
                ask("get", "--block", f"ready.{number}.{other}")
            time.sleep(PAUSE)
            ask("set", f"go.{number}", "yes")
        moments.append(time.monotonic())
    with open(os.path.join(os.environ["TESTBED_REPORTS"], "moments.json"), "w") as file:
        json.dump(moments, file)


if __name__ == "__main__":
    main()
