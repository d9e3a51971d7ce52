"""The wait-for graph of a stalled run in lines: who waits for what, since when, who could bring it (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from testbed.compile.flow import FLAG, KEY, SERVICE, TOPIC, Flow
from testbed.events import FINALISE
from testbed.run.stall import Facts, Member, Wait, barrier_of, holder, is_through, missing
from testbed.spec.model import ALL

MOST = 12
"""Lines of a graph; what is more is counted."""

_NAMES = 5  # names in a sentence


def graph(members: Sequence[Member], facts: Facts, flow: Flow | None, now: float) -> list[str]:
    """A line for each thing that is waited for, those first that hold up the test itself.

    ``flow`` tells who could set what, where it is known; ``now`` is the monotonic time to count from.
    """
    groups: dict[tuple[object, ...], list[tuple[Member, Wait]]] = {}
    for member in members:
        for wait in member.waits if not member.gone else ():
            key = (wait.what, wait.names, repr(sorted(wait.details.items(), key=str)))
            groups.setdefault(key, []).append((member, wait))
    ordered = sorted(groups.values(), key=lambda g: (g[0][1].what == FINALISE, min(w.heard for _, w in g)))
    lines = [_line(group, members, facts, flow, now) for group in ordered[:MOST]]
    left = len(ordered) - len(lines)
    return [*lines, f"... and {left} more"] if left > 0 else lines


def headline(members: Sequence[Member]) -> str:
    """The stall in a sentence."""
    living = sum(not m.gone for m in members)
    if living == 1:
        name = next(m.name for m in members if not m.gone)
        return f"the run is stalled: {name}, the only node left, waits for what nobody brings"
    return f"the run is stalled: all {living} nodes wait, and none of them can go on without another"


def _line(
    group: Sequence[tuple[Member, Wait]], members: Sequence[Member], facts: Facts, flow: Flow | None, now: float
) -> str:
    names = [member.name for member, _ in group]
    wait = group[0][1]
    since = max(0.0, now - min(w.heard for _, w in group))
    verb = "waits" if len(names) == 1 else "wait"
    return (
        f"{listed(names)} {verb} since {since:.0f} s for {_what(wait, facts)}{_why(wait, names, members, facts, flow)}"
    )


def _what(wait: Wait, facts: Facts) -> str:
    name = wait.names[0] if wait.names else "?"
    match wait.what:
        case "get":
            mode = wait.details.get("mode")
            wanted = [n for n in wait.names if mode != "all" or n not in facts.values]
            if mode == "value":
                now = facts.values.get(name)
                told = "is not set" if now is None else f"is {now[:40].decode('utf-8', 'replace')!r}"
                return f"the value {name!r} to be {str(wait.details.get('value'))[:40]!r} (it {told})"
            if len(wanted) == 1:
                return f"the value {wanted[0]!r}"
            return f"{'one' if mode == 'any' else 'all'} of the values {listed(map(repr, wanted))}"
        case "barrier":
            return f"the barrier {name!r}"
        case "lock":
            return f"the lock {name!r}"
        case "subscribe":
            return f"messages of {name!r}"
        case "service":
            return f"the service {name!r}"
    return "the end of the run" if name == FINALISE else f"the flag {name!r}"


def _why(wait: Wait, names: Sequence[str], members: Sequence[Member], facts: Facts, flow: Flow | None) -> str:
    """Who could end the wait, and why they do not."""
    match wait.what:
        case "get" if flow is not None:
            wanted = [n for n in wait.names if n not in facts.values] or list(wait.names)
            return _setters({s: None for n in wanted for s in flow.setters(KEY, (n,))}, names, members, "set it")
        case "subscribe" if flow is not None:
            return _setters(flow.setters(TOPIC, (wait.names[0],)), names, members, "publish some")
        case "service" if flow is not None:
            return _setters(flow.setters(SERVICE, (wait.names[0],)), names, members, "offer it")
        case "barrier" if wait.details.get("count"):
            return f"; {len(facts.arrived.get(barrier_of(wait), ()))} of {wait.details['count']} are there"
        case "barrier":
            return f"; missing: {_states(missing(wait, members, facts), members)}"
        case "lock":
            return f"; it is held by {_states([holder(wait.names[0], members, facts)], members)}"
        case "wait" | "finalise" if wait.names[0] == FINALISE:
            return _ending(members, facts, flow)
    return ""


def _setters(setters: Iterable[str], names: Sequence[str], members: Sequence[Member], what: str) -> str:
    found = list(setters)
    if not found:
        return f"; nothing in the spec could {what}"
    if found == list(names) and len(found) == 1:
        return f"; only {found[0]} itself could {what}"
    return f"; who could {what}: {_states(found, members)}"


def _ending(members: Sequence[Member], facts: Facts, flow: Flow | None) -> str:
    if facts.ending == ALL:
        others = [m.name for m in members if not m.gone and not is_through(m)]
        return f", which comes when every node has published; missing: {_states(others, members)}"
    raising = [facts.ending, *(flow.setters(FLAG, (FINALISE,)) if flow is not None else ())]
    return f", which comes from {_states(dict.fromkeys(raising), members)}"


def _states(names: Iterable[str], members: Sequence[Member]) -> str:
    """Names, each with what keeps the node from doing anything."""
    known = {m.name: m for m in members}
    told = []
    for name in names:
        member = known.get(name)
        if member is None:
            told.append(f"{name} (no node)")
        elif member.gone:
            told.append(f"{name} ({member.gone})")
        else:
            told.append(f"{name} ({'is through' if is_through(member) else 'waits itself'})")
    return listed(told)


def listed(names: Iterable[str]) -> str:
    """Some names in a sentence."""
    found = list(names)
    if len(found) <= _NAMES:
        return " and ".join([", ".join(found[:-1]), found[-1]] if len(found) > 1 else found)
    return f"{', '.join(found[: _NAMES - 1])} and {len(found) - _NAMES + 1} more"
