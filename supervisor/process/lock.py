"""The lock that decides: an ``flock``, which dies with whoever holds it.

One rule: a lock belongs to the open file, not to a process.  Whoever has inherited its descriptor holds it,
and nobody who merely opened the file does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

from supervisor.process.files import FileRefused, open_own
from supervisor.process.procfs import pids, read_bytes

_TRIES = 10


class LockHeld(Exception):
    """Somebody holds it."""


def acquire(path: Path) -> int:
    """A descriptor that holds the lock; closed on exec unless handed over.

    Raises :class:`LockHeld`, or :class:`FileRefused` when the path cannot be used.
    """
    for _ in range(_TRIES):
        descriptor = open_own(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise LockHeld(str(path)) from None
        except OSError as error:
            os.close(descriptor)
            raise FileRefused(f"{path}: cannot be locked: {error.strerror}") from error
        if _is_at(path, descriptor):
            return descriptor
        os.close(descriptor)  # it was replaced meanwhile: a lock on the old file decides nothing
    raise FileRefused(f"{path}: is being replaced again and again")


def _is_at(path: Path, descriptor: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    return False


def is_held(path: Path) -> bool:
    """Whether somebody holds it, without taking it: two that look do not see each other.

    Raises :class:`FileRefused` when the path cannot be used.
    """
    if not os.path.lexists(path):
        return False
    descriptor = open_own(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def holders(path: Path, among: Iterable[int] | None = None) -> tuple[int, ...]:
    """The pids that hold it, as far as we may look into processes; by default among all.

    ``/proc/locks`` names who took a lock, not who has it now: the descriptors tell.
    """
    try:
        status = path.lstat()
    except OSError:
        return ()
    file = (status.st_dev, status.st_ino)
    return tuple(pid for pid in (pids() if among is None else among) if _holds(pid, file))


def _holds(pid: int, file: tuple[int, int]) -> bool:
    folder = f"/proc/{pid}/fd"
    try:
        numbers = os.listdir(folder)
    except OSError:
        return False
    return any(_file_of(f"{folder}/{n}") == file and _has_lock(pid, n) for n in numbers)


def _file_of(link: str) -> tuple[int, int] | None:
    try:
        status = os.stat(link)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _has_lock(pid: int, number: str) -> bool:
    """``fdinfo`` shows the locks of that very open file."""
    lines = (read_bytes(f"/proc/{pid}/fdinfo/{number}") or b"").splitlines()
    return any(line.startswith(b"lock:") and b" FLOCK " in line for line in lines)
