"""Keeping a worker's log bounded while the worker writes to it.

One rule: bytes leave the log only after they are in a piece of their own, and what is appended meanwhile is
not touched.  Where the file system can do no better than truncating, that is said.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from supervisor.process import logfile
from supervisor.process.fallocate import blank_out, cut_off
from supervisor.process.files import FileRefused, open_own

_BACK = 64 * 1024
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a look at a log has led to."""

    pieces: int = 0
    """How many were cut off."""
    skipped_bytes: int = 0
    """Bytes given up at once: older than all that may be kept."""
    lossless: bool = True
    """False: lines written in the very moment may be lost, since this file system can only truncate."""
    error: str = ""
    """Why the log is larger than it should be."""


def rotate(path: Path, max_size: int, keep: int) -> Rotation:
    """Cut pieces off the front, at line ends, until at most ``max_size`` bytes are left; ``keep`` are kept.

    Blocks for some milliseconds per 10 MiB: to be called in a thread, by one caller for a log.
    """
    if not _may_be_large(path, max_size) and not os.path.lexists(_complete(path)):
        return Rotation()
    try:
        descriptor = open_own(path, os.O_RDWR)
    except FileRefused as error:
        return Rotation(error=str(error))
    try:
        _finish_interrupted(path, descriptor, keep)
        return _rotate(path, descriptor, max_size, keep)
    except OSError as error:
        _remove(_draft(path))
        return Rotation(error=f"{path}: {error.strerror}")
    finally:
        os.close(descriptor)


def bound_removed(path: Path, pid: int, agent_id: str, max_size: int) -> str:
    """The fault, when what the process writes to is its log without a name: nobody can read, or cut, that.

    Beyond ``max_size`` it is emptied, since its room is given back by nothing else.
    """
    output = Path(f"/proc/{pid}/fd/1")
    try:
        status = output.stat()
        if status.st_nlink > 0 or not _was_log(path, os.readlink(output)):
            return ""
        if status.st_size > max_size:
            os.truncate(output, 0)
    except OSError:  # it has ended, or is none that we may look into
        return ""
    return f"{path} was removed; restart {agent_id} to have a log again"


def _was_log(path: Path, link: str) -> bool:
    """By its last name: the log's own, or one that it was given before it went; else the program chose it."""
    name = link.removesuffix(" (deleted)")
    return os.path.dirname(name) == os.path.realpath(path.parent) and Path(name).name.startswith(path.name)


def _may_be_large(path: Path, max_size: int) -> bool:
    try:
        return path.lstat().st_size > max_size
    except OSError:
        return False


def _rotate(path: Path, descriptor: int, max_size: int, keep: int) -> Rotation:
    cut = skipped = 0
    while True:
        start, size = logfile.live_start(descriptor), os.fstat(descriptor).st_size
        if size - start <= max_size:
            return Rotation(cut, skipped)
        end = _end_of_piece(descriptor, start, start + max_size)
        if size - end > max_size * keep:
            lossless = _drop(descriptor, end)
            skipped += end - start
        else:
            _copy_making_room(path, descriptor, start, end)
            lossless = _commit(path, descriptor, end, keep)
            cut += 1
        if not lossless:
            return Rotation(cut, skipped, lossless=False)


def _end_of_piece(descriptor: int, start: int, end: int) -> int:
    """The end of the last whole line up to ``end``; ``end`` itself in the middle of an endless one.

    Or where a hole begins, which a writer that does not append has left: it must fill no piece.
    """
    hole = os.lseek(descriptor, start, os.SEEK_HOLE)
    if hole <= end and hole < os.fstat(descriptor).st_size:
        return hole
    upper = end
    while upper > start:
        lower = max(start, upper - _BACK)
        found = os.pread(descriptor, upper - lower, lower).rfind(b"\n")
        if found >= 0:
            return lower + found + 1
        upper = lower
    return end


def _draft(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _complete(path: Path) -> Path:
    """Copied as a whole; between this name and ``.1`` its bytes leave the log."""
    return logfile.numbered(path, 0)


def _copy_making_room(path: Path, descriptor: int, start: int, end: int) -> None:
    """On a full disk the eldest pieces make room for the new one."""
    while True:
        try:
            return _copy(descriptor, start, end, _draft(path))
        except OSError as error:
            eldest = max(logfile.pieces(path), key=_number, default=None)
            if error.errno not in _NO_ROOM or eldest is None:
                raise
            eldest.path.unlink()


def _number(piece: logfile.Piece) -> int:
    return int(piece.path.suffix[1:])


def _copy(descriptor: int, start: int, end: int, target: Path) -> None:
    _remove(target)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(target, flags, 0o600), "wb") as file:
        for chunk in logfile.read_range(descriptor, start, end):
            file.write(chunk)


def _commit(path: Path, descriptor: int, end: int, keep: int) -> bool:
    """The copied bytes leave the log; False if that took truncating it."""
    with logfile.exclusive(descriptor):
        _draft(path).rename(_complete(path))
        lossless = _drop(descriptor, end, _complete(path))
        _shift(path, keep)
    return lossless


def _drop(descriptor: int, end: int, copy: Path | None = None) -> bool:
    """Take everything before ``end`` out of the log; False if that took truncating it."""
    length = logfile.cut_for(descriptor, end)
    if length == 0 or cut_off(descriptor, length):
        os.pwrite(descriptor, logfile.stub(end - length), 0)
        return True
    if blank_out(descriptor, end):
        return True
    truncate(descriptor, end, copy)
    return False


def truncate(descriptor: int, end: int, copy: Path | None) -> None:
    """Empty the log after its remaining bytes are copied; what is written just then is lost."""
    if copy is not None:
        with copy.open("ab") as file:
            while end < (size := os.fstat(descriptor).st_size):
                for chunk in logfile.read_range(descriptor, end, size):
                    file.write(chunk)
                file.flush()
                end = size
    os.ftruncate(descriptor, 0)


def _shift(path: Path, keep: int) -> None:
    """Each piece gets the next number; the eldest goes."""
    count = sum(1 for _ in logfile.pieces(path))
    for number in range(count, keep - 1, -1):
        _remove(logfile.numbered(path, number))
    for number in range(min(count, keep - 1), 0, -1):
        logfile.numbered(path, number).rename(logfile.numbered(path, number + 1))
    if keep > 0:
        _complete(path).rename(logfile.numbered(path, 1))
    else:
        _remove(_complete(path))


def _finish_interrupted(path: Path, descriptor: int, keep: int) -> None:
    """A daemon was killed between completing a piece and giving it its number.

    If the log still begins with that piece, its bytes have not been taken out: it will be cut again.
    """
    complete = _complete(path)
    try:
        piece = logfile.open_to_read(complete)
    except OSError:
        return
    try:
        size, start = os.fstat(piece).st_size, logfile.live_start(descriptor)
        pairs = zip(
            logfile.read_range(piece, 0, size),
            logfile.read_range(descriptor, start, start + size),
            strict=False,
        )
        still_there = os.fstat(descriptor).st_size - start >= size and all(a == b for a, b in pairs)
    finally:
        os.close(piece)
    if still_there:
        _remove(complete)
    else:
        with logfile.exclusive(descriptor):
            _shift(path, keep)


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
