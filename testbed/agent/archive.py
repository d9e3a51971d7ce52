"""The agent as one file, and the bytes that start it on a machine; used by the controller."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import marshal
import os
import re
import sys
import tempfile
import zipfile
from importlib.util import MAGIC_NUMBER
from typing import Iterator, Optional, Sequence, Tuple

import testbed
from testbed.agent.plan import Plan, to_json

BOOTSTRAP = 'import os,json;f=os.fdopen(0,"rb",0);h=json.loads(f.readline().decode());exec(h["boot"]);boot(h,f)'
"""What ``python3 -I -S -c`` is given: reads its next stage off stdin. Nothing in it means anything to a shell."""

_MAIN = "from testbed.agent.__main__ import main\n\nraise SystemExit(main())\n"
_PACKAGE = f'"""What testbed keeps on a node."""\n\n__version__ = "{testbed.__version__}"\n'
_CHOICE = """
import marshal
try:
    from _frozen_importlib_external import MAGIC_NUMBER as m
except ImportError:
    m = b""
def take(left):
    got = b""
    while len(got) < left:
        piece = f.read(left - len(got))
        if not piece: break
        got += piece
    return got
c, t = take(h["code"]), take(h["text"])
if len(t) < h["text"]:
    a = {"ok": False, "cause": "bug", "reason": "the connection ended before the agent had come whole", "advice": ""}
    os.write(1, ("\\nTESTBED: " + json.dumps(a) + "\\n").encode())
    os._exit(1)
exec(marshal.loads(c[len(m):]) if m and c[:len(m)] == m else t.decode())
"""
"""The first stage comes compiled and as text. Nothing is read ahead off stdin, so the header costs a call for each of
its bytes: it is short."""

_NOT_SENT = ("coord/memory.py", "coord/peeking.py", "agent/archive.py", "agent/boot.py")
_STOOD_IN_FOR = re.compile(r"^( *)from (?:dataclasses|typing) import", re.MULTILINE)
_EPOCH = (1980, 1, 1, 0, 0, 0)


@functools.lru_cache(maxsize=None)
def build() -> Tuple[bytes, str]:
    """The agent's zip application and its SHA-256 (hex); the same sources give the same bytes.

    It takes a third of a second, so it is kept in the user's cache directory (XDG) until the sources change.
    """
    _boot()  # whoever asks for the agent forks, and its children shall have both
    sources = list(_sources())
    kept = _Kept(sources)
    data = kept.read()
    if data is None:
        data = _zipped(sources)
        kept.write(data)
    return data, hashlib.sha256(data).hexdigest()


class _Kept:
    """The agent as the same Python made it of the same sources, in the same way; a cache that fails is none."""

    def __init__(self, sources: Sequence[Tuple[str, str]]) -> None:
        base = os.environ.get("XDG_CACHE_HOME", "")
        base = base if os.path.isabs(base) else os.path.expanduser("~/.cache")
        self._folder = os.path.join(base, "testbed")
        self._path = os.path.join(self._folder, f"agent-{testbed.__version__}-{sys.implementation.cache_tag}.pyz")
        with open(os.path.abspath(__file__), "rb") as file:  # how it is made is in here
            self._made_of = hashlib.sha256(MAGIC_NUMBER + file.read() + repr(sources).encode()).digest()

    def read(self) -> Optional[bytes]:
        """The agent; None where it is not there, is of other sources, not whole, or not the user's alone to write."""
        try:
            with open(self._path, "rb") as file:
                status = os.fstat(file.fileno())
                made_of, digest, data = file.read(32), file.read(32), file.read()
        except OSError:
            return None
        safe = status.st_uid == os.geteuid() and not status.st_mode & 0o022
        return data if safe and made_of == self._made_of and digest == hashlib.sha256(data).digest() else None

    def write(self, data: bytes) -> None:
        """Keep it from now on."""
        try:
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            handle, new = tempfile.mkstemp(prefix="new-", dir=self._folder)
            with os.fdopen(handle, "wb") as file:
                file.write(self._made_of + hashlib.sha256(data).digest() + data)
            os.replace(new, self._path)
        except OSError:
            return


def _zipped(sources: Sequence[Tuple[str, str]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as pyz:
        for name, source in sources:
            _add(pyz, name, source.encode())
            if name != "__main__.py":
                _add(pyz, name + "c", _compiled(name, source))
    return buffer.getvalue()


def payload(plan: Plan | str, workspace: str, files: bytes = b"") -> bytes:
    """What goes to the stdin of `BOOTSTRAP`: header, first stage, agent, plan and staged files.

    ``plan`` may be its JSON text already; ``workspace`` is absolute or begins with ``~``; ``files`` is a tar.gz of
    files, folders and links within it, or empty.
    """
    agent, digest = build()
    told = (plan if isinstance(plan, str) else to_json(plan)).encode()
    code, text = _boot()
    header = {
        "boot": _CHOICE,
        "code": len(code),
        "text": len(text),
        "agent": len(agent),
        "sha256": digest,
        "plan": len(told),
        "files": len(files),
        "workspace": workspace,
    }
    return b"".join((json.dumps(header).encode(), b"\n", code, text, agent, told, files))


def _sources() -> Iterator[Tuple[str, str]]:
    """Name and text of every module that goes to a node, in a fixed order."""
    yield "__main__.py", _MAIN
    yield "testbed/__init__.py", _PACKAGE
    root = os.path.dirname(os.path.abspath(testbed.__file__))
    names = ["events.py", "standins.py"]
    for folder in ("agent", "coord"):
        names += sorted(f"{folder}/{name}" for name in os.listdir(os.path.join(root, folder)) if name.endswith(".py"))
    for name in names:
        if name not in _NOT_SENT:
            with open(os.path.join(root, name), encoding="utf-8") as file:
                yield "testbed/" + name, _STOOD_IN_FOR.sub(r"\1from testbed.standins import", file.read())


def _compiled(name: str, source: str) -> bytes:
    """The module's code for this very Python, never checked against its source; another Python passes it over.

    Compiling is half of what an agent's start costs, and a local workspace runs the controller's own Python.
    """
    code = compile(source, name, "exec", dont_inherit=True)
    return MAGIC_NUMBER + (1).to_bytes(4, "little") + bytes(8) + marshal.dumps(code, 2)


def _add(pyz: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o600 << 16
    pyz.writestr(entry, data)


@functools.lru_cache(maxsize=None)
def _boot() -> Tuple[bytes, bytes]:
    """The first stage: as code for a Python like this one, and as text for all others, old ones included."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "boot.py")
    with open(path, encoding="utf-8") as file:
        text = file.read()
    return MAGIC_NUMBER + marshal.dumps(compile(text, "boot.py", "exec", dont_inherit=True), 2), text.encode()
