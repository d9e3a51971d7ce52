"""A child process that never outlives this one, says when it is ready, and is watched until it ends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

_READY_SOCKET = "ready"

# Runs between fork and exec of the program, as a process of its own, because nothing but exec is safe in a forked
# child of a program with threads. PR_SET_PDEATHSIG (1) has the kernel kill this process when its parent's thread is
# gone; the comparison closes the gap in which the parent may have died before.
_LAUNCHER = """
import ctypes, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(1, signal.SIGKILL, 0, 0, 0):
    sys.exit("prctl(PR_SET_PDEATHSIG): " + os.strerror(ctypes.get_errno()))
if os.getppid() == int(sys.argv[1]):
    try:
        os.execv(sys.argv[2], sys.argv[2:])
    except OSError as error:
        sys.exit(sys.argv[2] + ": " + error.strerror)
"""


class BoundProcess:
    """A program in its own session, so that Ctrl-C does not reach it; killed by the kernel when this process dies.

    The program runs in ``directory``, which must be its own, with ``environment`` as its whole environment, and writes
    stdout and stderr to the end of ``log``. It must speak systemd's readiness protocol, as etcd does (``READY=1`` to
    ``NOTIFY_SOCKET``). Raises OSError if it cannot be started.
    """

    def __init__(self, arguments: Sequence[str], directory: Path, log: Path, environment: Mapping[str, str]) -> None:
        self._ready = _listen(directory)
        self._gone, self._alive = socket.socketpair()  # one end is closed when the program has ended
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[int], None]] = []
        self._ended = False
        launched: Future[subprocess.Popen[bytes]] = Future()
        # The kernel's promise hangs on the thread that started the child, not on the process: so it is started by a
        # thread that lives until the child has ended, and never by a worker that may go before.
        self._thread = threading.Thread(
            target=self._live,
            args=(launched, arguments, directory, log, environment),
            name=f"wait for {Path(arguments[0]).name}",
            daemon=True,
        )
        self._thread.start()
        try:
            self._process = launched.result()
        except OSError:
            self._thread.join()
            self._close()
            raise
        except BaseException:  # interrupted before the child was known
            launched.add_done_callback(_kill)
            raise

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the signal that ended it."""
        return self._process.returncode

    def wait_ready(self, timeout: float) -> bool:
        """Wait until the program says that it is ready; False if it ended or stayed silent for that many seconds."""
        poll = select.poll()
        poll.register(self._ready, select.POLLIN)
        poll.register(self._gone, select.POLLIN)
        events = dict(poll.poll(timeout * 1000))
        return self._ready.fileno() in events and b"READY=1" in self._ready.recv(4096)

    def on_exit(self, callback: Callable[[int], None]) -> None:
        """Call ``callback`` with the exit code when the process ends (at once if it has), in the waiting thread."""
        with self._lock:
            if not self._ended:
                self._callbacks.append(callback)
                return
        callback(self._process.returncode)

    def stop(self, grace: float) -> None:
        """End the process, by force after ``grace`` seconds; returns when it is gone, if it is not yet."""
        self._process.send_signal(signal.SIGTERM)
        self._thread.join(grace)
        if self._thread.is_alive():
            self._process.kill()
            self._thread.join()
        self._close()

    def _close(self) -> None:
        for end in (self._ready, self._gone, self._alive):
            end.close()

    def _live(
        self,
        launched: Future[subprocess.Popen[bytes]],
        arguments: Sequence[str],
        directory: Path,
        log: Path,
        environment: Mapping[str, str],
    ) -> None:
        try:
            with log.open("ab") as output:
                process = subprocess.Popen(
                    [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *arguments],
                    cwd=directory,
                    env={**environment, "NOTIFY_SOCKET": _READY_SOCKET},
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
        except OSError as error:
            launched.set_exception(error)
            return
        launched.set_result(process)
        process.wait()
        self._alive.close()
        with self._lock:
            self._ended = True
            callbacks = tuple(self._callbacks)
        for callback in callbacks:
            callback(process.returncode)


def _kill(launched: Future[subprocess.Popen[bytes]]) -> None:
    if launched.exception() is None:
        launched.result().kill()


def _listen(directory: Path) -> socket.socket:
    # through /proc, because the directory's path may be longer than a socket's may be
    ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    handle = -1
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        with contextlib.suppress(FileNotFoundError):  # of a process that was here before
            os.unlink(_READY_SOCKET, dir_fd=handle)
        ready.bind(f"/proc/self/fd/{handle}/{_READY_SOCKET}")
    except OSError:
        ready.close()
        raise
    finally:
        if handle >= 0:
            os.close(handle)
    return ready
