"""Processes of the model: what the daemon can learn from the kernel about workers and jobs.

One rule: a process dies once, and its owner knows at once; the daemon knows when it is told.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable


class ModelProcess:
    def __init__(
        self, pid: int, create_time: float, parent: ModelProcess | None, died: Callable[[], None]
    ) -> None:
        self.pid = pid
        self.create_time = create_time
        self.parent = parent
        self.alive = True
        self.watchers: list[Callable[[], None]] = []
        self._died = died

    def die(self, *, told: bool = True) -> None:
        """SIGKILL, or its own end.  ``told`` false: whoever watches it does not notice."""
        if not self.alive:
            return
        self.alive = False
        self._died()
        watchers, self.watchers = self.watchers, []
        if told:
            for watcher in watchers:
                asyncio.get_running_loop().call_soon(watcher)


class ModelProcesses:
    """Implements :class:`supervisor.core.ports.ProcessWatch`."""

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self._pids = itertools.count(1_000)
        self._by_pid: dict[int, ModelProcess] = {}

    def spawn(self, died: Callable[[], None], parent: ModelProcess | None = None) -> ModelProcess:
        process = ModelProcess(next(self._pids), self._wall(), parent, died)
        self._by_pid[process.pid] = process
        return process

    def create_time(self, pid: int) -> float | None:
        process = self._alive(pid)
        return process.create_time if process is not None else None

    def watch(self, pid: int, on_exit: Callable[[], None]) -> Callable[[], None]:
        process = self._alive(pid)
        if process is None:
            handle = asyncio.get_running_loop().call_soon(on_exit)
            return handle.cancel
        watchers = process.watchers
        watchers.append(on_exit)

        def stop() -> None:
            if on_exit in watchers:
                watchers.remove(on_exit)

        return stop

    def kill(self, pid: int, create_time: float) -> bool:
        process = self._alive(pid)
        if process is None or process.create_time != create_time:
            return False
        process.die()
        return True

    def in_tree(self, pid: int, root_pid: int, marks: tuple[tuple[str, str], ...]) -> bool:
        process = self._alive(pid)
        while process is not None and process.pid != root_pid:
            process = process.parent
        return process is not None

    def _alive(self, pid: int) -> ModelProcess | None:
        process = self._by_pid.get(pid)
        if process is not None and not process.alive:
            del self._by_pid[pid]
            return None
        return process
