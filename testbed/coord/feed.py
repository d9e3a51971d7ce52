"""One watch stream for a whole process, however many wait: followers come and go, the stream carries them all."""

from __future__ import annotations

import threading
from typing import Callable, Sequence

from testbed.coord.store import Change, Compacted, Snapshot, Span, Store, StoreError, Watch

Changed = Callable[[Sequence[Change]], object]
Failed = Callable[[StoreError], None]


class Following:
    """One follower of a span; made by `Feed.follow`."""

    def __init__(self, span: Span, changed: Changed, failed: Failed, read: bool) -> None:
        self.span = span
        self.read = read
        self.next = span.revision  # the first revision not yet delivered; 0: not known yet
        self.closed = False
        self._changed = changed
        self._failed = failed
        self._early: list[Change] = []  # came before `begin`
        self._there: set[str] = set()  # the keys that were told as set

    def close(self) -> None:
        """Hear no more of it; a call already under way may still end."""
        self.closed = True

    def begin(self, snapshot: Snapshot) -> None:
        """Deliver what the span holds, if asked for, and go on from there."""
        if self.read:
            self._tell([Change(e.key, e.value, e.revision) for e in snapshot.entries])
        self.next = snapshot.revision + 1
        early, self._early = self._early, []
        if early:
            self.offer(early)

    def offer(self, changes: Sequence[Change]) -> None:
        """Deliver those of the changes that are of the span and new."""
        mine = [c for c in changes if self.span.holds(c.key) and c.revision >= self.next]
        if not self.next:
            self._early += mine
            return
        self.next = max(self.next, changes[-1].revision + 1)
        if mine:
            self._tell(mine)

    def catch_up(self, snapshot: Snapshot) -> None:
        """Deliver what the changes that are compacted came to: keys as they stand, then those that are gone."""
        news = [Change(e.key, e.value, e.revision) for e in snapshot.entries if e.revision >= self.next]
        news.sort(key=lambda change: change.revision)
        gone = self._there.difference(e.key for e in snapshot.entries)
        news += [Change(key, None, snapshot.revision) for key in sorted(gone)]
        self.next = snapshot.revision + 1
        if news:
            self._tell(news)

    def _tell(self, changes: Sequence[Change]) -> None:
        if self.closed:
            return
        for change in changes:
            (self._there.discard if change.value is None else self._there.add)(change.key)
        if self._changed(changes):
            self.closed = True

    def fail(self, error: StoreError) -> None:
        """Tell the follower that it will hear no more."""
        if not self.closed:
            self.closed = True
            self._failed(error)


class _Group:
    """A stretch of keys that the stream carries for its followings; groups never overlap."""

    def __init__(self, followings: list[Following], span: Span) -> None:
        self.followings = followings
        self.span = span
        self.seen = span.revision - 1  # changes up to this revision were dispatched

    def covers(self, following: Following) -> bool:
        """Whether all that the following wants is still to come on the stream."""
        start, end = _bounds(following.span)
        own_start, own_end = _bounds(self.span)
        return own_start <= start and end <= own_end and not 0 < following.next <= self.seen


