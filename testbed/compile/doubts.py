"""What can hardly go well: waits that nobody ends, barriers somebody misses, circles, templates in scripts (pure)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from testbed.compile.circles import circles
from testbed.compile.flow import BARRIER, CALLS, FLAG, KEY, SERVICE, TOPIC, WAITS, Flow, Meeting, Use, names_of
from testbed.compile.unfilled import unfilled
from testbed.diagnostics import Diagnostic
from testbed.spec.model import Deployment
from testbed.spec.shell import Hole, Mention

_TELL = "if a program sets it, say so in a comment of the script: # testbed: sets"
_BRINGS = {KEY: "sets", TOPIC: "publishes to", SERVICE: "offers"}
_MOST = 3


def doubts(flow: Flow) -> list[Diagnostic]:
    """Every doubt as a warning at the line of the command, in the order of the file."""
    found = [*_unset(flow), *_missed(flow), *circles(flow), *unfilled(flow.deployment)]
    return sorted(dict.fromkeys(found), key=lambda d: (d.span is None, d.span))


def _unset(flow: Flow) -> Iterable[Diagnostic]:
    """Waits for what nobody sets."""
    waits: dict[Use, list[Meeting]] = {}
    for meeting in flow.meetings:
        use = meeting.use
        if use.does != WAITS or use.kind == FLAG or use.origin is None:
            continue
        unset = [name for name in meeting.names if not flow.setters(use.kind, name)]
        if unset and (not use.any_of or len(unset) == len(meeting.names)):
            waits.setdefault(use, []).append(Meeting(use, meeting.node, tuple(unset)))
    for use, meetings in waits.items():
        names = list(dict.fromkeys(name for m in meetings for name in m.names))
        known = flow.known_names(use.kind)
        near = difflib.get_close_matches(str(names[0][0] or ""), known, n=1, cutoff=0.7) if len(known) < 500 else []
        if near:
            help_ = f"did you mean '{near[0]}'?"
        elif use.kind == KEY:
            help_ = f"{_TELL} {names_of(names[:1])[1:-1]}"
        elif use.kind == TOPIC:
            help_ = "a node has to `testbed publish` to it"
        else:
            help_ = "declare it under 'services', or a node has to `testbed service publish` it"
        which = names_of(names[:_MOST]) + (", ..." if len(names) > _MOST else "")
        told = "but none of these is ever set" if use.any_of and len(names) > 1 else f"which nobody {_BRINGS[use.kind]}"
        who = _nodes([m.node.name for m in meetings])
        message = f"{who} {'waits' if len(meetings) == 1 else 'wait'} for the {use.kind} {which}, {told}"
        yield Diagnostic(message, use.origin, "warning", help=help_)


def _missed(flow: Flow) -> Iterable[Diagnostic]:
    """Barriers that some of those for whom they wait never call."""
    for meeting in flow.meetings:
        use = meeting.use
        if use.does != CALLS or use.origin is None or use.mention is None:
            continue
        callers = flow.setters(BARRIER, meeting.names[0])
        wanted = _participants(use.mention, flow.deployment)
        if wanted is None:
            continue
        if isinstance(wanted, int):
            if len(callers) >= wanted:
                continue
            message = f"waits for {wanted} nodes, but only {_nodes(callers)} ever {_calls(callers)} it"
        else:
            missing = [name for name in wanted if name not in callers]
            if not missing:
                continue
            whom = "all nodes" if len(wanted) == len(flow.deployment.nodes) else _nodes(wanted)
            message = f"waits for {whom}, but {_nodes(missing)} never {_calls(missing)} it"
        yield Diagnostic(
            f"the barrier {names_of(meeting.names)} {message}",
            use.origin,
            "warning",
            help="name those who take part: --nodes a,b or --role CONFIGURATION or --count N; if a program calls it,"
            " say so in a comment of the script: # testbed: barrier NAME",
        )


def _participants(mention: Mention, deployment: Deployment) -> Sequence[str] | int | None:
    """For whom a barrier waits: nodes by name, so many of them, or None where that can't be told."""
    if mention.told:
        return None
    for name, value in mention.options:
        said = "".join(v for v in value if isinstance(v, str))
        if any(isinstance(v, Hole) for v in value):
            return None
        match name:
            case "--nodes":
                return [n for n in said.replace(",", " ").split() if n]
            case "--role":
                return [n.name for n in deployment.nodes if said in n.configurations]
            case "--count":
                return int(said) if said.isascii() and said.isdigit() else None
    return [n.name for n in deployment.nodes]


def _nodes(names: Sequence[str]) -> str:
    """Some names in words."""
    if not names:
        return "nobody"
    if len(names) <= _MOST:
        return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    return f"{', '.join(names[: _MOST - 1])} and {len(names) - _MOST + 1} more"


def _calls(names: Sequence[str]) -> str:
    return "calls" if len(names) <= 1 else "call"
