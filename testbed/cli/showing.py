"""What is seen of steps, shown: lines with node and step, or bytes as they came."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import click

from testbed.coord.chunks import ERR, Begun, Ended, Note, Output
from testbed.coord.peeking import Gone, Seen
from testbed.errors import UsageError
from testbed.events import AnsibleTask
from testbed.report.harmless import harmless, harmless_line
from testbed.report.sentence import sentence

LONGEST = 64 * 1024
"""Bytes after which a line is shown in pieces."""

_COLOURS = ("36", "33", "35", "32", "34", "96", "93", "95", "92", "94")

Say = Callable[[str], None]
"""Tells the operator something that is no output of a step."""


def tell(text: str) -> None:
    """Say it on stderr."""
    click.echo(text, err=True)


def _outcome(code: int) -> str:
    """How a process has ended: by itself, or by a signal."""
    try:
        return f"exit code {code}" if code >= 0 else f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"


class Shown:
    """Takes what is seen and shows it; what is no output goes to ``say``."""

    def __init__(self, say: Say = tell, several: bool = False) -> None:
        self._say, self._several = say, several
        self._at: dict[str, str] = {}

    def __call__(self, node: str, seen: Any) -> None:
        """Take the next piece."""
        match seen:
            case Output():
                self.show(node, seen)
            case Begun(step):
                self._head(node, step)
            case Ended(step):
                self.finish(node, step)
                code = "" if seen.exit_code is None else f", {_outcome(seen.exit_code)}"
                reason = f" ({harmless_line(seen.reason)})" if seen.reason and seen.exit_code is None else ""
                self._say(f"{harmless_line(node)}: {harmless_line(step)} {harmless_line(seen.verdict)}{code}{reason}")
            case AnsibleTask():
                self._say(f"{harmless_line(node)}: {sentence(seen)}")
            case Note(text):
                self._say(f"{harmless_line(node)}: {harmless_line(text)}")
            case Gone(text, whole=whole):
                if not whole:
                    self._say(f"{harmless_line(node)}: {harmless_line(text)}")

    def _head(self, node: str, step: str) -> None:
        if not self._several and self._at.get(node) != step:
            self._say(f"==> {harmless_line(node)} {harmless_line(step)} <==")
        self._at[node] = step

    def show(self, node: str, output: Output) -> None:
        """Show a piece of output."""
        raise NotImplementedError

    def finish(self, node: str, step: str) -> None:
        """Show what is left of the step: it ended without a line end."""

    def close(self) -> None:
        """Show what is left of everything."""


class Bytes(Shown):
    """Bytes as they came: into files, or onto stdout."""

    def __init__(self, file: Path | None, nodes: int, streams: int, say: Say = tell) -> None:
        super().__init__(say, several=nodes > 1)
        self._file, self._nodes, self._streams = file, nodes, streams
        self._stack = ExitStack()
        self._open: dict[Path, IO[bytes]] = {}

    def show(self, node: str, output: Output) -> None:
        """Write them, and through to the file: what was written counts as read. Raises UsageError."""
        if self._file is None:
            sys.stdout.buffer.write(output.data)
            sys.stdout.buffer.flush()
            return
        try:
            target = self._target(self._file, node, output.stream)
            target.write(output.data)
            target.flush()
        except OSError as error:
            why = f"the output cannot be written to {error.filename or self._file}: {error.strerror}"
            raise UsageError(why, "what is there already is whole; `--offset` goes on at its size") from error

    def _target(self, file: Path, node: str, stream: str) -> IO[bytes]:
        name = file.name + (f".{node}" if self._nodes > 1 else "")
        name += ".err" if stream == ERR and self._streams > 1 else ""
        path = file.with_name(name)
        if path not in self._open:
            self._open[path] = self._stack.enter_context(path.open("ab"))
        return self._open[path]

    def close(self) -> None:
        """Close the files."""
        self._stack.close()


class Lines(Shown):
    """A line for each line; with node and step where there are several nodes, a colour a node."""

    def __init__(
        self, out: IO[bytes], nodes: tuple[str, ...], colour: bool, raw: bool, grep: re.Pattern[str] | None,
        say: Say = tell,
    ) -> None:  # fmt: skip
        super().__init__(say, several=len(nodes) > 1)
        self._out, self._raw, self._grep = out, raw, grep
        self._rest: dict[tuple[str, str, str], bytes] = {}
        self._colours = {n: _COLOURS[i % len(_COLOURS)] for i, n in enumerate(nodes)} if colour else {}
        self._heads: dict[tuple[str, str, str], bytes] = {}

    def show(self, node: str, output: Output) -> None:
        """Show the whole lines, and of a line that is being overwritten (a bar of progress) how it is now."""
        key = (node, output.step, output.stream)
        *lines, rest = (self._rest.pop(key, b"") + output.data).split(b"\n")
        for line in lines:
            self._line(key, line)
        overwritten, back, last = rest[:-1].rpartition(b"\r")  # a return at the end may belong to a line end
        if back:
            self._line(key, overwritten)
            rest = last + rest[-1:]
        while len(rest) > LONGEST:
            self._line(key, rest[:LONGEST])
            rest = rest[LONGEST:]
        if rest:
            self._rest[key] = rest
        self._out.flush()

    def finish(self, node: str, step: str) -> None:
        """Show the line that has no end."""
        for key in [key for key in self._rest if key[:2] == (node, step)]:
            self._line(key, self._rest.pop(key))
        self._out.flush()

    def close(self) -> None:
        """Show all lines that have no end."""
        for node, step, _ in list(self._rest):
            self.finish(node, step)

    def _line(self, key: tuple[str, str, str], raw: bytes) -> None:
        text = _text(raw)
        if self._grep is not None and not self._grep.search(text):
            return
        shown = raw if self._raw else text.encode("utf-8", "replace")
        self._out.write(self._before(key) + shown + b"\n")

    def _before(self, key: tuple[str, str, str]) -> bytes:
        """Node and step, where lines of several nodes are shown."""
        if not self._several:
            return b""
        if key not in self._heads:
            node, step, stream = key
            words = f"{harmless_line(node)} {harmless_line(step)} {'!' if stream == ERR else '|'} "
            colour = self._colours.get(node)
            self._heads[key] = (f"\x1b[{colour}m{words}\x1b[0m" if colour else words).encode()
        return self._heads[key]


class OneLive(Lines):
    """The lines of one node on a terminal, with the one that is being written: there it may hang, or show a bar."""

    def __init__(self, out: IO[bytes], node: str, say: Say = tell) -> None:
        super().__init__(out, (node,), colour=False, raw=False, grep=None, say=say)
        self._drawn: tuple[tuple[str, str, str], str] | None = None  # the line at the cursor, where it has no end yet

    def show(self, node: str, output: Output) -> None:
        """Show the whole lines, and of the last one what there is of it."""
        key = (node, output.step, output.stream)
        *lines, rest = (self._rest.pop(key, b"") + output.data).split(b"\n")
        for line in lines:
            self._line(key, line)
        rest = rest[rest[:-1].rfind(b"\r") + 1 :]  # a return at the end may belong to a line end
        while len(rest) > LONGEST:
            self._line(key, rest[:LONGEST])
            rest = rest[LONGEST:]
        if rest:
            self._rest[key] = rest
            if self._drawn is None or self._drawn[0] == key:
                self._draw(key, _text(rest))
        self._out.flush()

    def _line(self, key: tuple[str, str, str], raw: bytes) -> None:
        self._draw(key, _text(raw))
        self._out.write(b"\n")
        self._drawn = None

    def _draw(self, key: tuple[str, str, str], text: str) -> None:
        """Put the text where the cursor is, or in place of what was drawn of the same line before."""
        before, old = self._drawn or (key, "")
        if before != key:
            new = "\n" + text
        elif text.startswith(old):
            new = text[len(old) :]
        else:
            new = "\r\x1b[K" + text
        self._out.write(new.encode("utf-8", "replace"))
        self._drawn = key, text


def _text(raw: bytes) -> str:
    """A line, or the beginning of one, as a terminal may have it: the last of what it was overwritten with."""
    return harmless(raw.rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")).replace("\n", " ")


def show_all(seen: Any, shown: Shown) -> None:
    """Show all that is seen."""
    try:
        one: Seen
        for one in seen:
            shown(*one)
    finally:
        shown.close()
