"""How the operator's screen bears a large run: keys answered while it replays, and memory.

``python -m benchmarks.screen [NODES] [SPEED]``: replays a made-up run of so many nodes (default 1000, over 60 events
each) so many times as fast as it was (default 10) on each screen, presses a key every 50 ms, and prints how long
it took to act. On a busy machine look at ``cpu``: the processor time of the whole process from key to reaction.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from textual.events import Key

from testbed.run.directory import RunDirectory
from testbed_tui.app import TestbedApp
from testbed_tui.attach import Attachment
from testbed_tui.sources import Replay
from testbed_tui.widgets.gantt import Gantt
from testbed_tui.widgets.logview import LogView
from testbed_tui.widgets.table import Table
from tests.tui.recording import write

SCREENS = {"2": (Table, "cursor", "down"), "3": (LogView, "follow", "f"), "4": (Gantt, "cursor", "down"),
           "6": (Table, "cursor", "down")}  # fmt: skip
"""Of each screen by its key: what obeys which key, and by what it shows that it did."""


async def measure(nodes: int, speed: float, screen: str) -> dict[str, object]:
    """Replay, press keys, and tell; times in milliseconds, memory in MB."""
    kind, sign, key = SCREENS[screen]
    with tempfile.TemporaryDirectory() as scratch:
        directory = RunDirectory(Path(scratch))
        events = write(directory.events, nodes)
        app = TestbedApp(Attachment("benchmark", directory, replay=Replay(directory.read_events(), speed)))
        delays: list[float] = []
        costs: list[float] = []
        began = time.perf_counter()
        async with app.run_test(size=(120, 40)) as pilot:
            await pilot.press(screen)
            while not app.picture.over:
                await asyncio.sleep(0.05)
                if len(app.picture.nodes) < nodes:
                    continue
                target = app.screen.query(kind).first()
                before = getattr(target, sign)
                pressed, worked = time.perf_counter(), time.process_time()
                app.post_message(Key(key, key if len(key) == 1 else None))
                while getattr(target, sign) == before:
                    await asyncio.sleep(0)
                delays.append((time.perf_counter() - pressed) * 1000)
                costs.append((time.process_time() - worked) * 1000)
            name = app.current_mode
        took = time.perf_counter() - began
    delays.sort()
    costs.sort()
    return {
        "screen": name, "nodes": nodes, "events": events, "speed": speed, "seconds": round(took, 1),
        "keys": len(delays), "p50_ms": round(statistics.median(delays), 1),
        "p99_ms": round(delays[int(len(delays) * 0.99) - 1], 1), "max_ms": round(delays[-1], 1),
        "cpu_p99_ms": round(costs[int(len(costs) * 0.99) - 1], 1), "cpu_max_ms": round(costs[-1], 1),
        "peak_mb": _peak(),
    }  # fmt: skip


def _peak() -> int:
    """The most memory that this process had, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) // 1024


def main() -> None:
    """Measure and print as JSON, a line for each screen."""
    nodes = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    speed = float(sys.argv[2]) if len(sys.argv) > 2 else 10.0
    for screen in SCREENS:
        sys.stdout.write(json.dumps(asyncio.run(measure(nodes, speed, screen))) + "\n")


if __name__ == "__main__":
    main()
