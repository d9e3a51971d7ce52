"""What the screens show, as a pure fold: events and key changes in, frozen pictures out.

`Board` builds on `testbed.report.state.Fold` and adds what only a screen needs: lanes of a timeline, values, barriers,
who released whom. A `Picture` shares with the one before it whatever did not change, so making one costs what changed.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace

from testbed import events as ev
from testbed.coord.keys import unquote
from testbed.report import state as st
from testbed.report.harmless import harmless_line
from testbed.report.state import Fold, NodeState, RunState, StepKey, StepState
from testbed.report.verdict import Judgement, judge
from testbed_tui.views import (
    BARRIER,
    VALUE,
    WAITING,
    Bar,
    Barrier,
    KeyChange,
    NodeView,
    Picture,
    Release,
    StepView,
    Value,
    Waiting,
    wait_label,
)

_OF_A_BARRIER = re.compile("(?P<name>[^/]*)/(?P<generation>[0-9]{8})/(?P<rest>.+)", re.DOTALL)
"""What of a barrier's keys follows their prefix, as `RunKeys.generation` writes it."""

SHOWN = 240
"""How much of a value is shown, in characters."""


class Board:
    """Folds events and key changes; `picture` gives the run as it is."""

    def __init__(self) -> None:
        self._fold = Fold()
        self._bars: dict[str, list[Bar]] = {}
        self._open: dict[tuple[str, object], int] = {}
        self._reach: dict[str, tuple[float, float, int]] = {}  # a lane's begin, its last end, how many bars are open
        self._waits: dict[tuple[str, int], ev.WaitStarted] = {}
        self._setters: dict[str, tuple[str, float]] = {}
        self._values: dict[str, Value] = {}
        self._arrivals: dict[tuple[str, int], dict[str, bool]] = {}
        self._visits: dict[tuple[str, str], int] = {}
        self._opened: set[tuple[str, int]] = set()
        self._meetings: dict[str, tuple[str, ...] | int] = {}  # who meets at a barrier, where not all nodes do
        self._releases: list[Release] = []
        self._unknown: dict[str, list[int]] = {}  # releases by a key whose setter has not spoken yet
        self._passed: dict[tuple[str, int], list[int]] = {}  # releases by each use of a barrier
        self._by_itself: set[int] = set()  # those of who came last to a barrier: it waited for nobody
        self._dirty: set[str] = set()
        self._views: dict[str, NodeView] = {}
        self._machines: dict[str, str] = {}
        self._done = self._planned = 0
        self._judged: tuple[object, ...] = ()
        self._judgement: Judgement | None = None

    @property
    def state(self) -> RunState:
        """The state below the pictures; changes with the next event."""
        return self._fold.state

    def add(self, event: ev.Event) -> None:
        """Take the next event of the stream."""
        self._fold.add(event)
        if event.node:
            self._dirty.add(event.node)
        match event:
            case ev.NodePlanned():
                self._planned += sum(len(steps) for _, _, steps in self.state.nodes[event.node].targets)
            case ev.BurstStarted(phase=ev.START):
                self._dirty.update(event.nodes)
            case ev.StepStarted():
                self._begin(event.node, _key(event), Bar("step", str(_key(event)), event.at))
            case ev.StepEnded():
                self._done += 1
                self._finish(event.node, _key(event), event.at, event.verdict)
            case ev.WaitStarted():
                self._wait_started(event)
            case ev.WaitEnded():
                self._wait_ended(event)
            case ev.ValueSet():
                self._value_set(event)
            case ev.MachineFailed():
                self._machines[event.machine] = harmless_line(f"{event.cause}: {event.reason}")
            case ev.NodeEnded() | ev.NodeLost():
                self._close_lane(event)

    def change(self, change: KeyChange) -> None:
        """Take the next change of a key."""
        if change.place == VALUE:
            self._change_value(change)
        elif change.place == BARRIER:
            self._change_barrier(change)
        elif change.place == WAITING and change.value is not None:
            self._change_meeting(change.value)

    def picture(self) -> Picture:
        """The run as it is now."""
        state = self.state
        for name in self._dirty:
            if name in state.nodes:
                self._views[name] = self._view(state.nodes[name])
        self._dirty.clear()
        nodes = tuple(sorted(self._views.values(), key=lambda n: (n.index < 0, n.index, n.name)))
        present = {target for node in nodes for target in node.cells}
        return Picture(
            run=state.run, deployment=state.deployment, description=harmless_line(state.description),
            verdict=state.verdict, exit_code=state.exit_code, reason=harmless_line(state.reason),
            started_at=state.started_at, last_at=state.last_at, ended_at=state.ended_at, duration=state.duration,
            timeout=state.timeout,
            nodes=nodes, targets=tuple(t for t in ev.STAGES if t in present),
            steps_done=self._done, steps_planned=self._planned,
            flags=dict(state.flags), judgement=self._judge(), values=dict(self._values), barriers=self._barriers(nodes),
            releases=tuple(r for n, r in enumerate(self._releases) if n not in self._by_itself),
            bursts=tuple(_burst(b) for b in state.bursts.values()),
            notices=tuple(harmless_line(n.message) for n in state.notices[-5:] if n.level == "warning"),
            machine_errors=dict(self._machines), events=state.events,
        )  # fmt: skip

    # --- lanes --------------------------------------------------------------------------------------------------

    def _begin(self, node: str, key: object, bar: Bar) -> None:
        lane = self._bars.setdefault(node, [])
        if (node, key) in self._open:  # a node that repeats itself
            self._finish(node, key, bar.start, "")
        self._open[node, key] = len(lane)
        lane.append(bar)
        first, last, count = self._reach.get(node, (bar.start, bar.start, 0))
        self._reach[node] = min(first, bar.start), last, count + 1

    def _finish(self, node: str, key: object, at: float, verdict: str) -> None:
        number = self._open.pop((node, key), None)
        if number is not None:
            lane = self._bars[node]
            lane[number] = bar = replace(lane[number], end=max(at, lane[number].start), verdict=verdict)
            first, last, count = self._reach[node]
            self._reach[node] = first, max(last, bar.end or last), count - 1

    def _close_lane(self, event: ev.NodeEnded | ev.NodeLost) -> None:
        """Whatever was open has no other end than the node's."""
        word = event.verdict if isinstance(event, ev.NodeEnded) else st.LOST
        for node, key in [k for k in self._open if k[0] == event.node]:
            self._finish(node, key, event.at, word)

    # --- waits --------------------------------------------------------------------------------------------------

    def _wait_started(self, event: ev.WaitStarted) -> None:
        label = wait_label(event.what, event.names)
        self._begin(event.node, event.wait, Bar("wait", label, event.at))
        self._waits[event.node, event.wait] = event
        if event.what == "barrier" and event.names:
            visit = self._visits.get((event.names[0], event.node), -1) + 1
            self._visits[event.names[0], event.node] = visit
            self._arrivals.setdefault((event.names[0], visit), {}).setdefault(event.node, True)
            for number in self._passed.get((event.names[0], visit), ()):  # who was let go spoke before who came last
                self._releases[number] = replace(self._releases[number], by=event.node)
                self._by_itself.discard(number)

    def _wait_ended(self, event: ev.WaitEnded) -> None:
        self._finish(event.node, event.wait, event.at, event.outcome)
        wait = self._waits.pop((event.node, event.wait), None)
        if wait is not None and wait.what == "barrier" and wait.names and event.outcome != "met":
            self._withdraw(wait)
        if wait is None or event.outcome not in ("met", "aborted"):
            return
        label = wait_label(wait.what, wait.names)
        if event.outcome == "aborted":
            flag = self.state.flags.get(ev.ABORT)
            by = str(flag.cause.get("node") or flag.by) if flag is not None else ""
            self._releases.append(Release(event.node, harmless_line(by, 63), f"{label} (abort)", event.at, wait.at))
            return
        by = self._releaser(wait)
        if wait.what == "barrier" and wait.names:
            visit = self._visits.get((wait.names[0], wait.node), 0)
            self._passed.setdefault((wait.names[0], visit), []).append(len(self._releases))
            if by == event.node:
                self._by_itself.add(len(self._releases))
        if not by and wait.what == "get":
            for name in wait.names:
                self._unknown.setdefault(name, []).append(len(self._releases))
        self._releases.append(Release(event.node, by, label, event.at, wait.at))

    def _releaser(self, wait: ev.WaitStarted) -> str:
        """The node that let a wait go: who set a value last, who came last to a barrier, who raised the flag."""
        if wait.what in ("wait", ev.FINALISE):
            flag = self.state.flags.get(wait.names[0] if wait.names else "")
            return flag.by if flag is not None else ""
        if wait.what == "barrier" and wait.names:
            visit = self._visits.get((wait.names[0], wait.node), 0)
            return next(reversed(self._arrivals.get((wait.names[0], visit), {})), "")
        setters = [self._setters[n] for n in wait.names if n in self._setters]
        if setters:
            return max(setters, key=lambda s: s[1])[0]
        return next((n for name in wait.names if (n := self._host(name))), "")

    def _host(self, key: str) -> str:
        """The node that writes ``host_<index>`` when it starts."""
        return next((n.name for n in self.state.nodes.values() if key == f"host_{n.index}"), "")

    # --- values -------------------------------------------------------------------------------------------------

    def _value_set(self, event: ev.ValueSet) -> None:
        self._setters[event.key] = (event.node, event.at)
        for number in self._unknown.pop(event.key, ()):  # the waiter spoke before the setter
            self._releases[number] = replace(self._releases[number], by=event.node)
        known = self._values.get(event.key)
        if known is None:
            self._values[event.key] = Value("", event.size, 0, 1, event.at, event.node)
        elif known.revision == 0:
            self._values[event.key] = replace(
                known, size=event.size, changes=known.changes + 1, at=event.at, by=event.node
            )
        else:
            self._values[event.key] = replace(known, by=event.node, at=known.at or event.at)

    def _change_value(self, change: KeyChange) -> None:
        if change.value is None:
            self._values.pop(change.name, None)
            return
        known = self._values.get(change.name)
        setter, told_at = self._setters.get(change.name, (self._host(change.name), 0.0))
        self._values[change.name] = Value(
            harmless_line(change.value[: SHOWN * 4].decode("utf-8", "replace"), SHOWN),
            len(change.value),
            change.revision,
            known.changes + (known.revision > 0) if known else 1,
            change.at or (known.at if known else told_at),
            setter,
        )

    # --- barriers -----------------------------------------------------------------------------------------------

    def _change_barrier(self, change: KeyChange) -> None:
        """``NAME/GENERATION/MEMBER`` is an arrival, ``NAME/GENERATION/-/open`` says that all passed."""
        found = _OF_A_BARRIER.fullmatch(change.name)
        if found is None:
            return
        use, rest = (unquote(found["name"]), int(found["generation"])), found["rest"].split("/")
        if rest == ["-", "open"]:
            self._opened.add(use)
        elif len(rest) == 1 and change.value is None:
            self._arrivals.get(use, {}).pop(rest[0], None)
        elif len(rest) == 1:
            self._arrivals.setdefault(use, {})[rest[0]] = True

    def _change_meeting(self, raw: bytes) -> None:
        """What a node wrote when it blocked at a barrier: who is to meet there."""
        try:
            told = dict(json.loads(raw))
            name, count, members = str(told["names"][0]), told.get("count"), told.get("participants")
        except ev.UNREADABLE:
            return  # no wait that we know of
        if told.get("what") != "barrier":
            return
        if isinstance(count, int):
            self._meetings[name] = count
        elif isinstance(members, list):
            self._meetings[name] = tuple(harmless_line(str(m), 63) for m in members)

    def _withdraw(self, wait: ev.WaitStarted) -> None:
        """Who gave up has not arrived, and comes to the same use again."""
        visit = self._visits.get((wait.names[0], wait.node), 0)
        if (wait.names[0], visit) not in self._opened:
            self._arrivals.get((wait.names[0], visit), {}).pop(wait.node, None)
            self._visits[wait.names[0], wait.node] = visit - 1

    def _missing(self, use: tuple[str, int]) -> tuple[str, ...]:
        """Who has not come to that use of a barrier."""
        arrived = self._arrivals.get(use, {})
        members = self._meetings.get(use[0], tuple(self.state.nodes))
        if isinstance(members, int):
            left = members - len(arrived)
            return (f"any {left} more",) if left > 0 else ()
        return tuple(m for m in members if m not in arrived)

    def _barriers(self, nodes: tuple[NodeView, ...]) -> tuple[Barrier, ...]:
        waiting = {(n.name, w.names[0]) for n in nodes for w in n.waits if w.what == "barrier" and w.names}
        found = []
        for use, arrived in self._arrivals.items():
            name, generation = use
            held = use not in self._opened and any(
                (n, name) in waiting and self._visits.get((name, n), 0) == generation for n in arrived
            )
            if arrived:
                missing = self._missing(use) if held else ()
                found.append(Barrier(harmless_line(name, 60), generation, tuple(arrived), missing, not held))
        return tuple(found)

    # --- views --------------------------------------------------------------------------------------------------

    def _judge(self) -> Judgement | None:
        """The judgement, made anew when something that it hangs on has come; None while all goes well."""
        state = self.state
        if not (state.causes or ev.ABORT in state.flags or state.verdict):
            return None
        marks = (len(state.causes), len(state.flags), state.verdict, bool(state.verdict) and state.events)
        if marks != self._judged:
            self._judged, self._judgement = marks, judge(state)
        return self._judgement

    def _view(self, node: NodeState) -> NodeView:
        began, ended, count = self._reach.get(node.name, (None, None, 0))
        word = node.verdict or node.state
        if not node.verdict and node.failure is not None:
            word = ev.ERROR
        return NodeView(
            name=harmless_line(node.name, 63), index=node.index, machine=harmless_line(node.machine, 63),
            address=harmless_line(node.address, 63), host=harmless_line(node.host, 63),
            configurations=node.configurations, word=word,
            trouble=word in st.BAD or bool(node.lost) or node.failure is not None,
            doing=_doing(node), since=node.since,
            cells=_cells(node), waits=tuple(self._waiting(node, w) for w in node.waits.values()),
            steps=tuple(_step(s) for s in node.steps.values()), bars=tuple(self._bars.get(node.name, ())),
            began=began, ended=None if count else ended,
            results=node.results, reason=harmless_line(node.reason or node.lost or node.results_reason),
        )  # fmt: skip

    def _waiting(self, node: NodeState, wait: st.Wait) -> Waiting:
        who: tuple[str, ...] = ()
        if wait.what == "barrier" and wait.names:
            who = self._missing((wait.names[0], self._visits.get((wait.names[0], node.name), 0)))
        elif wait.what == "get":
            who = tuple(dict.fromkeys(n for name in wait.names if (n := self._host(name))))
        return Waiting(wait.what, wait.names, wait.since, wait.timeout, who)


