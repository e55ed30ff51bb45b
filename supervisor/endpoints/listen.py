"""Listening sockets, opened so that what goes wrong is one clear message.

The rule for a Unix socket: nobody but its owner can connect at any instant, and a socket that somebody
still answers on is never taken away.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import stat
from pathlib import Path
from typing import Any

BACKLOG = 128
LONGEST_UNIX_PATH = 107
ANSWER_SECONDS = 1.0
NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


class ListenError(Exception):
    """This address could not be listened on; ``str()`` is the message for the operator."""

    def __init__(self, address: str, message: str) -> None:
        super().__init__(f"cannot listen on {address}: {message}")
        self.address = address
        self.message = message


def tcp_sockets(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of ``host``.  Raises :class:`ListenError`; then none stays open."""
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ListenError(address, f"{host!r} is no address of this machine ({error.strerror})") from error
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    for family, _, _, _, where in dict.fromkeys(found):
        try:
            sockets.append(_bound(family, where))
        except OSError as error:
            if error.errno not in NOT_HERE:
                close_all(sockets)
                raise ListenError(address, _reason(error)) from error
            missing = error  # ``localhost`` is also ::1, on machines without IPv6, too
    if missing is not None and not sockets:
        raise ListenError(address, _reason(missing)) from missing
    return sockets


def _bound(family: socket.AddressFamily, where: tuple[Any, ...]) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(where)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return "another program listens there already"
        case errno.EACCES | errno.EPERM:
            return "not permitted (ports below 1024 need a privilege)"
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return "this machine does not have that address"
        case _:
            return error.strerror or str(error)


def close_all(sockets: list[socket.socket]) -> None:
    for each in sockets:
        each.close()


def only_loopback(sockets: list[socket.socket]) -> bool:
    """Can nobody but programs of this machine reach them?"""
    return all(ipaddress.ip_address(each.getsockname()[0].partition("%")[0]).is_loopback for each in sockets)


# --- Unix sockets ---------------------------------------------------------------------------------


class UnixListener:
    """A listening socket of mode 0600 and its name.  Raises :class:`ListenError`."""

    def __init__(self, path: Path) -> None:
        if len(os.fsencode(path)) > LONGEST_UNIX_PATH:
            raise ListenError(
                str(path), f"longer than the {LONGEST_UNIX_PATH} bytes a socket's path may have"
            )
        self.path = path
        try:
            _clear(path)
            self.socket = _bound_private(path)
            self._file = _identity(path)
        except OSError as error:
            raise ListenError(str(path), _reason(error)) from error

    @property
    def is_lost(self) -> bool:
        """Does its name lead elsewhere, or nowhere, as after a cleaner of ``/tmp``, or a login session?"""
        try:
            return _identity(self.path) != self._file
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:  # not known
            return False

    def remove(self) -> None:
        """Take the name away, unless it belongs to another socket by now; who is connected stays so."""
        with contextlib.suppress(OSError):
            if _identity(self.path) == self._file:
                os.unlink(self.path)


def _identity(path: Path) -> tuple[int, int]:
    status = os.lstat(path)
    return status.st_dev, status.st_ino


def _bound_private(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)  # the mode is right from the socket's first moment, not from a later chmod
    try:
        listener.bind(str(path))
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def _clear(path: Path) -> None:
    """Remove a socket that nobody answers on; anything else at that place is left alone."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenError(str(path), "there is a file of another kind at that place")
    if _answers(path):
        raise ListenError(str(path), "another program answers there")
    os.unlink(path)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(ANSWER_SECONDS)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:  # its queue is full, or it is another user's: somebody has it open
            return True
    return True
