"""A process held by a pidfd: signals reach that process or nobody, and its exit is an event.

One rule: the identity is checked after the pidfd is there.  If the process with that pid and start time is
seen then, it was there when the pidfd was opened, so the pidfd is its own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import signal
import struct

from supervisor.core.ports import ExitStatus
from supervisor.process.procfs import Identity, read_stat

# From the kernel's uapi/linux/pidfd.h: struct pidfd_info, version 0, and PIDFD_GET_INFO (Linux 6.13).
_INFO = struct.Struct("=QQ11Ii")
_GET_INFO = (3 << 30) | (_INFO.size << 16) | (0xFF << 8) | 11
_INFO_EXIT = 1 << 3
"""Filled in after the process has been reaped, since Linux 6.15."""


class Pidfd:
    """One process, dead or alive.  Close it, or let it be collected."""

    def __init__(self, descriptor: int, identity: Identity) -> None:
        self._descriptor = descriptor
        self.identity = identity

    @classmethod
    def open(cls, identity: Identity) -> Pidfd | None:
        """None when that process is gone, whoever has its pid now; raises ``OSError`` when not known."""
        try:
            held = cls(os.pidfd_open(identity.pid), identity)
        except (ProcessLookupError, OverflowError, ValueError):
            return None
        except OSError as error:
            if error.errno in _NO_PROCESS:
                return None
            raise
        try:
            stat = read_stat(identity.pid)
        except OSError:
            held.close()
            raise
        if stat is None or stat.start_ticks != identity.start_ticks:
            held.close()
            return None
        return held

    @classmethod
    def open_child(cls, pid: int) -> Pidfd:
        """Of a child that has not been waited for: its pid cannot be anybody else's."""
        descriptor = os.pidfd_open(pid)
        try:
            stat = read_stat(pid)
            if stat is None:  # a pid namespace's /proc that is not ours
                raise ProcessLookupError(errno.ESRCH, "/proc does not show it")
        except OSError:
            os.close(descriptor)
            raise
        return cls(descriptor, stat.identity)

    def fileno(self) -> int:
        return self._descriptor

    def signal(self, number: int) -> bool:
        """False when the process is dead."""
        if self._descriptor < 0 or self.has_exited():
            return False
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            return False
        return True

    def kill(self) -> bool:
        """False when the process is dead, or not ours to signal."""
        try:
            return self.signal(signal.SIGKILL)
        except PermissionError:
            return False

    def has_exited(self, timeout: float = 0.0) -> bool:
        """Whether it is a zombie or gone, at the latest after ``timeout`` seconds."""
        if self._descriptor < 0:
            return True
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            self.close()


_NO_PROCESS = frozenset({errno.ENOENT, errno.ESRCH, errno.EINVAL})
"""The last for the ID of a thread, or a number that no process can have."""


def reap(child: Pidfd) -> ExitStatus | None:
    """Wait for a child of ours that has exited; None when it has not."""
    try:
        result = os.waitid(os.P_PIDFD, child.fileno(), os.WEXITED | os.WNOHANG)
    except ChildProcessError:
        # Somebody else in this process has waited for it; the kernel may still know.
        return exit_of_stranger(child) or ExitStatus()
    if result is None:
        return None
    if result.si_code == os.CLD_EXITED:
        return ExitStatus(code=result.si_status)
    return ExitStatus(signal=result.si_status)


def exit_of_stranger(process: Pidfd) -> ExitStatus | None:
    """How a process that is no child of ours has ended; None when the kernel does not tell (yet).

    It tells through the pidfd once the process's parent has waited for it, and through ``/proc`` before that.
    """
    status = _status_by_ioctl(process.fileno())
    if status is None:
        stat = read_stat(process.identity.pid)
        if stat is not None and stat.identity == process.identity and not stat.is_alive:
            status = stat.wait_status if _may_look_into(process.identity.pid) else None
    if status is None:
        status = _status_by_ioctl(process.fileno())
    return None if status is None else _decode(status)


def _status_by_ioctl(descriptor: int) -> int | None:
    buffer = bytearray(_INFO.pack(_INFO_EXIT, *([0] * 13)))
    try:
        fcntl.ioctl(descriptor, _GET_INFO, buffer, True)
    except OSError:  # an older kernel
        return None
    values = _INFO.unpack(buffer)
    return int(values[-1]) if values[0] & _INFO_EXIT else None


def _may_look_into(pid: int) -> bool:
    """The exit code in a stranger's ``stat`` reads as 0: its links are kept from us by the same rule."""
    try:
        os.readlink(f"/proc/{pid}/ns/pid")
    except PermissionError:
        return False
    except OSError:
        return True
    return True


def _decode(status: int) -> ExitStatus:
    if os.WIFSIGNALED(status):
        return ExitStatus(signal=os.WTERMSIG(status))
    return ExitStatus(code=os.WEXITSTATUS(status))