class Feed:
    """The process's one watch stream. Its threads start with the first `follow`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._wake = threading.Condition()  # guards the next six
        self._new: list[Following] = []
        self._error: StoreError | None = None
        self._stale = False  # the stream carries what nobody wants any more
        self._watch: Watch | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._order = threading.RLock()  # one delivery at a time; guards the next two and the followings
        self._groups: list[_Group] = []
        self._unplaced: list[Following] = []
        self._pump: threading.Thread | None = None

    def follow(self, span: Span, changed: Changed, failed: Failed, read: bool = False) -> Following:
        """Call ``changed(changes)`` for every change in the span from its revision on, in order, each once.

        With ``read`` the first call tells what the span holds (maybe nothing), and the changes after that follow;
        the span's own revision does not count then. Where the store has compacted what would have come next, the span
        is read, and ``changed`` is told what it came to: keys set since, by revision, as they stand now, and the end of
        keys that it was told as set; what was set and deleted meanwhile is never told. ``failed(error)`` is the last
        call: the store was away for too long, or denied it. A ``changed`` that returns something true wants no more.
        Both are called on the feed's threads, one at a time, and must not block.
        """
        return self.follow_all([(span, changed)], failed, read)[0]

    def follow_all(self, wanted: Sequence[tuple[Span, Changed]], failed: Failed, read: bool = False) -> list[Following]:
        """`follow` several spans; the stream is opened once for all of them."""
        made = [Following(Span(s.start, s.end) if read else s, changed, failed, read) for s, changed in wanted]
        with self._wake:
            if self._closed:
                raise StoreError("the feed is closed")
            self._new += made
            if self._thread is None:
                self._thread = threading.Thread(target=self._manage, name="feed", daemon=True)
                self._thread.start()
            self._wake.notify_all()
        return made

    def close(self) -> None:
        """End the stream; all followers are told by ``failed``.

        Waits for a read under way, which ends at once where the store was closed before. Not to be called from a
        follower's callback.
        """
        with self._wake:
            self._closed = True
            watch, thread = self._watch, self._thread
            self._wake.notify_all()
        if watch is not None:
            watch.close()
        if thread is not None:
            thread.join()

    def _manage(self) -> None:
        try:
            while self._turn():
                pass
        finally:  # whatever ended it, nobody must wait for ever
            with self._wake:
                self._closed = True
                new, self._new = self._new, []
            self._fail(StoreError("the feed is closed"), new)

    def _turn(self) -> bool:
        """Wait for something to do and do it; False when closed."""
        with self._wake:
            self._wake.wait_for(lambda: self._closed or self._new or self._error or self._stale)
            if self._closed:
                return False
            new, self._new = self._new, []
            error, self._error = self._error, None
            stale, self._stale = self._stale, False
        if error is not None:
            self._fail(error)
        for following in new:
            self._admit(following)
        if error is not None or stale or any(not f.closed for f in self._unplaced):
            self._reopen()
        return True

    def _admit(self, following: Following) -> None:
        """Give the following its place and its start; what comes on the stream meanwhile is kept for it."""
        with self._order:
            group = next((g for g in self._groups if g.covers(following)), None)
            (group.followings if group else self._unplaced).append(following)
        if following.next or following.closed:
            return
        span = following.span
        try:
            snapshot = self._store.range(span.start, span.end if following.read else "")
        except StoreError as error:
            following.fail(error)
            return
        with self._order:
            following.begin(snapshot)

    def _reopen(self) -> None:
        """Open the stream anew for all who live, each from its own next revision on."""
        self._stop()
        with self._order:
            live = [f for f in self._followings() if not f.closed]
            self._groups, self._unplaced = _group(live), []
            spans = [g.span for g in self._groups]
        if not spans:
            return
        try:
            watch = self._store.watch(spans)
        except StoreError as error:
            with self._wake:
                self._error = error
            return
        with self._wake:
            self._watch = watch
        self._pump = threading.Thread(target=self._run, args=(watch,), name="feed-stream", daemon=True)
        self._pump.start()

    def _run(self, watch: Watch) -> None:
        error = StoreError("a follower of the feed failed")  # its traceback is on stderr then
        try:
            for batch in watch:
                self._dispatch(batch)
            error = StoreError("the store is closed")
        except StoreError as fall:
            error = fall
        finally:
            with self._wake:
                if self._watch is watch:
                    self._error = error
                    self._wake.notify_all()

    def _dispatch(self, batch: Sequence[Change]) -> None:
        with self._order:
            for group in self._groups:
                hits = [c for c in batch if group.span.holds(c.key)]
                if not hits:
                    continue
                group.seen = hits[-1].revision
                for following in group.followings:
                    following.offer(hits)
                if all(f.closed for f in group.followings):
                    with self._wake:
                        self._stale = True
                        self._wake.notify_all()

    def _stop(self) -> None:
        """End the stream; what it has given out is dispatched when this returns."""
        with self._wake:
            watch, self._watch = self._watch, None
        if watch is not None:
            watch.close()
        if self._pump is not None:
            self._pump.join()
            self._pump = None

    def _fail(self, error: StoreError, more: Sequence[Following] = ()) -> None:
        """Tell those whom the error concerns; the others are carried on."""
        self._stop()
        with self._order:
            live = [f for f in [*self._followings(), *more] if not f.closed]
        if isinstance(error, Compacted):
            for following in [f for f in live if f.next < error.revision] or live:
                self._catch_up(following)
            return
        with self._order:
            for following in live:
                following.fail(error)

    def _catch_up(self, following: Following) -> None:
        try:
            snapshot = self._store.range(following.span.start, following.span.end)
        except StoreError as error:
            following.fail(error)
            return
        with self._order:
            following.catch_up(snapshot)

    def _followings(self) -> list[Following]:
        return [f for g in self._groups for f in g.followings] + self._unplaced


def _bounds(span: Span) -> tuple[bytes, bytes]:
    start = span.start.encode()
    return start, span.end.encode() if span.end else start + b"\0"


def _group(followings: Sequence[Following]) -> list[_Group]:
    """Merge overlapping spans, so that no change comes twice."""
    groups: list[_Group] = []
    for following in sorted(followings, key=lambda f: _bounds(f.span)):
        start, end = _bounds(following.span)
        last = groups[-1] if groups else None
        if last is None or _bounds(last.span)[1] <= start:
            groups.append(_Group([following], Span(following.span.start, following.span.end, following.next)))
            continue
        own_end = _bounds(last.span)[1]
        merged = last.span.end if end <= own_end else following.span.end
        span = Span(last.span.start, merged, min(last.span.revision, following.next))
        groups[-1] = _Group([*last.followings, following], span)
    return groups
