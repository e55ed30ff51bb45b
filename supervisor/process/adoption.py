"""Finding the worker that an earlier daemon has started.

One rule: two witnesses.  A pidfile is believed when the process itself confirms it; without a pidfile, the
holder of the lock must be the very process that was forked then, not what is left of its tree.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from supervisor.core.ports import ProcessSpec
from supervisor.process import lock, pidfile
from supervisor.process.pidfd import Pidfd
from supervisor.process.procfs import (
    TICKS_PER_SECOND,
    Stat,
    ancestors,
    carrying,
    environment,
    read_stat,
    read_table,
    variable,
)
from supervisor.process.spawn import Launch
from supervisor.process.variables import LAUNCH

_FORK_TICKS = 2 * TICKS_PER_SECOND
"""Between naming a launch and its fork; a busy machine may well take a while."""
_EXECUTING, _LOOK_AGAIN = 0.2, 0.002
"""Seconds for which a process that has only just been started may show no environment yet: in all, since
the whole daemon waits meanwhile."""


@dataclass(frozen=True, slots=True)
class Found:
    """A worker that runs."""

    process: Pidfd
    launch: Launch
    has_pidfile: bool


def find_worker(spec: ProcessSpec, lock_path: Path, pidfile_path: Path) -> Found | None:
    """The running worker of ``spec.id``; what is merely left of a dead one is none.

    Raises :class:`supervisor.process.files.FileRefused` when the lock's path cannot be used and no pidfile
    tells: whether there is one is not known then.
    """
    found = find_recorded(spec, lock_path, pidfile_path)
    if found is None and lock.is_held(lock_path):
        return _find_by_lock(spec, lock_path, pidfile_path)
    return found


def find_recorded(spec: ProcessSpec, lock_path: Path, pidfile_path: Path) -> Found | None:
    """The running worker that the pidfile tells of, if it confirms that; it may have given up the lock."""
    record = pidfile.read(pidfile_path, spec.id)
    process = Pidfd.open(record.identity) if isinstance(record, pidfile.Record) else None
    if process is None or isinstance(record, pidfile.Unusable):
        return None
    # Asked last: until it has exited, its pid was its own, also while we looked.
    if _confirms(record, spec, lock_path) and not process.has_exited():
        return Found(process, Launch(record.launch), has_pidfile=True)
    process.close()
    return None


def _confirms(record: pidfile.Record, spec: ProcessSpec, lock_path: Path) -> bool:
    """Any of three will do: a program may close unknown descriptors, or overwrite its environment."""
    if record.pid in {os.getpid(), os.getppid()}:
        return False
    if lock.holders(lock_path, among=(record.pid,)):
        return True
    block = environment(record.pid) or b""
    if record.launch and carrying((*spec.marks, (LAUNCH, record.launch)))(block):
        return True
    stat = read_stat(record.pid)
    return stat is not None and stat.session == stat.pid and _writes_to(record.pid, spec.log_path)


def _writes_to(pid: int, log_path: str) -> bool:
    try:
        log = os.lstat(log_path)
        return any(os.path.samestat(log, os.stat(f"/proc/{pid}/fd/{n}")) for n in (1, 2))
    except OSError:
        return False


def _find_by_lock(spec: ProcessSpec, lock_path: Path, pidfile_path: Path) -> Found | None:
    """The daemon was killed before it could write a pidfile, or somebody has spoilt it."""
    table = read_table()
    record = pidfile.read(pidfile_path, spec.id)
    dead = record.launch if isinstance(record, pidfile.Record) else None
    deadline = time.monotonic() + _EXECUTING
    held_by = [pid for pid in lock.holders(lock_path) if pid in table]
    candidates = [pid for pid in held_by if _was_forked_by_us(table[pid], spec, deadline)]
    for pid in _topmost(candidates, table):
        process = Pidfd.open(table[pid].identity)
        launch = variable(_environment(pid, deadline), LAUNCH) or ""
        # Of a launch that the pidfile knows, the worker was another process, and this one is what it left.
        if process is not None and launch != dead and not process.has_exited():
            return Found(process, Launch(launch), has_pidfile=False)
    return None


def _was_forked_by_us(stat: Stat, spec: ProcessSpec, deadline: float) -> bool:
    """The leader of its session, with our marks, from the moment that its launch is named after."""
    block = _environment(stat.pid, deadline)
    launch = variable(block, LAUNCH)
    if launch is None or not stat.is_alive or stat.session != stat.pid or not carrying(spec.marks)(block):
        return False
    return 0 <= stat.start_ticks - Launch(launch).ticks + 1 <= _FORK_TICKS


def _environment(pid: int, deadline: float) -> bytes:
    """Of a holder of the lock: whoever is executing its program at this moment has none, and soon will."""
    while (block := environment(pid)) == b"" and time.monotonic() < deadline:
        time.sleep(_LOOK_AGAIN)
    return block or b""


def _topmost(candidates: list[int], table: Mapping[int, Stat]) -> list[int]:
    above = {pid: set(ancestors(pid, table)) for pid in candidates}
    return sorted(
        (pid for pid in candidates if not above[pid] & set(candidates)),
        key=lambda pid: table[pid].start_ticks,
    )
