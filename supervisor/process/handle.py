"""A supervised process: our child, or one that an earlier daemon has started.

One rule: its exit is noticed through its pidfd either way, and how it ended is what the kernel says; where
the kernel does not say, it stays unknown.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

from supervisor.core.ports import ExitStatus
from supervisor.process.ending import Prey, end
from supervisor.process.pidfd import Pidfd, exit_of_stranger, reap
from supervisor.process.procfs import TICKS_PER_SECOND, Identity, carrying, create_time, read_stat
from supervisor.process.variables import LAUNCH

_STATUS_PAUSE = 0.005
_STATUS_PATIENCE = 0.5
"""Seconds.  A stranger's status may be told only when its parent has waited for it; init does so soon."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What is known of how a process was started."""

    launch: str
    """The name of its launch; empty when nothing tells."""
    marks: tuple[tuple[str, str], ...]
    command_hash: str
    lock_path: Path

    @property
    def tree_marks(self) -> tuple[tuple[str, str], ...]:
        """Those variables by which everything that came from it is told from everything else."""
        return (*self.marks, (LAUNCH, self.launch)) if self.launch else self.marks


class PosixProcess:
    """Implements :class:`supervisor.core.ports.ProcessHandle`."""

    def __init__(self, process: Pidfd, origin: Origin, *, adopted: bool, lacking: str = "") -> None:
        self._process = process
        self._origin = origin
        self._adopted = adopted
        self._prey = Prey(
            roots=frozenset({process.identity}),
            marked=carrying(origin.tree_marks),
            since=process.identity.start_ticks,
            lock_path=origin.lock_path,
        )
        self._status: ExitStatus | None = None
        self._exited = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._patience_ends = 0.0
        self.lacking = lacking
        """What it has to do without, for the operator: its log or its pidfile; mostly empty."""

    @property
    def pid(self) -> int:
        return self._process.identity.pid

    @property
    def identity(self) -> Identity:
        return self._process.identity

    @property
    def create_time(self) -> float:
        return create_time(self._process.identity.start_ticks)

    @property
    def age(self) -> float:
        since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
        return max(0.0, since_boot - self._process.identity.start_ticks / TICKS_PER_SECOND)

    @property
    def adopted(self) -> bool:
        return self._adopted

    @property
    def command_hash(self) -> str:
        return self._origin.command_hash

    @property
    def launch(self) -> str:
        """In the environment of its whole tree, as LIVEKIT_SUPERVISOR_LAUNCH; empty when it is not known."""
        return self._origin.launch

    def signal(self, number: int) -> bool:
        # It may exit at once, and leave children of which nothing tells that they were its own.  If we cannot
        # look at processes just now, those that carry its marks are found all the same.
        with contextlib.suppress(OSError):
            self._prey.remember()
        return self._process.signal(number)

    async def wait(self) -> ExitStatus:
        if self._status is None and self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._process.fileno(), self._on_exit)
        while self._status is None:
            await self._exited.wait()
        return self._status

    async def kill_tree(self) -> tuple[int, ...]:
        return (await end(self._prey)).survivors

    def close(self) -> None:
        """Forget the process without touching it; nobody may be waiting for it any more."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(self._process.fileno())
        self._process.close()

    def _on_exit(self) -> None:
        assert self._loop is not None
        self._loop.remove_reader(self._process.fileno())
        self._patience_ends = self._loop.time() + _STATUS_PATIENCE
        self._ask_for_status()

    def _ask_for_status(self) -> None:
        assert self._loop is not None
        status: ExitStatus | None = None
        is_over = False
        with contextlib.suppress(OSError):  # no descriptor left to look with: it is asked again
            # Once its parent has waited for it, a kernel that does not tell will never do.
            is_over = self._adopted and read_stat(self.pid) is None
            status = exit_of_stranger(self._process) if self._adopted else reap(self._process)
        if status is None and not is_over and self._loop.time() < self._patience_ends:
            self._loop.call_later(_STATUS_PAUSE, self._ask_for_status)
            return
        self._status = status or ExitStatus()
        self._process.close()
        self._exited.set()
