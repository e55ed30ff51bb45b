"""Reading a worker's log: its last lines, and what comes after, across rotation.

One rule: a reader keeps its place in the stream of bytes, not in a file; what was cut off before it came to
it is read from the piece that it went to.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from supervisor.process import logfile
from supervisor.process.logfile import Piece

_CHUNK = 64 * 1024
_LONGEST_LINE = 1024 * 1024
"""A longer one is shown in parts."""
_PAUSE = 0.2


def tail(path: Path, lines: int) -> list[str]:
    """The last lines, also an unfinished one; none when there is no log.  Raises ``OSError``."""
    try:
        descriptor = logfile.open_to_read(path)
    except FileNotFoundError:
        return []
    try:
        with logfile.shared(descriptor):
            data = _last(path, descriptor, os.fstat(descriptor).st_size, lines)
    finally:
        os.close(descriptor)
    return decode(data)[-lines:] if lines > 0 else []


def follow(path: Path, lines: int = 10, pause: float = _PAUSE) -> Iterator[str]:
    """The last lines, then each new one as it is finished, for ever; also of a log yet to come."""
    follower = Follower(path)
    try:
        yield from follower.last(lines)
        while True:
            new = follower.new()
            yield from new
            if not new:
                time.sleep(pause)
    finally:
        follower.close()


def last_output(path: Path, since: int, most: int) -> list[str]:
    """The end of what was written after the log had ``since`` bytes, at most ``most`` bytes of it."""
    try:
        descriptor = logfile.open_to_read(path)
    except OSError:
        return []
    try:
        size, start = os.fstat(descriptor).st_size, logfile.live_start(descriptor)
        # A smaller one has been cut since then: all of it is younger.
        start = max(start, since if since <= size else 0, size - most)
        return decode(os.pread(descriptor, most, start))
    except OSError:
        return []
    finally:
        os.close(descriptor)


def decode(data: bytes) -> list[str]:
    lines = data.replace(b"\0", b"").split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix(b"\r").decode("utf-8", "backslashreplace") for line in lines]


def _last(path: Path, descriptor: int, end: int, lines: int) -> bytes:
    """The end of the stream, with at least so many lines if it has them."""
    data = _last_of(descriptor, logfile.live_start(descriptor), end, lines)
    for piece in logfile.pieces(path):
        missing = lines - data.count(b"\n")
        if missing <= 0:
            break
        data = _read_piece_end(piece, missing) + data
    return data


def _last_of(descriptor: int, start: int, end: int, lines: int) -> bytes:
    data = b""
    while end > start and data.count(b"\n") <= lines:
        lower = max(start, end - _CHUNK)
        data, end = os.pread(descriptor, end - lower, lower) + data, lower
    return data


def _read_piece_end(piece: Piece, lines: int) -> bytes:
    descriptor = logfile.open_to_read(piece.path)
    try:
        return _last_of(descriptor, 0, piece.size, lines)
    finally:
        os.close(descriptor)


class Follower:
    """One reader's place in a log."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        self._offset = 0
        self._start = 0
        """Where the log began in its file, at the last look."""
        self._youngest: tuple[int, int, int] | None = None
        """The piece numbered 1, at the last look."""
        self._unfinished = b""

    def last(self, lines: int) -> list[str]:
        """The last finished lines; what follows them is what :meth:`new` gives."""
        if not self._open():
            return []
        with logfile.shared(self._descriptor):
            self._look()
            self._offset = size = os.fstat(self._descriptor).st_size
            data = _last(self._path, self._descriptor, size, lines)
        finished, _, self._unfinished = data.rpartition(b"\n")
        return decode(finished)[-lines:] if lines > 0 else []

    def new(self) -> list[str]:
        """The lines finished since; some of them, if they are many."""
        if self._descriptor < 0 and not self._open():
            return []
        with logfile.shared(self._descriptor):
            data = self._read_pieces() + self._read_on()
        if not data and self._is_replaced():
            self.close()
            return self.new()
        finished, newline, rest = (self._unfinished + data).rpartition(b"\n")
        if len(rest) > _LONGEST_LINE:
            finished, newline, rest = finished + newline + rest, b"\n", b""
        self._unfinished = rest
        return decode(finished + newline)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> bool:
        self.close()
        try:
            self._descriptor = logfile.open_to_read(self._path)
        except FileNotFoundError:
            return False
        self._look()
        self._offset = self._start
        return True

    def _look(self) -> None:
        self._start = logfile.live_start(self._descriptor)
        youngest = next(logfile.pieces(self._path), None)
        self._youngest = youngest.key if youngest is not None else None

    def _is_replaced(self) -> bool:
        try:
            return not os.path.samestat(self._path.lstat(), os.fstat(self._descriptor))
        except OSError:
            return False  # removed; its writer, if there is one, still writes to the file that we have

    def _read_on(self) -> bytes:
        size = os.fstat(self._descriptor).st_size
        if size < self._offset:  # emptied by somebody else
            self._look()
            self._offset = self._start
        data = os.pread(self._descriptor, 4 * _CHUNK, self._offset)
        self._offset += len(data)
        return data

    def _read_pieces(self) -> bytes:
        """What was cut off since the last look and not read before; our place moves with the cuts."""
        new: list[Piece] = []
        known = False
        for piece in logfile.pieces(self._path):
            known = piece.key == self._youngest
            if known:
                break
            new.append(piece)
        if not new:
            return b""
        if self._youngest is not None and not known:
            # So many cuts that our place is gone: go on with the eldest there is.
            self._look()
            self._offset = self._start
            return b"".join(_read_piece(piece, 0) for piece in reversed(new))
        data = b"".join(self._pass(piece) for piece in reversed(new))
        self._youngest = new[0].key
        return data

    def _pass(self, piece: Piece) -> bytes:
        end = self._start + piece.size
        data = _read_piece(piece, self._offset - self._start) if self._offset < end else b""
        self._offset = max(self._offset, end)
        if logfile.has_hole(self._descriptor):
            self._start = end
        elif logfile.has_stub(self._descriptor):
            length = logfile.cut_for(self._descriptor, end)
            self._start, self._offset = end - length, self._offset - length
        else:  # truncated
            self._start = self._offset = 0
        return data


def _read_piece(piece: Piece, offset: int) -> bytes:
    try:
        descriptor = logfile.open_to_read(piece.path)
    except OSError:
        return b""
    try:
        return b"".join(logfile.read_range(descriptor, max(0, offset), piece.size))
    finally:
        os.close(descriptor)
