"""Free loopback ports, also while other test runs look for some on the same machine.

A port is reserved by an abstract Unix socket named after it: the kernel lets one process have it, and
takes it back when that process is gone. The ports lie below the range that the kernel gives to clients.
"""

from __future__ import annotations

import contextlib
import random
import socket

_RANGE = range(20_000, 30_000)
_reserved: list[socket.socket] = []
_random = random.SystemRandom()


def free_port() -> int:
    """A port on 127.0.0.1, free for TCP and UDP, and ours until this process ends."""
    for _ in range(500):
        port = _random.choice(_RANGE)
        if _reserve(port):
            if _is_free(port):
                return port
            _reserved.pop().close()
    raise AssertionError("no free port found in 500 tries")


def _reserve(port: int) -> bool:
    reservation = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        reservation.bind(f"\0livekit-supervisor-test-port-{port}")
    except OSError:
        reservation.close()
        return False
    _reserved.append(reservation)
    return True


def _is_free(port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with contextlib.closing(socket.socket(socket.AF_INET, kind)) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return False
    return True
