"""Processes that others started, watched and, where it must be, killed: the jobs inside a worker.

One rule: a process is watched and signalled through its pidfd, so never by a pid that has changed hands.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from supervisor.process import ending
from supervisor.process.pidfd import Pidfd
from supervisor.process.procfs import (
    TICKS_PER_SECOND,
    Stat,
    carrying,
    environment,
    read_stat,
    variable,
)
from supervisor.process.variables import LAUNCH

_HALF_A_TICK = 0.5 / TICKS_PER_SECOND


class PidfdWatch:
    """Implements :class:`supervisor.core.ports.ProcessWatch`."""

    def create_time(self, pid: int) -> float | None:
        stat = _alive(pid)
        return stat.start_ticks / TICKS_PER_SECOND if stat is not None else None

    def watch(self, pid: int, on_exit: Callable[[], None]) -> Callable[[], None]:
        loop = asyncio.get_running_loop()
        stat = _alive(pid)
        process = Pidfd.open(stat.identity) if stat is not None else None
        if process is None:
            return loop.call_soon(on_exit).cancel

        def stop() -> None:
            if process.fileno() >= 0:
                if not loop.is_closed():
                    loop.remove_reader(process.fileno())
                process.close()

        def exited() -> None:
            stop()
            on_exit()

        loop.add_reader(process.fileno(), exited)
        return stop

    def kill(self, pid: int, create_time: float) -> bool:
        stat = _alive(pid)
        if stat is None or not is_same_time(stat.start_ticks, create_time) or _is_above_us(pid):
            return False
        return ending.kill(stat.identity)

    def in_tree(self, pid: int, root_pid: int, marks: tuple[tuple[str, str], ...]) -> bool:
        return is_in_tree(pid, root_pid, marks)


def is_same_time(start_ticks: int, seconds: float) -> bool:
    """Whether a process's start and a create time are the same moment, to the clock tick."""
    return abs(start_ticks / TICKS_PER_SECOND - seconds) < _HALF_A_TICK


def is_in_tree(pid: int, root_pid: int, marks: tuple[tuple[str, str], ...] = ()) -> bool:
    """Whether ``pid`` is ``root_pid`` or descends from it, or carries its marks.

    By marks, a job whose parent has died is still known as the root's: ``marks``, and the name of the root's
    own launch, so that what an earlier worker has left behind is not.
    """
    if pid == root_pid or descends_from(pid, root_pid):
        return _alive(root_pid) is not None
    root, own = environment(root_pid), environment(pid)
    if not marks or not root or not own:
        return False
    launch = variable(root, LAUNCH)
    return carrying((*marks, (LAUNCH, launch)) if launch is not None else marks)(own)


def descends_from(pid: int, root_pid: int) -> bool:
    stat = read_stat(pid)
    while stat is not None and stat.ppid > 0:
        parent = read_stat(stat.ppid)
        # A parent is older than its child: else its pid has gone to another process while we walked.
        if parent is None or parent.start_ticks > stat.start_ticks:
            return False
        if parent.pid == root_pid:
            return True
        stat = parent
    return False


def _alive(pid: int) -> Stat | None:
    stat = read_stat(pid)
    return stat if stat is not None and stat.is_alive else None


def _is_above_us(pid: int) -> bool:
    return pid <= 1 or pid == os.getpid() or descends_from(os.getpid(), pid)
