"""Giving back the beginning of a file while others append to it.

One rule: these calls touch exactly the bytes they are given, whatever is written behind them meanwhile.
"""

from __future__ import annotations

import ctypes
import errno
import os

_KEEP_SIZE = 0x01
_PUNCH_HOLE = 0x02
_COLLAPSE_RANGE = 0x08

_NOT_HERE = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM})
"""The file system cannot; EINVAL also when it wants another alignment."""

_libc = ctypes.CDLL(None, use_errno=True)
_fallocate = getattr(_libc, "fallocate64", None) or _libc.fallocate
_fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
_fallocate.restype = ctypes.c_int


def cut_off(descriptor: int, length: int) -> bool:
    """Remove the first ``length`` bytes, whole blocks: what follows moves to the front.

    False when the file system cannot (ext4 and xfs can).
    """
    return _call(descriptor, _COLLAPSE_RANGE, length)


def blank_out(descriptor: int, length: int) -> bool:
    """Turn the first ``length`` bytes into zeros that take no room, at their old place.

    False when the file system cannot (tmpfs, btrfs, zfs and NFS 4.2 can).
    """
    return _call(descriptor, _PUNCH_HOLE | _KEEP_SIZE, length)


def _call(descriptor: int, mode: int, length: int) -> bool:
    while _fallocate(descriptor, mode, 0, length) != 0:
        number = ctypes.get_errno()
        if number in _NOT_HERE:
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True
