"""One look at all processes, for all who need one at the same time.

One rule: whoever asks gets a look that begins afterwards; and all that is seen of a process is read at one
go, since it may be gone a millisecond later, and its child look like it.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from weakref import WeakKeyDictionary

from supervisor.process import lock
from supervisor.process.files import FileRefused, require_judgement
from supervisor.process.procfs import Stat, ancestors, environment, pids, read_stat

_LISTINGS = 10


class Sight:
    """What was seen; environments only of those that started at ``since`` (clock ticks) or later.

    ``at_once`` is told of each process in the moment that it is seen.
    """

    def __init__(self, since: int = 0, at_once: Callable[[Stat, bytes], None] | None = None) -> None:
        self._since = since
        self._at_once = at_once
        self.table: dict[int, Stat] = {}
        self.environments: dict[int, bytes] = {}
        """Of those that live and let us look."""
        self.missed = False
        """Somebody was just gone."""
        self.doubtful: set[int] = set()
        """They had no environment, as while they execute a program, or just before they are gone."""
        self._files: lock.OpenFiles | None = None
        for pid in _all_pids():
            self._see(pid)
        self.children = children_in(self.table)
        self.spared = {1, os.getpid(), *ancestors(os.getpid(), self.table)}
        """Never meant: we ourselves, and those that we descend from."""

    def holders(self, path: Path) -> frozenset[int]:
        """Who holds that lock.  The cheap question first: nearly always nobody does."""
        try:
            if not lock.is_held(path):
                return frozenset()
        except FileRefused as error:
            require_judgement(error)
            return frozenset()
        if self._files is None:
            self._files = lock.OpenFiles(self.table)
        return frozenset(self._files.holders(path))

    def _see(self, pid: int) -> None:
        stat = read_stat(pid)
        if stat is None:
            self.missed = True
            return
        self.table[pid] = stat
        block = self._environment(stat)
        if block:
            self.environments[pid] = block
        if self._at_once is not None:
            self._at_once(stat, block)

    def _environment(self, stat: Stat) -> bytes:
        if stat.start_ticks < self._since or stat.is_kernel_thread or not stat.is_alive:
            return b""
        block = environment(stat.pid)
        if not block and (block is not None or read_stat(stat.pid) is None):
            self.doubtful.add(stat.pid)
        return block or b""


def children_in(table: Mapping[int, Stat]) -> dict[int, list[int]]:
    children: defaultdict[int, list[int]] = defaultdict(list)
    for stat in table.values():
        children[stat.ppid].append(stat.pid)
    return dict(children)


def _all_pids() -> Iterator[int]:
    """Also of those that are born while one goes through the others."""
    seen: set[int] = set()
    for _ in range(_LISTINGS):
        new = sorted(set(pids()) - seen)
        if not new:
            return
        seen.update(new)
        yield from new


class _Coming:
    """The next look, and how far back it has to reach for those that wait for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, since: int) -> None:
        self.sight: asyncio.Future[Sight] = loop.create_future()
        self.since = since


_coming: WeakKeyDictionary[asyncio.AbstractEventLoop, _Coming] = WeakKeyDictionary()


async def shared_sight(since: int) -> Sight:
    """A look that begins after this call, and serves all that wait for one by then."""
    loop = asyncio.get_running_loop()
    coming = _coming.get(loop)
    if coming is None:
        coming = _coming[loop] = _Coming(loop, since)
        loop.call_soon(_look, loop)
    coming.since = min(coming.since, since)
    return await asyncio.shield(coming.sight)


def _look(loop: asyncio.AbstractEventLoop) -> None:
    coming = _coming.pop(loop)
    try:
        coming.sight.set_result(Sight(coming.since))
    except OSError as error:
        coming.sight.set_exception(error)
