"""A plain HTTP witness that shares no code with testbed's client, and the case files."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from testbed.agent.plan import Access

CASES = Path(__file__).parents[1] / "cases" / "etcd"


def cases(name: str) -> list[Any]:
    """Give the cases of a data file."""
    return list(yaml.safe_load((CASES / name).read_text()))


@dataclass
class Answer:
    """What an HTTP request came back with."""

    status: int
    body: Any


def ask(access: Access, path: str, body: Any = None, token: str = "") -> Answer:
    """Ask the first endpoint once, by the standard library's own client; raises OSError, ssl.SSLError among them."""
    scheme, _, rest = access.endpoints[0].partition("://")
    host, _, port = rest.rpartition(":")
    host = host.strip("[]")
    connection: http.client.HTTPConnection
    if scheme == "https":
        context = ssl.create_default_context(cadata=access.ca or None)
        if access.certificate:
            with tempfile.NamedTemporaryFile("w") as file:
                file.write(access.certificate + access.key)
                file.flush()
                context.load_cert_chain(file.name)
        connection = http.client.HTTPSConnection(host, int(port), timeout=20, context=context)
    else:
        connection = http.client.HTTPConnection(host, int(port), timeout=20)
    try:
        headers = {"Authorization": token} if token else {}
        method = "GET" if body is None else "POST"
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        raw = answer.read()
    finally:
        connection.close()
    try:
        return Answer(answer.status, json.loads(raw))
    except ValueError:
        return Answer(answer.status, raw.decode())


def log_in(access: Access) -> str:
    """Give the token for the access's user and password."""
    answer = ask(access, "/v3/auth/authenticate", {"name": access.user, "password": access.password})
    assert answer.status == 200, answer
    return str(answer.body["token"])


def encode(text: str) -> str:
    """Write a key or value as the gateway wants it."""
    return base64.b64encode(text.encode()).decode()


def put(access: Access, key: str, token: str) -> Answer:
    """Try to write a key."""
    return ask(access, "/v3/kv/put", {"key": encode(key), "value": encode("x")}, token)
