"""What a process tree uses.

One rule: all trees are measured on one look at the processes, so that a look costs the same for one agent
as for a hundred.  Who has left its parent is still counted: it carries the name of the launch it came from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from supervisor.process.procfs import (
    PAGE_SIZE,
    TICKS_PER_SECOND,
    Stat,
    environment,
    read_bytes,
    read_table,
    variable,
)
from supervisor.process.variables import LAUNCH

_Program = tuple[int, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class TreeUsage:
    memory_bytes: int
    """Private memory of each process, and shared file pages once; see :meth:`Census.usage`."""
    cpu_seconds: float
    """Of the processes that live, and of those of their children that they have waited for."""
    processes: int


class Launches:
    """Which launch each process has come from: an environment is read once for a program, not each time."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[_Program, str]] = {}

    def among(self, table: Mapping[int, Stat]) -> dict[int, str]:
        """By pid, of those that tell."""
        seen: dict[int, tuple[_Program, str]] = {}
        for stat in table.values():
            if stat.is_kernel_thread or not stat.is_alive:
                continue
            program = (stat.start_ticks, stat.program)
            known = self._seen.get(stat.pid)
            if known is not None and known[0] == program:
                seen[stat.pid] = known
            elif (block := environment(stat.pid)) != b"":  # as while it executes a program
                seen[stat.pid] = program, variable(block or b"", LAUNCH) or ""
        self._seen = seen
        return {pid: launch for pid, (_, launch) in seen.items() if launch}


class Census:
    """One look at all processes.  ``launches`` is what earlier looks have learnt."""

    def __init__(self, launches: Launches | None = None) -> None:
        self._table = read_table()
        self._launches = (launches or Launches()).among(self._table)
        self._of_launch: defaultdict[str, list[int]] = defaultdict(list)
        for pid, launch in self._launches.items():
            self._of_launch[launch].append(pid)
        self._children: defaultdict[int, list[int]] = defaultdict(list)
        for stat in self._table.values():
            self._children[stat.ppid].append(stat.pid)

    def tree(self, root: int) -> tuple[Stat, ...]:
        """The process, those of the same launch, and everything below them; empty when it is gone."""
        if root not in self._table:
            return ()
        found = dict.fromkeys([root, *self._of_launch.get(self._launches.get(root, ""), ())])
        unseen = list(found)
        while unseen:
            new = [pid for pid in self._children.get(unseen.pop(), ()) if pid not in found]
            found.update(dict.fromkeys(new))
            unseen.extend(new)
        return tuple(self._table[pid] for pid in found)

    def usage(self, root: int) -> TreeUsage:
        """Memory is an estimate that costs little: what forked processes still share counts more than once.

        :func:`proportional_memory` is exact, and costs some 2 ms per 100 MB.
        """
        members = self.tree(root)
        sizes = [size for stat in members if (size := _resident_and_shared(stat.pid)) is not None]
        private = sum(resident - shared for resident, shared in sizes)
        return TreeUsage(
            memory_bytes=private + max((shared for _, shared in sizes), default=0),
            cpu_seconds=sum(stat.cpu_ticks for stat in members) / TICKS_PER_SECOND,
            processes=len(members),
        )


def usage(pid: int) -> TreeUsage:
    """Of one tree; for several, ask one :class:`Census`."""
    return Census().usage(pid)


def proportional_memory(pids: Iterable[int]) -> int:
    """Bytes in memory with what is shared divided among those that share it (PSS).

    Where the kernel does not tell, what is resident counts whole: too much rather than too little.
    """
    return sum(_proportional(pid) for pid in pids)


def _proportional(pid: int) -> int:
    for line in (read_bytes(f"/proc/{pid}/smaps_rollup") or b"").splitlines():
        if line.startswith(b"Pss:"):
            return int(line.split()[1]) * 1024
    sizes = _resident_and_shared(pid)
    return sizes[0] if sizes is not None else 0


def _resident_and_shared(pid: int) -> tuple[int, int] | None:
    fields = (read_bytes(f"/proc/{pid}/statm") or b"").split()
    return (int(fields[1]) * PAGE_SIZE, int(fields[2]) * PAGE_SIZE) if len(fields) > 2 else None
