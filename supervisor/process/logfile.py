"""A worker's log as bytes: one file that is appended to, and numbered pieces cut from its front.

One rule: ``log.2``, ``log.1`` and the live part of ``log``, in this order, are the output as it was written.
Whoever cuts holds the file's lock, whoever reads across files shares it.

The writer knows nothing of this and keeps its descriptor.  A cut leaves a stub at the front, which is no
part of the log: one line of spaces where the file system cuts off whole blocks, zeros where it can only
give back their room.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_CHUNK = 256 * 1024
_LOCK_PATIENCE = 0.2
"""Seconds; a reader that was stopped in the middle of reading must not stop the others for good."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A numbered file, told from others also after it got another number."""

    path: Path
    size: int
    inode: int
    mtime_ns: int

    @property
    def key(self) -> tuple[int, int, int]:
        return self.inode, self.size, self.mtime_ns


def numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


def pieces(path: Path) -> Iterator[Piece]:
    """Youngest first."""
    number = 1
    while (piece := _piece(numbered(path, number))) is not None:
        yield piece
        number += 1


def _piece(path: Path) -> Piece | None:
    try:
        status = path.lstat()
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return Piece(path, status.st_size, status.st_ino, status.st_mtime_ns)


def open_to_read(path: Path) -> int:
    """Raises ``OSError`` also for what is no plain file."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a plain file")
    return descriptor


def cut_for(descriptor: int, end: int) -> int:
    """How many bytes are cut off where those before ``end`` go: whole blocks, and never all there are."""
    block = os.fstatvfs(descriptor).f_bsize
    return (end - 1) // block * block


def stub(length: int) -> bytes:
    """What stands for the rest of a block that was cut: a blank line."""
    return b" " * (length - 1) + b"\n"


def has_stub(descriptor: int) -> bool:
    return _stub_length(descriptor) > 0


def has_hole(descriptor: int) -> bool:
    return os.pread(descriptor, 1, 0) == b"\0"


def live_start(descriptor: int) -> int:
    """Where the log begins in its file."""
    return _after_zeros(descriptor, _stub_length(descriptor))


def _stub_length(descriptor: int) -> int:
    block = os.fstatvfs(descriptor).f_bsize
    line, newline, _ = os.pread(descriptor, block, 0).partition(b"\n")
    return len(line) + 1 if newline and not line.strip(b" ") else 0


def _after_zeros(descriptor: int, offset: int) -> int:
    """Where data begins behind a hole: one cut by us, or left by a writer that does not append.

    What is a hole the file system says, in whole blocks; zeros in the blocks at its edges go with it.  Zeros
    beyond that were written, and are as much a log as anything else.
    """
    block, size = os.fstatvfs(descriptor).f_bsize, os.fstat(descriptor).st_size
    edge = min((offset // block + 1) * block, size)
    begin = offset + _zeros(descriptor, offset, edge)
    if begin < edge or edge == size:
        return begin
    try:
        begin = os.lseek(descriptor, edge, os.SEEK_DATA)
    except OSError:  # nothing but a hole up to the end
        return size
    edge = min(begin + block, size)
    zeros = _zeros(descriptor, begin, edge)
    return begin if begin + zeros == edge < size else begin + zeros


def _zeros(descriptor: int, start: int, end: int) -> int:
    """How many bytes are zero from ``start`` on, at most up to ``end``."""
    data = os.pread(descriptor, end - start, start)
    return len(data) - len(data.lstrip(b"\0"))


def read_range(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    """Chunks of what is there, up to ``end``."""
    while start < end and (chunk := os.pread(descriptor, min(_CHUNK, end - start), start)):
        yield chunk
        start += len(chunk)


@contextmanager
def shared(descriptor: int) -> Iterator[None]:
    """While nothing is cut."""
    with _locked(descriptor, fcntl.LOCK_SH):
        yield


@contextmanager
def exclusive(descriptor: int) -> Iterator[None]:
    """While nobody reads across files."""
    with _locked(descriptor, fcntl.LOCK_EX):
        yield


@contextmanager
def _locked(descriptor: int, operation: int) -> Iterator[None]:
    deadline = time.monotonic() + _LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() > deadline:
                break
            time.sleep(0.001)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
