"""A lease that is kept alive: how a node or a controller says that it lives."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Callable

from testbed.coord.store import Lease, LeaseExpired, Store, StoreError, Unavailable

_REFRESHES = 3  # in one time to live: two may get lost
_RETRIES = 10  # in one time to live, while the store is away
_GAP = 0.6  # of a time to live without an answer: a lease that was refreshed just before others' may end of that


class Session:
    """A lease of ``seconds``, refreshed by a thread of its own until `close`.

    While the store is away the session goes on trying. If the lease has expired meanwhile, it makes a new one and
    calls ``renewed(lease)``, in which the owner puts its keys again (a StoreError there means: call me again later).
    ``lost(error)`` is called once, and the session is over, where the store will have none of it any more, or the
    lease expired and there is no ``renewed``. Both are called on the session's thread. Raises StoreError if there
    is no first lease to be had.
    """

    def __init__(
        self,
        store: Store,
        seconds: float,
        lost: Callable[[StoreError], None],
        renewed: Callable[[Lease], None] | None = None,
    ) -> None:
        self._store = store
        self._seconds = seconds
        self._lost = lost
        self._renewed = renewed
        self._owed = False  # the owner has not yet put its keys on the new lease
        self._closed = False
        self._wake = threading.Condition()
        self._lease = store.lease(seconds)
        self._answered = time.monotonic()  # when the store answered last
        self._returned = 0.0  # when it answered after a gap
        self._thread = threading.Thread(target=self._keep, name="session", daemon=True)
        self._thread.start()

    @property
    def lease(self) -> Lease:
        """The lease as it stands now."""
        return self._lease

    def store_was_away(self) -> bool:
        """Whether the store has answered nobody, until lately, for so long that leases may have ended of that alone.

        Lately: less than the session's time to live ago.
        """
        now = time.monotonic()
        silent = now - self._answered > _GAP * self._seconds
        return silent or (self._returned > 0 and now - self._returned < self._seconds)

    def close(self, revoke: bool = True) -> None:
        """End the session; ``revoke`` its lease too, or let that run out where no key is on it any more.

        The keys on the lease go with it. Takes no longer than the lease would live by itself. Raises nothing: a store
        that is away, or has shut this member out, lets the lease end by itself.
        """
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        if revoke:
            with suppress(StoreError):
                self._lease.revoke()

    def _keep(self) -> None:
        pause = self._seconds / _REFRESHES
        while not self._closed_after(pause):
            pause = self._seconds / _REFRESHES
            try:
                self._refresh()
            except Unavailable:
                pause = self._seconds / _RETRIES
            except StoreError as error:
                if not self._closed:
                    self._lost(error)
                return

    def _refresh(self) -> None:
        try:
            self._lease.refresh()
            self._note_answer()
        except LeaseExpired:
            self._note_answer()
            if self._renewed is None:
                raise
            self._lease = self._store.lease(self._seconds)
            self._owed = True
        if self._owed and self._renewed is not None:
            try:
                self._renewed(self._lease)
            except LeaseExpired as error:
                raise Unavailable(f"the new lease did not live long enough: {error}") from error
            self._owed = False

    def _note_answer(self) -> None:
        now = time.monotonic()
        if now - self._answered > _GAP * self._seconds:
            self._returned = now
        self._answered = now

    def _closed_after(self, seconds: float) -> bool:
        with self._wake:
            return self._wake.wait_for(lambda: self._closed, seconds)
