"""Starting one program as a worker that owes the daemon nothing.

One rule: it gets its own session, a file for its output, and the lock; no pipe, no other descriptor, nothing
that breaks or blocks when the daemon is gone.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from supervisor.core.ports import ProcessSpec, SpawnFailed
from supervisor.process.files import FileRefused, open_own
from supervisor.process.procfs import TICKS_PER_SECOND
from supervisor.process.variables import LAUNCH, LOCK_FD

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO})


@dataclass(frozen=True, slots=True)
class Launch:
    """One start of a process, as its name tells: when, and of which command."""

    name: str

    @classmethod
    def new(cls, command_hash: str) -> Launch:
        ticks = int(time.clock_gettime(time.CLOCK_BOOTTIME) * TICKS_PER_SECOND)
        return cls(f"{ticks}.{secrets.token_hex(8)}.{command_hash}")

    @property
    def ticks(self) -> int:
        """Clock ticks since boot, just before the fork; 0 when the name is not one of ours."""
        first = self.name.split(".", 2)[0]
        return int(first) if first.isdecimal() and len(first) < 19 else 0

    @property
    def command_hash(self) -> str:
        parts = self.name.split(".", 2)
        return parts[2] if len(parts) == 3 else ""


def start(spec: ProcessSpec, lock: int, launch: Launch) -> tuple[int, str]:
    """The pid of a new child that inherits ``lock``, and what had to be done without, if anything.

    Raises :class:`SpawnFailed`.
    """
    output, lacking = _open_output(spec.log_path)
    try:
        return _fork_and_exec(spec, lock, launch, output), lacking
    finally:
        os.close(output)


def _fork_and_exec(spec: ProcessSpec, lock: int, launch: Launch, output: int) -> int:
    environment = {**dict(spec.env), LOCK_FD: str(lock), LAUNCH: launch.name}
    try:
        # Nothing here may need Python code in the child: it starts by vfork, whatever our size.
        child = subprocess.Popen(
            spec.argv,
            cwd=spec.cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(lock,),
            start_new_session=True,
        )
    except OSError as error:
        raise SpawnFailed(_why(spec, error)) from error
    except (ValueError, IndexError) as error:  # a NUL in an argument or variable; no argument at all
        raise SpawnFailed(f"cannot start {spec.argv[:1]}: {error}") from error
    # It is waited for through its pidfd.  Without this, Popen would wait for it, or warn, behind our back.
    child.returncode = 0
    return child.pid


def _open_output(path: str) -> tuple[int, str]:
    """The log, for appending; a worker whose log has no room on the disk runs without one."""
    try:
        return open_own(Path(path), os.O_WRONLY | os.O_APPEND | os.O_CREAT), ""
    except FileRefused as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
            return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), f"its output is lost: {error}"
        raise SpawnFailed(f"its log cannot be written: {error}") from error


def _why(spec: ProcessSpec, error: OSError) -> str:
    program = spec.argv[0] if spec.argv else ""
    if not _is_directory(spec.cwd):
        return f"cannot start {program}: its working directory {spec.cwd} is not there or is no directory"
    if error.errno == errno.ENOENT:
        return f"cannot start {program}: there is no such program, or its interpreter is missing"
    return f"cannot start {program}: {error.strerror}"


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False