def _burst(burst: st.Burst) -> Bar:
    end = None if burst.duration is None else burst.started_at + burst.duration
    return Bar("burst", f"ansible.{burst.phase}.{len(burst.nodes)}", burst.started_at, end)


def _key(event: ev.StepStarted | ev.StepEnded) -> StepKey:
    return StepKey(event.target, event.configuration, event.step)


def _step(step: StepState) -> StepView:
    return StepView(
        step.key, step.verdict, step.started_at, step.duration, step.timeout, step.exit_code,
        harmless_line(step.reason), harmless_line(step.task, 80),
    )  # fmt: skip


def _cells(node: NodeState) -> dict[str, str]:
    """The worst word of each target: a bad verdict, else what goes on, else how it ended, else planned."""
    cells: dict[str, str] = {target: st.PLANNED for target, _, _ in node.targets}
    left: dict[str, int] = {}
    for target, _, steps in node.targets:
        left[target] = left.get(target, 0) + len(steps)
    for key, step in node.steps.items():
        word = step.verdict or (st.WAITING if node.waits or node.wants else st.RUNNING)
        if step.verdict:
            left[key.target] = left.get(key.target, 1) - 1
        if _RANK.get(word, 0) > _RANK.get(cells.get(key.target, st.PLANNED), 0):
            cells[key.target] = word
    if not node.verdict:
        for target, count in left.items():
            if count > 0 and cells.get(target) in (ev.PASSED, ev.SKIPPED):
                cells[target] = st.RUNNING
    return cells


_RANK = {
    st.PLANNED: 0, ev.SKIPPED: 1, ev.PASSED: 2, st.RUNNING: 3, st.WAITING: 4, ev.CANCELLED: 5, ev.ABORTED: 6,
    ev.MISSING: 7, ev.TIMEOUT: 8, ev.ERROR: 9, ev.FAILED: 10,
}  # fmt: skip


def _doing(node: NodeState) -> str:
    """What the node is at: its step and what it waits for, or why it ended so."""
    if node.verdict or node.lost:
        return harmless_line(node.reason or node.lost or node.results_reason, 160)
    if node.failure is not None:
        return harmless_line(node.failure.reason, 160)
    words = [str(node.current.key)] if node.current else []
    if node.waits:
        words.append("waits for " + ", ".join(wait_label(w.what, w.names) for w in node.waits.values()))
    elif node.wants is not None:
        words.append(f"ansible: {node.current.task}" if node.current and node.current.task else "waits for ansible")
    return harmless_line(" ".join(words), 160)
