"""Why a wait came to nothing: the others are asked what they do right now, and their answers become lines."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any, Dict, List, Optional, Sequence, Tuple

from testbed.coord.feed import Feed
from testbed.coord.keys import RunKeys, end_of
from testbed.coord.store import Change, Put, Span, Store, StoreError
from testbed.coord.waiting import Standing, newest
from testbed.events import UNREADABLE

ANSWER_PATIENCE = 1.5
"""Seconds that the others may take to say what they do."""

MOST = 5
"""How many of the others are asked and told of."""

_NO_AGENT = "no agent of it is alive: not started yet, dead, or played by hand"

_LINE = 160  # characters of a foreign text that are shown


def explain(store: Store, feed: Feed, keys: RunKeys, nodes: Sequence[str], me: str, standing: Standing) -> str:
    """Who has arrived, who is missing, and what each of these does right now, as lines after a sentence.

    Where nobody can tell who is missing, all other nodes are told of. Raises StoreError.
    """
    missing = [n for n in nodes if n != me] if standing.missing is None else list(standing.missing)
    text = f"; {standing.told}" if standing.told else ""
    if standing.arrived is not None:
        text += f"; arrived: {listed(standing.arrived) or 'nobody'}; missing: {listed(missing) or 'nobody'}"
    asked = [n for n in missing if n in nodes and n != me][:MOST]
    for node, line in _ask(store, feed, keys, asked).items():
        text += f"\n  {node}: {line}"
    left = len([n for n in missing if n in nodes and n != me]) - len(asked)
    return text + (f"\n  ... and {left} more" if left else "")


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names in a sentence, not too many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def harmless(text: object) -> str:
    """A foreign text on one line, without what a terminal would obey."""
    shown = "".join(c if c.isprintable() else " " for c in str(text)).strip()
    return shown if len(shown) <= _LINE else shown[: _LINE - 1] + "…"


def _ask(store: Store, feed: Feed, keys: RunKeys, nodes: Sequence[str]) -> Dict[str, str]:
    if not nodes:
        return {}
    question = os.urandom(8).hex()
    view: Dict[str, Tuple[bytes, int]] = {}
    wake = threading.Condition()
    unread = [3 * len(nodes)]

    def hearer() -> Any:
        first = [1]

        def changed(changes: Sequence[Change]) -> None:
            with wake:
                unread[0] -= first.pop() if first else 0
                newest(changes, view)
                wake.notify_all()

        return changed

    def failed(_: StoreError) -> None:
        with wake:
            unread[0] = -1
            wake.notify_all()

    def answers() -> Dict[str, Optional[str]]:
        return {n: _answer(keys, n, view, question) for n in nodes}

    spans = [(Span(key), hearer()) for n in nodes for key in (keys.doing(n), keys.alive(n), keys.gone + n)]
    followings = feed.follow_all(spans, failed, read=True)
    try:
        store.commit([Put(keys.asked(n), question.encode()) for n in nodes])
        deadline = time.monotonic() + ANSWER_PATIENCE
        with wake:
            wake.wait_for(
                lambda: unread[0] < 0 or (not unread[0] and None not in answers().values()),
                deadline - time.monotonic(),
            )
            found = answers()
    finally:
        for following in followings:
            following.close()
    for node in [n for n, line in found.items() if line == _NO_AGENT]:
        found[node] = _by_hand(store, keys, node) or _NO_AGENT
    return {n: line or f"has not answered within {ANSWER_PATIENCE:g} s" for n, line in found.items()}


def _by_hand(store: Store, keys: RunKeys, node: str) -> str:
    """What the commands wait for that somebody plays the node by; empty where none waits."""
    prefix, now = keys.waiting(node, ""), time.time()
    waits = [_read(entry.value) for entry in store.range(prefix, end_of(prefix)).entries]
    for wait in waits:
        since = wait.get("since")
        wait["for"] = max(0.0, now - since) if isinstance(since, (int, float)) else None
    return harmless_parts(["is played by hand", *_waits(waits)]) if waits else ""


def _answer(keys: RunKeys, node: str, view: Dict[str, Tuple[bytes, int]], question: str) -> Optional[str]:
    """What is known of a node; None where its answer is still to come."""
    if keys.gone + node in view:
        return harmless(read_gone(view[keys.gone + node][0])[0])
    if keys.doing(node) in view:
        told = _read(view[keys.doing(node)][0])
        if told.get("asked") == question:
            return _doing(told)
    if keys.alive(node) not in view:
        return _NO_AGENT
    return None


def read_gone(raw: bytes) -> Tuple[str, bool]:
    """Why a member takes part no more, and whether the others go on without it."""
    told = _read(raw)
    return str(told.get("why") or "is gone"), told.get("excused") is True


def _read(raw: bytes) -> Dict[str, Any]:
    try:
        return dict(json.loads(raw))
    except UNREADABLE:
        return {}


def _doing(told: Dict[str, Any]) -> str:
    """A node's answer in a line."""
    parts: List[str] = []
    if told.get("target"):
        since = _seconds(told.get("for"))
        parts.append(f"is in {told.get('configuration')}.{told['target']}.{told.get('step')} since {since}")
    else:
        parts.append("is between steps")
    parts += _waits(told.get("waits"))
    if told.get("line"):
        parts.append(f'its log ends with "{harmless(told["line"])}"')
    return harmless_parts(parts)


def _waits(waits: object) -> List[str]:
    """The first few waits, each in some words."""
    parts: List[str] = []
    for wait in waits[:3] if isinstance(waits, list) else []:
        if isinstance(wait, dict):
            names = wait.get("names")
            named = " ".join(str(n) for n in names[:5]) if isinstance(names, list) else ""
            parts.append(f"waits since {_seconds(wait.get('for'))}: {wait.get('what')} {named}")
    return parts


def harmless_parts(parts: Sequence[str]) -> str:
    """The parts of a line, each harmless."""
    return "; ".join(harmless(p) for p in parts)


def _seconds(told: object) -> str:
    return f"{told:.0f} s" if isinstance(told, (int, float)) and 0 <= told < 1e9 else "?"
