"""Opening files that decide or tell something, in directories that others may have meddled with.

One rule: what is opened is a plain file of our own, reached without a link; everything else is refused in
words that name the path.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


class FileRefused(Exception):
    """The path cannot be used; the message says which and why, for the operator."""


_LIMITS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def require_judgement(refused: FileRefused) -> None:
    """Raise the ``OSError`` behind it if it tells nothing of the path, but that we have come to a limit."""
    cause = refused.__cause__
    if isinstance(cause, OSError) and cause.errno in _LIMITS:
        raise cause


class StateDirectoryError(FileRefused):
    """A directory that we need cannot be used."""


def open_own(path: Path, flags: int) -> int:
    """A descriptor of a plain file that is ours, mode 0600 if it is created; no other link names it."""
    try:
        # Without O_NONBLOCK a FIFO in its place would hang us.
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise FileRefused(f"{path}: {_why(path, error)}") from error
    try:
        _require_own(path, os.fstat(descriptor))
    except FileRefused:
        os.close(descriptor)
        raise
    return descriptor


def _require_own(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise FileRefused(f"{path}: is not a plain file")
    if status.st_uid != os.geteuid():
        raise FileRefused(f"{path}: belongs to user {status.st_uid}, not to us (user {os.geteuid()})")
    if status.st_nlink > 1:
        raise FileRefused(f"{path}: has {status.st_nlink} names (hard links); it must have one")


def _why(path: Path, error: OSError) -> str:
    if path.is_symlink():
        return "is a symbolic link, which is never followed here"
    return error.strerror or str(error)


def private_directory(path: Path) -> None:
    """Make sure that ``path`` is a directory of ours that nobody else can write to; created with mode 0700.

    Raises :class:`StateDirectoryError`.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.stat()
    except FileExistsError:
        raise StateDirectoryError(f"{path}: is not a directory") from None
    except OSError as error:
        where = "" if error.filename in (None, str(path)) else f" ({error.filename})"
        raise StateDirectoryError(f"{path}: cannot be created: {error.strerror}{where}") from error
    if status.st_uid != os.geteuid():
        raise StateDirectoryError(f"{path}: belongs to user {status.st_uid}, not to us (user {os.geteuid()})")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StateDirectoryError(f"{path}: others may write to it; chmod go-w {path}")
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
        raise StateDirectoryError(f"{path}: cannot be written to")
