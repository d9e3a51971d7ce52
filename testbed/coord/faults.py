"""What etcd's answers mean: the JSON of a good one, an exception for any other.

The gateway's HTTP status says little and differs between releases; the gRPC code in the body is what counts.
"""

from __future__ import annotations

import json
from typing import Any

from testbed.coord.store import Denied, Full, LeaseExpired, StoreError, TooLarge

# gRPC codes; see https://github.com/grpc/grpc/blob/master/doc/statuscodes.md
NOT_FOUND, DENIED, EXHAUSTED, PRECONDITION, UNAUTHENTICATED = 5, 7, 8, 9, 16
PASSING = (1, 4, 13, 14)  # cancelled, deadline, internal, unavailable: a server that stops or looks for a leader

_STALE = ("user name is empty", "invalid auth token")
# the last: a server that stops tears the connection between its gateway and itself, and calls that unknown (code 2)
_PASSING = ("too many requests", "transport: ")
_OUTRUN = ("auth store is old", "revision in header is old")


class Refused(StoreError):
    """etcd said no for a reason that has no class of its own; ``code`` is the gRPC status code, 0 if it gave none."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Passing(OSError):
    """The server answered that it cannot answer now; another attempt may do."""


class Stale(Exception):
    """The server does not know the token."""


class Outrun(Stale):
    """Users or roles, maybe of others, were changed while the request was on its way: nothing was done, try again."""


def judge(status: int, raw: bytes) -> dict[str, Any]:
    """Read the answer in ``raw`` if it is a good one; raises what it says otherwise."""
    try:
        answer: dict[str, Any] = dict(json.loads(raw)) if raw.strip() else {}
    except (ValueError, TypeError):
        text = raw[:300].decode("utf-8", "replace").strip()
        if status >= 500 or status == 200:
            raise Passing(f"HTTP {status}: {text or 'no answer'}") from None
        raise Refused(f"etcd answered HTTP {status}: {text or 'nothing'}", 0) from None
    if status == 200 and not answer.get("error"):
        return answer
    error = answer.get("error")
    if isinstance(error, dict):  # of a stream
        raise fault(int(error.get("grpc_code") or error.get("code") or 0), str(error.get("message", error)))
    code = int(answer.get("code") or 0)
    text = str(error or answer.get("message") or f"HTTP {status}")
    if status >= 500 and not code:
        raise Passing(text)
    raise fault(code, text)


def fault(code: int, text: str) -> Exception:
    """Give the exception for what etcd means by this gRPC code and text."""
    message = text if text.startswith("etcd") else f"etcd: {text}"
    stale = any(sign in text for sign in _STALE)
    if any(sign in text for sign in _OUTRUN):
        return Outrun(message)
    if code == UNAUTHENTICATED or stale:
        return Stale(message)
    if code in PASSING or any(sign in text for sign in _PASSING):
        return Passing(message)
    if code == DENIED or "authentication failed" in text:
        return Denied(message)
    if "request is too large" in text or (code == EXHAUSTED and "larger than max" in text):
        return TooLarge(message)
    if "database space exceeded" in text:
        advice = "set fewer and smaller values, or give the server a larger quota (--quota-backend-bytes)"
        return Full(f"{message}: its database is full and takes no more writes; {advice}")
    if code == NOT_FOUND and "lease" in text:
        return LeaseExpired(message)
    return Refused(message, code)
