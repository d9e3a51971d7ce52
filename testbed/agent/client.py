"""The command ``testbed`` on a node: hands its words to the node's agent and passes on what comes back.

Imports as little as it can: scripts call it often. All that it knows is how to speak to the agent, which is beside it:
it sends ``<arguments> <bytes of input>``, the arguments each with its length, then the input; frames come back, each
``<kind> <number>``: kinds ``1`` and ``2`` are output and errors of so many bytes, ``x`` is the exit code and the end,
``r`` says that the lock that was asked for is held, with that token, for as long as the connection lasts.
"""

from __future__ import annotations

import os
import sys

try:
    from _socket import AF_UNIX, SOCK_STREAM, socket  # the module around it costs as much as the rest of a call
except ImportError:
    from socket import AF_UNIX, SOCK_STREAM, socket  # type: ignore[assignment]

INPUT_LIMIT = 1024 * 1024 + 1


def take_streams() -> None:
    """Make the standard streams fit to use: they block, and a closed one is the null device, lest a socket be it."""
    for fd in (0, 1, 2):
        try:
            os.set_blocking(fd, True)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def say(text: str) -> None:
    """Tell on standard error what went wrong."""
    write_all(2, os.fsencode(f"{text}\n"))


def read_input() -> bytes:
    """Standard input to its end, or one byte more than a value may have."""
    pieces, left = [], INPUT_LIMIT
    while left > 0:
        try:
            piece = os.read(0, min(left, 65536))
        except OSError as error:
            say(f"testbed: cannot read standard input: {error.strerror}")
            sys.exit(3)
        if not piece:
            break
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def write_all(fd: int, data: bytes) -> None:
    """All of it, however little a write takes; ends as a shell says it of a command whose reader went away.

    What standard error does not take is passed over: it changes no exit code.
    """
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError as error:
        if fd == 2:
            return
        if isinstance(error, BrokenPipeError):
            sys.exit(141)
        say(f"testbed: cannot write the output: {error.strerror}")
        sys.exit(3)


def request(arguments: list[bytes], data: bytes) -> bytes:
    """What is sent to the agent."""
    head = b"%d %d\n" % (len(arguments), len(data))
    return head + b"".join(b"%d\n%s" % (len(a), a) for a in arguments) + data


def answer(connection: socket, where: int) -> int | None:
    """Pass on what comes; the exit code, None where the agent went away. A lock's command runs in folder ``where``."""
    buffer = b""
    while True:
        while b"\n" not in buffer:
            piece = connection.recv(65536)
            if not piece:
                return None
            buffer += piece
        head, _, buffer = buffer.partition(b"\n")
        kind, number = head.split()
        if kind == b"x":
            return int(number)
        if kind == b"r":
            become_command(connection, number, where)
        left = int(number)
        while left:
            if not buffer:
                buffer = connection.recv(65536)
                if not buffer:
                    return None
            piece, buffer = buffer[:left], buffer[left:]
            write_all(int(kind), piece)
            left -= len(piece)


def become_command(connection: socket, token: bytes, where: int) -> None:
    """Become what follows ``--``, which takes the connection along: so the lock is held until it has ended."""
    os.set_inheritable(connection.fileno(), True)
    os.environb[b"TESTBED_LOCK_TOKEN"] = token
    os.fchdir(where)
    command = sys.argv[sys.argv.index("--") + 1 :]
    try:
        os.execvp(command[0], command)  # noqa: S606  what the user asked for
    except OSError as error:
        say(f"testbed lock: {command[0]}: {error.strerror}")
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


def main() -> int:
    """One word, done by the agent."""
    take_streams()
    arguments = [os.fsencode(a) for a in sys.argv[1:]]
    takes_input = arguments[:1] in ([b"set"], [b"publish"]) and b"-" in arguments
    data = read_input() if takes_input else b""
    home = os.path.dirname(os.path.dirname(os.path.abspath(sys.argv[0])))
    where = os.open(".", getattr(os, "O_PATH", os.O_RDONLY))  # the folder may be removed by now and have no path
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        os.chdir(home)  # a socket's path may have no more than 107 bytes, a workspace's may
        connection.connect("agent.sock")
        connection.sendall(request(arguments, data))
        code = answer(connection, where)
    except OSError as error:
        code = None
        say(f"testbed: {home}: {error.strerror or error}")
    if code is None:
        say(f"testbed: the agent of this node is not there any more; see {home}/agent.log")
        return 3
    return code


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
