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
    Identity,
    Stat,
    carrying,
    environment,
    read_stat,
    variable,
)
from supervisor.process.variables import LAUNCH

_HALF_A_TICK = 0.5 / TICKS_PER_SECOND
_LOOK_AGAIN = 0.5
"""Seconds."""


class PidfdWatch:
    """Implements :class:`supervisor.core.ports.ProcessWatch`.

    What cannot be told, for want of a free descriptor, raises ``OSError``; a watch waits until it can be.
    """

    def __init__(self) -> None:
        self._held: set[Pidfd] = set()
        """Of those that are watched and may be killed."""

    def create_time(self, pid: int) -> float | None:
        stat = _alive(pid)
        return stat.start_ticks / TICKS_PER_SECOND if stat is not None else None

    def watch(self, pid: int, on_exit: Callable[[], None]) -> Callable[[], None]:
        return _Watching(pid, on_exit, self._held).stop

    def kill(self, pid: int, create_time: float) -> bool:
        for process in self._held:  # that takes no free descriptor
            if process.identity.pid == pid and is_same_time(process.identity.start_ticks, create_time):
                return process.kill()
        stat = _alive(pid)
        if stat is None or not is_same_time(stat.start_ticks, create_time) or _is_above_us(pid):
            return False
        return ending.kill(stat.identity)

    def in_tree(self, pid: int, root_pid: int, marks: tuple[tuple[str, str], ...]) -> bool:
        return is_in_tree(pid, root_pid, marks)


class _Watching:
    """A process, until it is known to have exited or nobody asks any more.

    While it cannot be looked at, or held, it is asked for again now and then: that is no exit.
    """

    def __init__(self, pid: int, on_exit: Callable[[], None], held: set[Pidfd]) -> None:
        self._loop = asyncio.get_running_loop()
        self._pid = pid
        self._on_exit = on_exit
        self._held = held
        self._identity: Identity | None = None
        self._process: Pidfd | None = None
        self._next: asyncio.Handle | None = None
        self._look()

    def stop(self) -> None:
        if self._next is not None:
            self._next.cancel()
        process, self._process = self._process, None
        if process is not None:
            self._held.discard(process)
            if not self._loop.is_closed():
                self._loop.remove_reader(process.fileno())
            process.close()

    def _look(self) -> None:
        try:
            is_spared = _is_above_us(self._pid)
            process = self._open()
        except OSError:
            self._next = self._loop.call_later(_LOOK_AGAIN, self._look)
            return
        if process is None:
            self._next = self._loop.call_soon(self._exited)
            return
        self._process = process
        self._loop.add_reader(process.fileno(), self._exited)
        if not is_spared:
            self._held.add(process)

    def _open(self) -> Pidfd | None:
        stat = _alive(self._pid)
        if stat is None or self._identity not in (None, stat.identity):
            return None
        self._identity = stat.identity
        return Pidfd.open(stat.identity)

    def _exited(self) -> None:
        self.stop()
        self._on_exit()


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
