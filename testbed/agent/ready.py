"""How one knows that a service is ready: its port takes connections, a script passes, a value is set."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import threading
import time
from contextlib import suppress
from typing import Any, Callable, Dict, Mapping, Optional, Protocol, Tuple

from testbed.agent import process
from testbed.agent.environment import of_step
from testbed.agent.messages import Exited, Message, Noted, Outcome
from testbed.agent.plan import COMMAND, PORT, PlannedStep
from testbed.agent.scripts import describe, ending, log_name, reason_of
from testbed.coord.scope import Aborted, Cancel, Cancelled, WaitTimeout
from testbed.coord.store import StoreError
from testbed.events import ERROR, FAILED, PASSED, TIMEOUT

CONNECT_PATIENCE = 1.0
"""Seconds that a connection to a port of this machine may take."""

PORT_PAUSES, COMMAND_PAUSES = (0.01, 0.5), (0.1, 2.0)
"""Seconds between two looks: the first pause, and the longest, up to which they double."""

Launch = Callable[[str, str], "subprocess.Popen[bytes]"]
"""Starts a script under a name, which is its log's too; raises OSError, ValueError."""

AwaitValue = Callable[[str, Cancel], bytes]
"""Waits for a user's value."""


class Probe(Protocol):
    """Finds out whether a service is ready."""

    def look(self) -> bool:
        """Look now; whether it is ready."""

    def heed(self, message: Message) -> bool:
        """Whether it is ready because of this."""

    def pause(self) -> Optional[float]:
        """Seconds until the next look; None while a message has to come first."""

    def missing(self) -> str:
        """What it is not ready for, as far as the looks have told."""

    def close(self) -> None:
        """Look no more."""


class _Pauses:
    """Pauses that double."""

    def __init__(self, first: float, longest: float) -> None:
        self._next, self._longest = first, longest

    def take(self) -> float:
        pause = self._next
        self._next = min(2 * pause, self._longest)
        return pause


class AtOnce:
    """A service is ready when it runs."""

    def look(self) -> bool:
        """Ready."""
        return True

    def heed(self, _: Message) -> bool:
        """Nothing is waited for."""
        return True

    def pause(self) -> Optional[float]:
        """Nothing is waited for."""
        return None

    def missing(self) -> str:
        """Nothing."""
        return ""

    def close(self) -> None:
        """Nothing is open."""


class Port:
    """Ready when a TCP port of this machine takes a connection, at loopback or at one of the ``addresses``.

    Nobody tells when a program begins to listen, so it is tried; whoever waits hears of the program's end at once.
    """

    def __init__(self, port: int, addresses: Tuple[str, ...]) -> None:
        self._port = port
        self._addresses = tuple(dict.fromkeys(("127.0.0.1", *addresses, "::1")))
        self._pauses = _Pauses(*PORT_PAUSES)

    def look(self) -> bool:
        """Try to connect."""
        for address in self._addresses:
            with suppress(OSError):
                socket.create_connection((address, self._port), CONNECT_PATIENCE).close()
                return True
        return False

    def heed(self, _: Message) -> bool:
        """Nobody tells."""
        return False

    def pause(self) -> Optional[float]:
        """Growing."""
        return self._pauses.take()

    def missing(self) -> str:
        """The port."""
        return f"nothing takes connections at port {self._port}"

    def close(self) -> None:
        """Nothing is open."""


class Check:
    """Ready when a script exits with 0; it runs once at a time."""

    def __init__(self, launch: Callable[[], subprocess.Popen[bytes]]) -> None:
        self._launch = launch
        self._running: Optional[subprocess.Popen[bytes]] = None
        self._code: Optional[int] = None
        self._pauses = _Pauses(*COMMAND_PAUSES)

    def look(self) -> bool:
        """Start the script."""
        self._running = self._launch()
        return False

    def heed(self, message: Message) -> bool:
        """Take in how the script ended."""
        if self._running is None or not isinstance(message, Exited) or message.pid != self._running.pid:
            return False
        self._running, self._code = None, message.code
        return message.code == 0

    def pause(self) -> Optional[float]:
        """Growing, from the end of one script to the next."""
        return None if self._running is not None else self._pauses.take()

    def missing(self) -> str:
        """How the script ended last."""
        return "its ready command " + ("does not end" if self._code is None else f"ended with {describe(self._code)}")

    def close(self) -> None:
        """Stop the script, should it run."""
        if self._running is not None:
            session = self._running.pid
            process.stop(lambda: process.find((session,)), 0.0)


