"""Ending a whole tree: what a process is the root of, and what has come from it and got away.

One rule: nobody is signalled whose identity was not seen in the same look that found them, and never we
ourselves or those that we descend from.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.process.pidfd import Pidfd
from supervisor.process.procfs import Identity, Marked, Stat, ancestors, read_table
from supervisor.process.sight import Sight, children_in, shared_sight

PATIENCE = 1.0
"""Seconds until a killed process that is still there counts as one that will not die."""

_PAUSE = 0.002
_LONGEST_PAUSE = 0.02
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
        _add_descendants(found, {1, os.getpid()}, children_in(table))
        self._known.update({pid: table[pid].start_ticks for pid in found})

    def catch(self, killed: dict[int, None]) -> list[Stat]:
        """As :meth:`look`; and who is plainly meant is killed when it is seen: later it has forked again."""

        def strike(stat: Stat, block: bytes) -> None:
            meant = self._is_named(stat) or (self.marked is not None and self.marked(block))
            if meant and stat.pid not in spared and stat.is_alive and kill(stat.identity):
                killed[stat.pid] = None

        spared = {1, os.getpid(), *ancestors(os.getpid(), read_table())}
        return self.look(Sight(self.since, at_once=strike))

    def look(self, sight: Sight | None = None) -> list[Stat]:
        """Those that are alive now, eldest first: who is gone does not see its children die."""
        sight = sight or Sight(self.since)
        table = sight.table
        found = self._meant(sight)
        found.update(self._in_their_sessions(table))
        found -= sight.spared
        _add_descendants(found, sight.spared, sight.children)
        self._known.update({pid: table[pid].start_ticks for pid in found})
        return sorted((table[p] for p in found if table[p].is_alive), key=lambda s: (s.start_ticks, s.pid))

    def _meant(self, sight: Sight) -> set[int]:
        """Who is meant for what is known of it itself."""
        found = {pid for pid, stat in sight.table.items() if self._is_named(stat)}
        if self.lock_path is not None:
            found |= sight.holders(self.lock_path)
        self.unsure = sight.missed
        if self.marked is not None:
            young = {pid for pid, stat in sight.table.items() if stat.start_ticks >= self.since}
            self.unsure |= not young.isdisjoint(sight.doubtful)
            found |= {p for p, block in sight.environments.items() if p in young and self.marked(block)}
        return found

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


def _may_lead(root: Identity, table: Mapping[int, Stat]) -> bool:
    """Not when the number is another one's by now: then its session is gone, too."""
    leader = table.get(root.pid)
    return leader is None or leader.identity == root


def _add_descendants(found: set[int], spared: set[int], children: Mapping[int, list[int]]) -> None:
    unseen = list(found)
    while unseen:
        new = [p for p in children.get(unseen.pop(), ()) if p not in found and p not in spared]
        found.update(new)
        unseen.extend(new)


async def end(prey: Prey, patience: float = PATIENCE) -> Ended:
    """SIGKILL them, and whoever appears meanwhile, until there is none or ``patience`` is over."""
    deadline = time.monotonic() + patience
    killed: dict[int, None] = {}
    seen: set[int] = set()
    pause, doubts, chasing = _PAUSE, 0, False
    while True:
        alive = prey.catch(killed) if chasing else prey.look(await shared_sight(prey.since))
        doubts = doubts + 1 if prey.unsure and not alive else 0
        if not alive and not 0 < doubts <= _DOUBTS:
            return Ended(tuple(killed), ())
        if alive and time.monotonic() >= deadline:
            return Ended(tuple(killed), tuple(stat.pid for stat in alive))
        found = {stat.pid for stat in alive}
        chasing = bool(seen) and not found <= seen
        seen |= found
        killed.update({stat.pid: None for stat in alive if kill(stat.identity)})
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE) if alive else _PAUSE


def kill(identity: Identity) -> bool:
    """SIGKILL exactly that process; False when it is gone, or not ours to signal."""
    process = Pidfd.open(identity)
    if process is None:
        return False
    try:
        return process.kill()
    finally:
        process.close()


async def end_tree(root: Identity) -> Ended:
    """End a process that no lock says is ours, a rogue, with everything below it."""
    return await end(Prey(roots=frozenset({root})))
