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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.process import lock
from supervisor.process.files import FileRefused
from supervisor.process.pidfd import Pidfd
from supervisor.process.procfs import (
    Identity,
    Marked,
    Stat,
    ancestors,
    environment,
    pids,
    read_stat,
    read_table,
)

PATIENCE = 1.0
"""Seconds until a killed process that is still there counts as one that will not die."""

_PAUSE = 0.002
_LONGEST_PAUSE = 0.02
_LISTINGS = 10
_DOUBTS = 3
"""Looks that found none, and could have missed one, until none counts as none."""


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
    unsure: bool = False
    """At the last look some process had no environment, as while it executes a program, or was just gone."""
    _known: dict[int, int] = field(default_factory=dict)

    def remember(self) -> None:
        """Note who descends from the roots now: when those are gone, nothing else may tell."""
        table = read_table()
        found = {root.pid for root in self.roots if (s := table.get(root.pid)) and s.identity == root}
        _add_descendants(found, {1, os.getpid()}, table)
        self._known.update({pid: table[pid].start_ticks for pid in found})

    def look(self) -> list[Stat]:
        """Those that are alive now, eldest first: who is gone does not see its children die."""
        table, found = self._read()
        found.update(self._in_their_sessions(table))
        spared = {1, os.getpid(), *ancestors(os.getpid(), table)}
        found -= spared
        _add_descendants(found, spared, table)
        self._known.update({pid: table[pid].start_ticks for pid in found})
        return sorted((table[p] for p in found if table[p].is_alive), key=lambda s: s.start_ticks)

    def _read(self) -> tuple[dict[int, Stat], set[int]]:
        """All processes, and those of them that are meant themselves."""
        table: dict[int, Stat] = {}
        found: set[int] = set()
        self.unsure = False
        holders = _holders(self.lock_path) if self.lock_path is not None else ()
        for pid in _all_pids():
            stat = read_stat(pid)
            if stat is None:
                self.unsure = True
                continue
            table[pid] = stat
            # At once, not after the whole table: it may be gone in a millisecond, and its child look like it.
            if pid in holders or self._is_named(stat) or self._carries(stat):
                found.add(pid)
        return table, found

    def _is_named(self, stat: Stat) -> bool:
        return self._known.get(stat.pid) == stat.start_ticks or stat.identity in self.roots

    def _in_their_sessions(self, table: Mapping[int, Stat]) -> Iterator[int]:
        """Who is in the session that a root led has come from it, also without parent and variables.

        The kernel gives a number to nobody else while it names a session.
        """
        led = {root.pid: root.start_ticks for root in self.roots if _may_lead(root, table)}
        for stat in table.values():
            if stat.session in led and stat.start_ticks >= led[stat.session]:
                yield stat.pid

    def _carries(self, stat: Stat) -> bool:
        if self.marked is None or stat.is_kernel_thread or stat.start_ticks < self.since:
            return False
        block = environment(stat.pid) if stat.is_alive else b"-"
        if block == b"" or (block is None and read_stat(stat.pid) is None):
            self.unsure = True
        return bool(block) and self.marked(block or b"")


def _may_lead(root: Identity, table: Mapping[int, Stat]) -> bool:
    """Not when the number is another one's by now: then its session is gone, too."""
    leader = table.get(root.pid)
    return leader is None or leader.identity == root


def _all_pids() -> Iterator[int]:
    """Also of those that are born while one goes through the others."""
    seen: set[int] = set()
    for _ in range(_LISTINGS):
        new = sorted(set(pids()) - seen)
        if not new:
            return
        seen.update(new)
        yield from new


def _add_descendants(found: set[int], spared: set[int], table: Mapping[int, Stat]) -> None:
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
    pause, doubts = _PAUSE, 0
    while True:
        alive = prey.look()
        doubts = doubts + 1 if prey.unsure and not alive else 0
        if not alive and not 0 < doubts <= _DOUBTS:
            return Ended(tuple(killed), ())
        if alive and time.monotonic() >= deadline:
            return Ended(tuple(killed), tuple(stat.pid for stat in alive))
        killed.update({stat.pid: None for stat in alive if kill(stat.identity)})
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE) if alive else _PAUSE


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
