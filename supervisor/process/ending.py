"""Ending a whole tree: what a process is the root of, and what has come from it and got away.

One rule: nobody is signalled whose identity was not seen in the same look that found them, and never we
ourselves or those that we descend from.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.process import lock
from supervisor.process.files import FileRefused
from supervisor.process.pidfd import Pidfd
from supervisor.process.procfs import Identity, Marked, Stat, ancestors, environment, read_table

PATIENCE = 1.0
"""Seconds until a killed process that is still there counts as one that will not die."""

_PAUSE = 0.002
_LONGEST_PAUSE = 0.02


@dataclass(frozen=True, slots=True)
class Ended:
    killed: tuple[int, ...]
    survivors: tuple[int, ...]
    """Still there: in the middle of a system call that cannot be interrupted, or not ours to signal."""


@dataclass(slots=True)
class Prey:
    """Which processes are meant.  What was once found to be one stays one, also when it loses its parent."""

    roots: frozenset[Identity] = frozenset()
    marked: Marked | None = None
    """Tells by its environment; also those that are nobody's child any more."""
    since: int = 0
    """Clock ticks: those that are marked started no earlier."""
    lock_path: Path | None = None
    """Who holds this lock is meant."""
    unsure: frozenset[Identity] = frozenset()
    """By the last look: those without any environment, as every process is while it executes a program."""
    _known: dict[int, int] = field(default_factory=dict)

    def look(self) -> list[Stat]:
        """Those that are alive now, eldest first: who is gone cannot start another."""
        table = read_table()
        spared = {1, os.getpid(), *ancestors(os.getpid(), table)}
        found = {p for p in self._named(table) if p not in spared}
        self._add_descendants(found, spared, table)
        self._known.update({pid: table[pid].start_ticks for pid in found})
        return sorted((table[p] for p in found if table[p].is_alive), key=lambda s: s.start_ticks)

    def _named(self, table: Mapping[int, Stat]) -> set[int]:
        identities = [*self.roots, *(Identity(p, t) for p, t in self._known.items())]
        found = {i.pid for i in identities if i.pid in table and table[i.pid].identity == i}
        if self.marked is not None:
            found |= self._carrying(table, self.marked)
        if self.lock_path is not None:
            found |= {pid for pid in _holders(self.lock_path) if pid in table}
        return found

    def _carrying(self, table: Mapping[int, Stat], marked: Marked) -> set[int]:
        found, unsure = set(), set()
        for stat in table.values():
            if stat.is_kernel_thread or stat.start_ticks < self.since or not stat.is_alive:
                continue
            block = environment(stat.pid)
            if block == b"":
                unsure.add(stat.identity)
            elif block is not None and marked(block):
                found.add(stat.pid)
        self.unsure = frozenset(unsure)
        return found

    def _add_descendants(self, found: set[int], spared: set[int], table: Mapping[int, Stat]) -> None:
        children = defaultdict(list)
        for stat in table.values():
            children[stat.ppid].append(stat.pid)
        unseen = list(found)
        while unseen:
            new = [pid for pid in children[unseen.pop()] if pid not in found and pid not in spared]
            found.update(new)
            unseen.extend(new)


def _holders(path: Path) -> tuple[int, ...]:
    """The cheap question first: nearly always nobody holds it."""
    with contextlib.suppress(FileRefused):
        return lock.holders(path) if lock.is_held(path) else ()
    return ()


async def end(prey: Prey, patience: float = PATIENCE) -> Ended:
    """SIGKILL them, and whoever appears meanwhile, until there is none or ``patience`` is over."""
    deadline = time.monotonic() + patience
    killed: dict[int, None] = {}
    looked_at: set[Identity] = set()
    pause = _PAUSE
    while True:
        alive = prey.look()
        if not alive and prey.unsure <= looked_at:
            return Ended(tuple(killed), ())
        if alive and time.monotonic() >= deadline:
            return Ended(tuple(killed), tuple(stat.pid for stat in alive))
        looked_at |= prey.unsure
        killed.update({stat.pid: None for stat in alive if kill(stat.identity)})
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


def kill(identity: Identity) -> bool:
    """SIGKILL exactly that process; False when it is gone, or not ours to signal."""
    process = Pidfd.open(identity)
    if process is None:
        return False
    try:
        return process.signal(signal.SIGKILL)
    except PermissionError:
        return False
    finally:
        process.close()


async def end_tree(root: Identity) -> Ended:
    """End a process that no lock says is ours, a rogue, with everything below it."""
    return await end(Prey(roots=frozenset({root})))
