"""What travels between who peeks at a step's output and the agent that streams it; the protocol is in docs/peek.md.

A request is an `Ask`. It is answered by chunks, numbered from 0, each a few frames: a line of JSON, then as many bytes
as that says.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import asdict, dataclass
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

from testbed.events import UNREADABLE

OUT, ERR = "out", "err"
STREAMS = (OUT, ERR)
"""The two logs of a step."""

WINDOW = 256 * 1024
"""Bytes that a node may have written for a request and the client has not confirmed, where nothing else is said."""

LEAST_WINDOW, LARGEST_WINDOW = 4096, 16 * 1024 * 1024
"""The bounds of a window, in bytes."""

PIECE = 128 * 1024
"""Bytes of output that one chunk holds at most."""

FROM_START = -1
"""In place of a number of lines: all of them."""

RUNNING, EVERY = "", "*"
"""In place of a step's name: the one that runs and those after it; all of them from the first."""

_HEAD = 4096  # bytes that the JSON line of a frame may have


class Garbled(ValueError):
    """What came is not of this protocol."""


@dataclass(frozen=True)
class Position:
    """A place in the output of a step (``configuration.target.step``); offsets in bytes."""

    step: str
    out: int = 0
    err: int = 0


@dataclass(frozen=True)
class Ask:
    """A request: ``step`` is `RUNNING`, `EVERY`, or names steps as `matches` says.

    The first step is shown from ``position`` on, which may name a later step than the first, or else its last
    ``lines`` lines. ``lease`` is the client's, ``window`` in bytes.
    """

    lease: int
    step: str = RUNNING
    streams: Tuple[str, ...] = STREAMS
    lines: int = FROM_START
    position: Optional[Position] = None
    window: int = WINDOW


@dataclass(frozen=True)
class Begun:
    """A step is shown from these offsets of its logs on, in bytes."""

    step: str
    out: int
    err: int


@dataclass(frozen=True)
class Output:
    """What a step wrote: ``data`` stands at ``offset`` of its log."""

    step: str
    stream: str
    offset: int
    data: bytes


@dataclass(frozen=True)
class Ended:
    """A step is over and all its output was shown; sizes of its logs in bytes, -1 for one that was not asked for."""

    step: str
    verdict: str
    exit_code: Optional[int]
    reason: str
    out: int = -1
    err: int = -1


@dataclass(frozen=True)
class Note:
    """Something the one who looks should know; ``over``: it is why nothing more comes."""

    text: str
    over: bool = False


Frame = Union[Begun, Output, Ended, Note]


def matches(wanted: str, step: str) -> bool:
    """Whether ``step`` (``configuration.target.step``) is meant by ``target``, ``target.step`` or all three parts."""
    _, target, name = step.rsplit(".", 2)
    return wanted in (RUNNING, EVERY, step, f"{target}.{name}", target)


def write_ask(ask: Ask) -> bytes:
    """The request as it is stored."""
    return json.dumps(asdict(ask)).encode()


def read_ask(raw: bytes) -> Ask:
    """The request that `write_ask` stored; raises Garbled."""
    try:
        told = json.loads(raw)
        place = told["position"]
        position = None if place is None else Position(str(place["step"]), int(place["out"]), int(place["err"]))
        ask = Ask(
            int(told["lease"]), str(told["step"]), tuple(s for s in STREAMS if s in told["streams"]),
            int(told["lines"]), position, int(told["window"]),
        )  # fmt: skip
    except UNREADABLE as error:
        raise Garbled(f"no request: {error!r}") from error
    if not ask.streams or not LEAST_WINDOW <= ask.window <= LARGEST_WINDOW:
        raise Garbled(f"a request for {ask.streams} in a window of {ask.window} bytes")
    if ask.position is not None and min(ask.position.out, ask.position.err) < 0:
        raise Garbled("a request from before the beginning")
    return ask


def pack(output: Output, dense: bool = False) -> Tuple[bytes, bool]:
    """The frame of a piece of output, and whether packing it was worth it; ``dense``: do not try."""
    data, packed = output.data, b""
    if not dense and len(data) >= 256:
        packed = zlib.compress(data, 1)
    worth = bool(packed) and len(packed) < len(data) * 0.9
    head: Dict[str, Any] = {"step": output.step, "stream": output.stream, "at": output.offset, "length": len(data)}
    if worth:
        data, head["packed"] = packed, len(packed)
    return json.dumps(head).encode() + b"\n" + data, worth


def write_frame(frame: Union[Begun, Ended, Note]) -> bytes:
    """The frame of anything else."""
    return json.dumps({type(frame).__name__.lower(): asdict(frame)}).encode() + b"\n"


def read_frames(chunk: bytes) -> Iterator[Frame]:
    """The frames of a chunk; raises Garbled for what no agent writes."""
    at = 0
    while at < len(chunk):
        end = chunk.find(b"\n", at, at + _HEAD)
        if end < 0:
            raise Garbled("a frame without a head")
        try:
            head = dict(json.loads(chunk[at:end]))
            at = end + 1
            if "begun" in head:
                told = head["begun"]
                yield Begun(str(told["step"]), int(told["out"]), int(told["err"]))
            elif "ended" in head:
                yield _ended(head["ended"])
            elif "note" in head:
                yield Note(str(head["note"]["text"]), bool(head["note"]["over"]))
            else:
                size = int(head["packed"] if "packed" in head else head["length"])
                if not 0 <= size <= len(chunk) - at:
                    raise Garbled("a frame that is longer than its chunk")
                yield _output(head, chunk[at : at + size])
                at += size
        except (*UNREADABLE, zlib.error) as error:
            raise Garbled(f"a broken frame: {error}") from error


def _output(head: Dict[str, Any], data: bytes) -> Output:
    length = int(head["length"])
    if not 0 <= length <= PIECE or head["stream"] not in STREAMS:
        raise Garbled(f"{length} bytes of {head['stream']!r}")
    if "packed" in head:
        unpacking = zlib.decompressobj()
        data = unpacking.decompress(data, length + 1)  # never more than was announced
    if len(data) != length:
        raise Garbled(f"{len(data)} bytes instead of {length}")
    return Output(str(head["step"]), str(head["stream"]), int(head["at"]), data)


def _ended(told: Dict[str, Any]) -> Ended:
    code = told["exit_code"]
    return Ended(
        str(told["step"]), str(told["verdict"]), None if code is None else int(code), str(told["reason"]),
        int(told["out"]), int(told["err"]),
    )  # fmt: skip


def names_of(steps: List[Any]) -> List[str]:
    """The names of a plan's steps in the order in which a node does them: those that finalise come last."""
    early = [s for s in steps if s.target != "finalise"]
    late = [s for s in steps if s.target == "finalise"]
    return [f"{s.configuration}.{s.target}.{s.step}" for s in early + late]
