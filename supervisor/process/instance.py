"""One daemon per state directory.

One rule: the lock is the first thing a daemon takes and the last it gives back, and no child ever has it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from supervisor.process import lock, pidfile
from supervisor.process.files import (
    FileRefused,
    StateDirectoryError,
    private_directory,
    require_judgement,
)
from supervisor.process.procfs import boot_id, create_time, read_stat

PIDFILE_ID = "daemon"
"""What the daemon's own pidfile says it is of."""

_PATIENCE = 0.25
"""Seconds.  A daemon that was killed while it started a worker has the lock until that child executes its
program, and ``status`` may just be looking."""


class AlreadyRunning(Exception):
    """Another daemon holds the state directory; ``pid`` when its pidfile tells."""

    def __init__(self, state_dir: Path, pid: int | None) -> None:
        self.pid = pid
        who = f"process {pid}" if pid else "another process"
        super().__init__(f"a supervisor is already running on {state_dir} ({who})")


class InstanceLock:
    """Held from construction to :meth:`release`, or to the end of this process.

    Creates the state directory.  Raises :class:`AlreadyRunning` or :class:`StateDirectoryError`.
    """

    def __init__(self, state_dir: Path) -> None:
        private_directory(state_dir)
        self._pidfile = state_dir / "daemon.pid"
        self._descriptor = self._acquire(state_dir)
        self._record()

    def _acquire(self, state_dir: Path) -> int:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return lock.acquire(state_dir / "daemon.lock")
            except lock.LockHeld:
                if time.monotonic() >= deadline:
                    raise AlreadyRunning(state_dir, running_daemon(state_dir)) from None
            except FileRefused as error:
                raise StateDirectoryError(str(error)) from error
            time.sleep(0.01)

    def _record(self) -> None:
        stat = read_stat(os.getpid())
        ticks = stat.start_ticks if stat is not None else 0
        record = pidfile.Record(
            id=PIDFILE_ID,
            pid=os.getpid(),
            start_ticks=ticks,
            create_time=create_time(ticks),
            boot_id=boot_id(),
            launch="",
            command_hash="",
        )
        try:
            pidfile.write(self._pidfile, record)
        except OSError:
            # A full disk.  The lock decides anyway; an old pidfile would mislead.
            pidfile.remove(self._pidfile)

    def release(self) -> None:
        """Give it back; the pidfile goes first, so that it never tells of a daemon that is gone."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            pidfile.remove(self._pidfile)
            os.close(descriptor)


def is_running(state_dir: Path) -> bool:
    """Whether a daemon holds that state directory; False also when we may not look.

    Raises ``OSError`` when we have come to a limit of our own.
    """
    try:
        return lock.is_held(state_dir / "daemon.lock")
    except FileRefused as error:
        require_judgement(error)
        return False


def running_daemon(state_dir: Path) -> int | None:
    """The pid of the daemon that holds it, where its pidfile tells and that process has the lock."""
    record = pidfile.read(state_dir / "daemon.pid", PIDFILE_ID)
    if isinstance(record, pidfile.Unusable):
        return None
    holders = lock.holders(state_dir / "daemon.lock", among=(record.pid,))
    return holders[0] if holders else None