class Value:
    """Ready when a user's value is set; ``tell`` is called with it on another thread."""

    def __init__(self, key: str, wait: AwaitValue, tell: Callable[[Message], None]) -> None:
        self._key, self._wait, self._tell = key, wait, tell
        self._cancel = Cancel()

    def look(self) -> bool:
        """Begin to wait."""
        threading.Thread(target=self._await, name="ready", daemon=True).start()
        return False

    def _await(self) -> None:
        with suppress(Aborted, Cancelled, WaitTimeout, StoreError):  # all of these are told to the lifecycle too
            self._wait(self._key, self._cancel)
            self._tell(Noted(self._key))

    def heed(self, message: Message) -> bool:
        """Whether it is the value that was waited for."""
        return isinstance(message, Noted) and message.key == self._key

    def pause(self) -> Optional[float]:
        """It will be told."""
        return None

    def missing(self) -> str:
        """The value."""
        return f"nobody has set the value {self._key!r}"

    def close(self) -> None:
        """Wait no more."""
        self._cancel.fire()


def await_ready(
    pid: int,
    probe: Probe,
    hear: Callable[[Optional[float]], Optional[Message]],
    stopped: Callable[[Optional[Message]], Optional[Outcome]],
) -> Outcome:
    """Wait until the service with the main process ``pid`` is ready, has ended, or its start is ``stopped``.

    ``hear`` gives the next message, None where none has come at that monotonic time (None: at the start's limit).
    """
    look: Optional[float] = time.monotonic()
    try:
        while True:
            if look is not None and time.monotonic() >= look:
                if probe.look():
                    return Outcome(PASSED, None, "")
                look = _after(probe.pause())
            message = hear(look)
            if isinstance(message, Exited) and message.pid == pid:
                return Outcome(FAILED, message.code, f"it ended before it was ready: {ending(message.code)}")
            if message is not None and probe.heed(message):
                return Outcome(PASSED, None, "")
            why = stopped(message)
            if why is not None and why.verdict == TIMEOUT:
                return Outcome(TIMEOUT, why.exit_code, f"{why.reason}: {probe.missing()}", why.own)
            if why is not None:
                return why
            if look is None:
                look = _after(probe.pause())
    except (OSError, ValueError) as error:
        return Outcome(ERROR, None, f"it cannot be told whether it is ready: {reason_of(error)}")
    finally:
        probe.close()


def _after(pause: Optional[float]) -> Optional[float]:
    """The monotonic time after a pause."""
    return None if pause is None else time.monotonic() + pause


def probe_of(
    step: PlannedStep,
    environment: Dict[str, str],
    address: str,
    launch: Launch,
    wait: AwaitValue,
    tell: Callable[[Message], None],
) -> Probe:
    """What tells that the service is ready; its node is reached at ``address``."""
    ready: Dict[str, Any] = step.ready or {}
    if PORT in ready:
        return Port(int(ready[PORT]), (address,) if address else ())
    if COMMAND in ready:
        return Check(lambda: launch(f"{log_name(step)}.ready", ready[COMMAND]))
    return Value(fill_in(str(ready["key"]), of_step(environment, step)), wait, tell) if ready else AtOnce()


def fill_in(text: str, environment: Mapping[str, str]) -> str:
    """The text with ``$NAME`` and ``${NAME}`` replaced by what the environment has."""

    def value(found: re.Match[str]) -> str:
        return environment.get(found[1] or found[2], found[0])

    return re.sub(r"\$(?:\{(\w+)\}|(\w+))", value, text, flags=re.ASCII)


def taken(port: int, address: str) -> str:
    """Why a service cannot have a port; empty where nobody listens there yet."""
    if Port(port, (address,) if address else ()).look():
        return f"port {port} is taken: something on {os.uname().nodename} listens there already"
    return ""
