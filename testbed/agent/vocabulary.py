"""The words: each a function from `Asked` to `Reply`, and a line in `WORDS`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Dict, List, Optional, Tuple

from testbed.agent.word import NOT_SET, OK, Asked, Reply, Usage, Word, as_json, failed, line
from testbed.coord.scope import CONTROLLER, Wanted
from testbed.coord.values import ALL, ANY, VALUE
from testbed.events import ABORT, FINALISE

_TIMEOUT = (("-t", "timeout"),)


def _set(asked: Asked) -> Reply:
    key, value = asked.operands[0], asked.value(1)
    asked.bounded(lambda: asked.scope.set(key, value), f"the value {key!r}", "was not set")
    return Reply()


def _unset(asked: Asked) -> Reply:
    key = asked.operands[0]
    asked.bounded(lambda: asked.scope.unset(key), f"the value {key!r}", "was not removed")
    return Reply()


def _keys(asked: Asked) -> Reply:
    found = asked.scope.keys(asked.operands[0] if asked.operands else "")
    return Reply(out=as_json(found) if "json" in asked.options else b"".join(line(key.encode()) for key in found))


def _get(asked: Asked) -> Reply:
    wanted = _wanted(asked)
    timeout = asked.timeout()
    if timeout is not None and "block" not in asked.options:
        raise Usage("--timeout goes with --block")
    if "block" in asked.options:
        found = asked.scope.wait_for(wanted, timeout, asked.caller.cancelled)
    else:
        there = {key: asked.scope.get(key) for key in wanted.keys}
        among = wanted.among({key: value for key, value in there.items() if value is not None})
        if among is None:
            return failed(NOT_SET, "testbed get", _not_so(wanted, there))
        found = among
    if "raw" in asked.options:
        return _pieces(asked, [*(key.encode() for key in found if wanted.mode == ANY), *(found.values())])
    if wanted.mode == ANY:
        return Reply(out=b"".join(key.encode() + b" " + line(value) for key, value in found.items()))
    return Reply(out=b"".join(line(found[key]) for key in wanted.keys))


def _pieces(asked: Asked, pieces: List[bytes]) -> Reply:
    """The pieces as they are, told apart where the caller can."""
    if asked.caller.emit is None:
        return Reply(out=b"".join(pieces))
    for piece in pieces:
        asked.caller.emit(piece)
    return Reply()


def _wanted(asked: Asked) -> Wanted:
    modes = [mode for mode in (ANY, ALL, VALUE) if mode in asked.options]
    if len(modes) > 1:
        raise Usage(f"--{modes[0]} and --{modes[1]} do not go together")
    mode = modes[0] if modes else ALL
    if len(asked.operands) > 1 and (not modes or mode == VALUE):
        raise Usage(f"too many arguments: {asked.operands[1]!r}; several keys go with --any or --all")
    return Wanted(tuple(asked.operands), mode, asked.options.get(VALUE, "").encode("utf-8", "surrogateescape"))


def _not_so(wanted: Wanted, there: Dict[str, Optional[bytes]]) -> str:
    missing = [key for key, value in there.items() if value is None]
    if not missing:
        return f"{wanted.keys[0]} has another value"
    names = ", ".join(missing)
    return f"none of {names} is set" if wanted.mode == ANY and len(missing) > 1 else f"{names} is not set"


def _barrier(asked: Asked) -> Reply:
    given = [name for name in ("nodes", "role", "count") if name in asked.options]
    if len(given) > 1:
        raise Usage(f"--{given[0]} and --{given[1]} do not go together")
    scope = asked.scope
    names = [n for n in asked.options.get("nodes", "").split(",") if n]
    if "nodes" in asked.options:
        known = [peer.name for peer in scope.nodes]
        strange = next((n for n in names if n not in known and n != CONTROLLER), None)
        if strange is not None or not names:
            raise Usage(f"--nodes: there is no node {strange or ''!r}; the nodes are {', '.join(known)}")
    if "role" in asked.options:
        names = scope.nodes_with(asked.options["role"])
        if not names:
            raise Usage(f"--role: no node carries the configuration {asked.options['role']!r}")
    count = asked.number("count", 1, 100_000) or 0
    scope.barrier(asked.operands[0], names, count, asked.timeout(), asked.caller.cancelled)
    return Reply()


def _next(asked: Asked) -> Reply:
    name = asked.operands[0]
    return Reply(out=b"%d\n" % asked.bounded(lambda: asked.scope.next(name), f"a number of {name!r}", "was not drawn"))


def _lock(asked: Asked) -> Reply:
    name, *command = asked.operands
    if len(command) < 2 or command[0] != "--":
        raise Usage("say what to do while the lock is held: -- COMMAND")
    run = asked.caller.run_held
    if run is None:
        raise Usage("no command can be run here")
    with asked.scope.lock(name, asked.timeout(), asked.caller.cancelled) as held:
        code = run(command[1:], held.token)
    return Reply(code)


def _publish(asked: Asked) -> Reply:
    topic, message = asked.operands[0], asked.value(1)
    asked.bounded(lambda: asked.scope.publish(topic, message), f"a message of {topic!r}", "was not published")
    return Reply()


def _subscribe(asked: Asked) -> Reply:
    count = asked.number("count", 0, 999_999_999)
    emit = asked.caller.emit
    pieces: List[bytes] = []
    for message in asked.scope.subscribe(asked.operands[0], count, asked.timeout(), asked.caller.cancelled):
        shown = message if "raw" in asked.options else line(message)
        if emit is None:
            pieces.append(shown)
        else:
            emit(shown)
    return Reply(out=b"".join(pieces))


def _service(asked: Asked) -> Reply:
    what, name = asked.operands
    if what == "publish":
        _refuse(asked, "service publish", ("timeout", "all", "json"))
        asked.scope.publish_service(name, asked.number("port", 1, 65535), asked.options.get("host", ""))
        return Reply()
    if what != "discover":
        raise Usage(f"cannot {what!r} a service; only publish and discover")
    _refuse(asked, "service discover", ("port", "host"))
    found = asked.scope.discover(name, asked.timeout(), asked.caller.cancelled)
    if "all" not in asked.options:
        found = found[:1]
    if "json" in asked.options:
        told = [asdict(service) for service in found]
        return Reply(out=as_json(told if "all" in asked.options else told[0]))
    lines = [f"{s.host} {'-' if s.port is None else s.port} {s.node}\n" for s in found]
    return Reply(out="".join(lines).encode("utf-8", "backslashreplace"))


def _refuse(asked: Asked, what: str, options: Tuple[str, ...]) -> None:
    for option in options:
        if option in asked.options:
            raise Usage(f"--{option} does not go with {what}")


def _nodes(asked: Asked) -> Reply:
    role = asked.options.get("role")
    peers = [p for p in asked.scope.nodes if role is None or role in p.configurations]
    if "json" in asked.options:
        return Reply(out=as_json([asdict(peer) for peer in peers]))
    return Reply(out="".join(f"{peer.name}\n" for peer in peers).encode())


def _hosts(asked: Asked) -> Reply:
    if "json" in asked.options:
        return Reply(out=as_json({peer.name: peer.address for peer in asked.scope.nodes}))
    return Reply(out="".join(f"{peer.address} {peer.name}\n" for peer in asked.scope.nodes).encode())


def _whoami(asked: Asked) -> Reply:
    scope = asked.scope
    if "json" not in asked.options:
        return Reply(out=f"{scope.member}\n".encode())
    peer = scope.peer()
    return Reply(out=as_json({"run": scope.run, "name": scope.member, **(asdict(peer) if peer else {})}))


def _abort(asked: Asked) -> Reply:
    return _raise(asked, ABORT, asked.options.get("reason") or f"`testbed abort` on {asked.scope.by}")


def _finalise(asked: Asked) -> Reply:
    return _raise(asked, FINALISE, f"`testbed finalise` on {asked.scope.by}")


def _raise(asked: Asked, name: str, why: str) -> Reply:
    flag = asked.scope.raise_flag(name, why)
    if (flag.by, flag.why) == (asked.scope.by, why):
        return Reply()
    return failed(OK, f"testbed {name}", f"{flag.by} was first: {flag.why}")


def _wait(asked: Asked) -> Reply:
    (what,) = asked.operands
    if what != FINALISE:
        raise Usage(f"cannot wait for {what!r}; only for {FINALISE}")
    asked.scope.wait_flag(FINALISE, asked.timeout(), asked.caller.cancelled)
    return Reply()


_ENDS = "A wait ends with exit code 4 at its time-out, which says who is missing, and with 5 when the run is aborted.\n"
_AWAY = (
    "It waits while etcd is away, with --timeout no longer than that: then the exit code is 4, and it goes on being\n"
    "tried, so that it may be done later.\n"
)

WORDS: Dict[str, Word] = {
    "set": Word(
        "set [-t|--timeout TIME] KEY [VALUE|-]",
        "set a value for all nodes; `-` takes it from standard input",
        _set,
        (1, 2),
        "t:",
        ("timeout=",),
        _TIMEOUT,
        "A value is any bytes, at most 1 MiB; none is the empty one. What was set before is replaced.\n" + _AWAY,
        anywhere=False,
    ),
    "get": Word(
        "get [-b|--block [-t|--timeout TIME]] [--any|--all|--value V] KEY...",
        "print a value; with --block wait until it is set",
        _get,
        (1, -1),
        "bt:",
        ("block", "timeout=", "any", "all", "value=", "raw"),
        (("-b", "block"), *_TIMEOUT),
        "Prints the value's bytes, and a line end if they do not end with one (--raw: never). Exit code 1 if it is\n"
        "not set. --all KEY...: all of them, a line each; --any KEY...: the one set first, as `KEY VALUE`; --value V:\n"
        "when the value is V.\n" + _ENDS,
    ),
    "keys": Word("keys [--json] [PREFIX]", "list the keys that are set", _keys, (0, 1), long=("json",)),
    "unset": Word(
        "unset [-t|--timeout TIME] KEY",
        "remove a value",
        _unset,
        (1, 1),
        "t:",
        ("timeout=",),
        _TIMEOUT,
        "No error if it is not set.\n" + _AWAY,
        anywhere=False,
    ),
    "barrier": Word(
        "barrier [-t|--timeout TIME] [--nodes A,B | --role CONFIGURATION | --count N] NAME",
        "wait until all nodes, or those named, are here",
        _barrier,
        (1, 1),
        "t:",
        ("timeout=", "nodes=", "role=", "count="),
        _TIMEOUT,
        "It can be used again and again: a member's first arrival meets the first of the others, its second their\n"
        "second. Whoever gives up has not arrived. Exit code 1 if somebody it waits for takes part no more.\n" + _ENDS,
    ),
    "next": Word(
        "next [-t|--timeout TIME] NAME",
        "print the next number of a sequence, from 0 on",
        _next,
        (1, 1),
        "t:",
        ("timeout=",),
        _TIMEOUT,
        _AWAY,
    ),
    "lock": Word(
        "lock [-t|--timeout TIME] NAME -- COMMAND...",
        "run COMMAND while no other holds the lock",
        _lock,
        (1, -1),
        "t:",
        ("timeout=",),
        _TIMEOUT,
        "Exit code is COMMAND's. The lock is free when COMMAND has ended, or its node is dead.\n" + _ENDS,
        anywhere=False,
    ),
    "publish": Word(
        "publish [-t|--timeout TIME] TOPIC [VALUE|-]",
        "add a message to a stream",
        _publish,
        (1, 2),
        "t:",
        ("timeout=",),
        _TIMEOUT,
        _AWAY,
        anywhere=False,
    ),
    "subscribe": Word(
        "subscribe [--count N] [-t|--timeout TIME] TOPIC",
        "print the messages of a stream, from the first on",
        _subscribe,
        (1, 1),
        "t:",
        ("count=", "timeout=", "raw"),
        _TIMEOUT,
        "Each with a line end if it has none. Ends after N messages; without --count it goes on.\n" + _ENDS,
    ),
    "service": Word(
        "service publish|discover [--port P] [--host H] [--all] [--json] [-t|--timeout TIME] NAME",
        "say where a service is, or wait until somebody does",
        _service,
        (2, 2),
        "t:",
        ("port=", "host=", "all", "json", "timeout="),
        _TIMEOUT,
        "discover prints `HOST PORT NODE` of whoever published it first, with --all of all. PORT is - where there is\n"
        "none; HOST is the node's address unless --host says another.\n" + _ENDS,
    ),
    "nodes": Word(
        "nodes [--role CONFIGURATION] [--json]", "list the nodes of the run", _nodes, (0, 0), long=("role=", "json")
    ),
    "hosts": Word("hosts [--json]", "list the nodes' addresses and names", _hosts, (0, 0), long=("json",)),
    "whoami": Word("whoami [--json]", "print the name of this node", _whoami, (0, 0), long=("json",)),
    "abort": Word("abort [--reason TEXT]", "stop all nodes now; they finalise", _abort, (0, 0), long=("reason=",)),
    "finalise": Word("finalise", "let all nodes end what they are at, then finalise", _finalise, (0, 0)),
    "wait": Word(
        "wait finalise [-t|--timeout TIME]",
        "wait until the run finalises",
        _wait,
        (1, 1),
        "t:",
        ("timeout=",),
        _TIMEOUT,
    ),
}
"""Every word, in the order of the overview."""
