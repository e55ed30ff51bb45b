"""The lock that decides: an ``flock``, which dies with whoever holds it.

One rule: a lock belongs to the open file, not to a process.  Whoever has inherited its descriptor holds it,
and nobody who merely opened the file does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from supervisor.process.files import FileRefused, open_own
from supervisor.process.procfs import pids, read_bytes, require_absence

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
    except OSError as error:  # a file system without locks
        raise FileRefused(f"{path}: cannot be locked: {error.strerror}") from error
    finally:
        os.close(descriptor)
    return False


def holders(path: Path, among: Iterable[int] | None = None) -> tuple[int, ...]:
    """The pids that hold it, as far as we may look into processes; by default among all.

    ``/proc/locks`` names who took a lock, not who has it now: the descriptors tell.
    """
    return OpenFiles(pids() if among is None else among).holders(path)


class OpenFiles:
    """Which files some processes have open: one look, for the holders of many locks."""

    def __init__(self, among: Iterable[int]) -> None:
        self._openings: defaultdict[tuple[int, int], list[tuple[int, str]]] = defaultdict(list)
        for pid in among:
            for number, file in _open_files(pid):
                self._openings[file].append((pid, number))

    def holders(self, path: Path) -> tuple[int, ...]:
        try:
            status = path.lstat()
        except OSError:
            return ()
        openings = self._openings.get((status.st_dev, status.st_ino), ())
        return tuple(dict.fromkeys(pid for pid, number in openings if _has_lock(pid, number)))


def _open_files(pid: int) -> Iterator[tuple[str, tuple[int, int]]]:
    folder = f"/proc/{pid}/fd"
    try:
        numbers = os.listdir(folder)
    except OSError as error:
        require_absence(error)
        return
    for number in numbers:
        file = _file_of(f"{folder}/{number}")
        if file is not None:
            yield number, file


def _file_of(link: str) -> tuple[int, int] | None:
    try:
        status = os.stat(link)
    except OSError:  # also what a descriptor may lead to and cannot be asked: it is no file of ours
        return None
    return status.st_dev, status.st_ino


def _has_lock(pid: int, number: str) -> bool:
    """``fdinfo`` shows the locks of that very open file."""
    lines = (read_bytes(f"/proc/{pid}/fdinfo/{number}") or b"").splitlines()
    return any(line.startswith(b"lock:") and b" FLOCK " in line for line in lines)
