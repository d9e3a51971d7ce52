"""What is seen of a run's steps, wherever it is: live from the nodes, and from the run directory once it is home."""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from testbed.agent.plan import Access
from testbed.cli.home import Home
from testbed.coord.chunks import ERR, OUT, Begun, Ended, Note, Output
from testbed.coord.peeking import SLOW, Gone, Peek, Seen, Wanted
from testbed.coord.store import Denied, Store, StoreError
from testbed.errors import LabError
from testbed.events import AnsibleTask
from testbed.run.directory import RunDirectory

if TYPE_CHECKING:  # loaded where somebody waits
    from testbed.agent.noticing import Noticing

PATIENCE = 60.0
"""Seconds that etcd, or a node, may be out of reach where nothing else is said."""


@dataclass
class Look:
    """One look at a run: iterate for what is seen. ``directory`` and ``access``: None where there is none.

    What the nodes could not show any more is read from the directory, where there is one.
    """

    run: str
    wanted: Wanted
    directory: RunDirectory | None
    access: Access | None
    away: Callable[[str], object] = lambda _: None  # told at once, by any thread, that etcd is away, or back
    failed: bool = False  # some node was lost, or out of reach
    ends: dict[tuple[str, str, str], int] = field(
        default_factory=dict
    )  # (node, step, stream) -> bytes shown up to there
    _over: set[tuple[str, str]] = field(default_factory=set)  # (node, step) whose end was shown
    _peek: Peek | None = None
    _store: Store | None = None
    _ended: bool = False

    def __iter__(self) -> Iterator[Seen]:
        left: dict[str, float | None] = dict.fromkeys(self.wanted.nodes)
        if self.access is not None:
            yield from self._live(self.access, left)
        if self.directory is None:
            for node in left:
                yield node, Note("what it wrote last is in the run directory of its controller")
            return
        if self.access is not None and left:
            yield from self._await_home(self.directory, left)
        home = self._home(self.directory)
        yield from home.show(tuple(left))
        self.failed = self.failed or home.failed

    def end(self) -> None:
        """The run is over, and its etcd gone: see to the rest in the directory. From any thread."""
        self._ended = True
        if self._peek is not None and self._store is not None:
            self._peek.close()
            self._store.close()

    # --- live ---------------------------------------------------------------------------------------------------

    def _live(self, access: Access, left: dict[str, float | None]) -> Iterator[Seen]:
        """What the nodes show; those that showed all of it are taken out of ``left``.

        Of those that were lost it holds until when, in monotonic seconds, their logs are waited for.
        """
        from testbed.coord.gateway import connect

        patience = PATIENCE if self.wanted.patience is None else self.wanted.patience
        with closing(connect(access, max(patience, 1.0))) as store:
            self._store = store
            self._peek = Peek(store, self.run, self.wanted, self._tell_away)
            if self._ended:
                return
            try:
                for node, seen in self._peek:
                    yield from self._pass_on(node, seen)
                    if isinstance(seen, Gone):
                        self.failed = self.failed or not seen.well
                        if not seen.well:
                            left[node] = time.monotonic() + (0 if seen.late else patience)
                        if seen.whole:
                            left.pop(node, None)
            except Denied as error:
                raise LabError(f"etcd refuses: {error}", "check user and password: --user, --password-file") from error
            except StoreError as error:
                if not self._ended and (self.directory is None or self.directory.access.exists()):
                    raise LabError(f"the run's etcd is gone: {error}", "see `testbed status`") from error

    def _tell_away(self, why: str) -> None:
        patience = PATIENCE if self.wanted.patience is None else self.wanted.patience
        self.away(away(why, patience))

    def _pass_on(self, node: str, seen: object) -> Iterator[Seen]:
        match seen:
            case AnsibleTask():
                step = f"{seen.configuration}.{seen.target}.{seen.step}"
                if self.directory is None:
                    yield node, seen
                else:
                    if (node, step, OUT) not in self.ends:
                        yield node, Begun(step, 0, 0)
                    yield from self._home(self.directory).rest(node, step, (OUT,))
            case Output(step, stream, offset, data):
                self.ends[node, step, stream] = offset + len(data)
                yield node, seen
            case Ended(step):
                if self.directory is not None and not seen.out:  # Ansible's: its log is written here
                    yield from self._home(self.directory).rest(node, step, (OUT,))
                self._over.add((node, step))
                yield node, seen
            case Begun(step, out, err):
                self.ends.setdefault((node, step, OUT), out)
                self.ends.setdefault((node, step, ERR), err)
                yield node, seen
            case Note() | Gone():
                yield node, seen

    # --- from the run directory ---------------------------------------------------------------------------------

    def _home(self, directory: RunDirectory) -> Home:
        return Home(directory, self.wanted, self.ends, self._over)

    def _await_home(self, directory: RunDirectory, left: Mapping[str, float | None]) -> Iterator[Seen]:
        """Wait until the nodes' logs are home, or will not come, for as long as there is somebody to bring them."""
        from testbed.cli.reading import read_directory
        from testbed.run.cleaning import is_alive

        told, since = False, time.monotonic()
        with _Changing(str(directory.path)) as changing:
            while True:
                state, now = read_directory(directory).state, time.monotonic()
                missing = {
                    name: limit
                    for name, limit in left.items()
                    if name in state.nodes and not state.nodes[name].results and (limit is None or limit > now)
                }
                if state.verdict or not missing or not is_alive(directory):
                    return
                limits = [limit - now for limit in missing.values() if limit is not None]
                changing.wait(min([*limits, PATIENCE if told else max(0.0, since + SLOW - now)]))
                if not told and time.monotonic() >= since + SLOW:
                    told = True
                    for node in missing:
                        yield node, Note("its logs are on their way home; waiting for them")


class _Changing:
    """Wakes who waits for something in a folder to change; where the kernel can't tell, again and again."""

    def __init__(self, folder: str) -> None:
        from testbed.agent.noticing import BLIND_PACE, Noticing

        self._noticing: Noticing | None = None
        self._longest = math.inf
        self._poll = select.poll()
        try:
            self._noticing = Noticing(folder)
            self._poll.register(self._noticing.descriptor, select.POLLIN)
        except (OSError, ImportError):
            self._longest = BLIND_PACE

    def wait(self, seconds: float) -> None:
        """Sleep until something may have changed, for so long at most."""
        if self._poll.poll(min(seconds, self._longest) * 1000) and self._noticing is not None:
            self._noticing.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *of: object) -> None:
        if self._noticing is not None:
            self._noticing.close()


def away(why: str, patience: float) -> str:
    """What is said when etcd does not answer, or (without a ``why``) does again; ``patience`` in seconds."""
    return f"etcd does not answer ({why}); waiting for up to {patience:g} s" if why else "etcd answers again"
