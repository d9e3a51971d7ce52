"""Machines with agents, and those who look at them."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.coord.chunks import Begun, Ended, Note, Output
from testbed.coord.gateway import GatewayStore, connect
from testbed.coord.peeking import Gone, Peek, Seen, Wanted
from tests.agent.conftest import machine, machines, own_etcd, shared_etcd
from tests.agent.machine import LIMIT, Machine

__all__ = ["machine", "machines", "own_etcd", "shared_etcd"]


class Looker:
    """Somebody who looks at node n0 on a thread of his own and keeps all that he sees."""

    def __init__(self, machine: Machine, store: GatewayStore, **wanted: object) -> None:
        asked = Wanted(("n0",), **{"step": "test.main", **wanted})  # type: ignore[arg-type]
        self.peek = Peek(store, machine.run, asked, self._hear_away)
        self.told: list[str] = []  # why etcd is away, and that it is back
        self.logs: dict[tuple[str, str], bytes] = {}
        self.begun: list[Begun] = []
        self.ended: list[Ended] = []
        self.notes: list[str] = []
        self.gone: Gone | None = None
        self.error: BaseException | None = None
        self.sums: dict[tuple[str, str], hashlib._Hash] = {}
        self.keeps = True
        self._wake = threading.Condition()
        self._paused = False
        self._over = False
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _hear_away(self, why: str) -> None:
        with self._wake:
            self.told.append(why)
            self._wake.notify_all()

    def _look(self) -> None:
        try:
            for _, seen in self.peek:
                with self._wake:
                    self._take(seen)
                    self._wake.notify_all()
                    self._wake.wait_for(lambda: not self._paused)
        except BaseException as error:  # noqa: BLE001  told by `await_end`
            self.error = error
        with self._wake:
            self._over = True
            self._wake.notify_all()

    def _take(self, seen: Seen | object) -> None:
        match seen:
            case Output(step, stream, _, data):
                key = (step, stream)
                self.sums.setdefault(key, hashlib.sha256()).update(data)
                if self.keeps:
                    self.logs[key] = self.logs.get(key, b"") + data
            case Begun():
                self.begun.append(seen)
            case Ended():
                self.ended.append(seen)
            case Note(text):
                self.notes.append(text)
            case Gone():
                self.gone = seen

    def pause(self) -> None:
        """Read nothing more for now, so that nothing more is confirmed."""
        with self._wake:
            self._paused = True

    def resume(self) -> None:
        """Read on."""
        with self._wake:
            self._paused = False
            self._wake.notify_all()

    def wait(self, there: Callable[[], bool]) -> None:
        """Block until it is so."""
        with self._wake:
            assert self._wake.wait_for(lambda: there() or self._over, LIMIT), self
            assert there(), self

    def await_text(self, text: bytes, step: str = "a.test.main", stream: str = "out") -> None:
        """Block until that text was seen."""
        self.wait(lambda: text in self.logs.get((step, stream), b""))

    def await_offset(self, offset: int) -> None:
        """Block until stdout was seen up to there."""

        def there() -> bool:
            place = self.peek.position("n0")
            return place is not None and place.out >= offset

        self.wait(there)

    def await_end(self) -> Gone:
        """Block until nothing more comes; what the last word was."""
        with self._wake:
            assert self._wake.wait_for(lambda: self._over, LIMIT), self
        if self.error is not None:
            raise self.error
        assert self.gone is not None
        return self.gone

    def close(self) -> None:
        """Look no longer."""
        self.resume()
        self.peek.close()
        self._thread.join(LIMIT)

    def __repr__(self) -> str:
        sizes = {key: len(data) for key, data in self.logs.items()}
        return f"{sizes} {self.begun} {self.ended} {self.notes} {self.gone} {self.error!r}"


@pytest.fixture
def look() -> Iterator[Callable[..., Looker]]:
    """Makes lookers, each with a connection of its own, and has them go at the end."""
    made: list[tuple[Looker, GatewayStore]] = []

    def begin(machine: Machine, **wanted: object) -> Looker:
        store = connect(machine.access)
        made.append((Looker(machine, store, **wanted), store))
        return made[-1][0]

    yield begin
    for looker, store in made:
        looker.close()
        store.close()


def digest(path: Path) -> str:
    """The SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
