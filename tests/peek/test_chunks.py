"""What travels between who peeks and an agent: what neither of them writes is told as garbled, and nothing else."""

from __future__ import annotations

import json

import pytest

from testbed.coord.chunks import Ask, Garbled, read_ask, read_frames, write_ask

DEEP = b'{"a":' * 900 + b"1" + b"}" * 900

FRAMES = [
    b"x",
    b"x\n",
    b"7\n",
    b"{}\n",
    b"[" * 4000 + b"\n",
    b'{"begun": {"step": "s", "out": 1e999, "err": 0}}\n',
    b'{"begun": "s"}\n',
    b'{"ended": {"step": "s", "verdict": "passed", "exit_code": 1e999, "reason": "", "out": 0, "err": 0}}\n',
    b'{"note": []}\n',
    b'{"step": "s", "stream": "out", "at": 1e999, "length": 1}\nx',
    b'{"step": "s", "stream": "out", "at": 0, "length": 9}\nx',
    b'{"step": "s", "stream": "out", "at": 0, "length": -1}\nx',
    b'{"step": "s", "stream": "no", "at": 0, "length": 1}\nx',
    b'{"step": "s", "stream": "out", "at": 0, "length": 1, "packed": 1}\nx',
]


@pytest.mark.parametrize("chunk", FRAMES, ids=range(len(FRAMES)))
def test_broken_frames(chunk: bytes) -> None:
    """A chunk that no agent writes is garbled, whatever is wrong with it."""
    with pytest.raises(Garbled):
        list(read_frames(chunk))


GOOD = json.loads(write_ask(Ask(7, "*")))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"7",
        DEEP,
        *(json.dumps({**GOOD, **odd}).encode() for odd in (
            {"lease": float("inf")}, {"lease": "x"}, {"streams": []}, {"streams": 7}, {"window": 0}, {"position": 7},
            {"position": {"step": "s", "out": -1, "err": 0}}, {"lines": float("inf")},
        )),
    ],
)  # fmt: skip
def test_broken_requests(raw: bytes) -> None:
    """A request that no client writes is garbled, whatever is wrong with it."""
    with pytest.raises(Garbled):
        read_ask(raw)
