"""Telling systemd: ready, what is going on, still turning, stopping (``sd_notify``).

One rule: without systemd nothing happens, and whatever is wrong with its socket is no reason to stop work.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

_LONGEST_STATUS = 500
_PATIENCE = 0.5


class Notifier:
    """One datagram for each thing told; what is told but once waits a moment for a systemd that is busy."""

    def __init__(self, address: str, watchdog: float) -> None:
        """``address`` is empty where nobody listens; ``watchdog`` is systemd's patience in seconds, or 0."""
        self.watchdog_seconds = watchdog
        self._address = address
        self._status = ""

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Notifier:
        address = environ.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", "@")):
            return cls("", 0.0)
        usec, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        meant = usec.isdecimal() and pid in ("", str(os.getpid()))
        return cls(address, int(usec) / 1_000_000 if meant else 0.0)

    def ready(self) -> None:
        self._send("READY=1", _PATIENCE)

    def stopping(self, seconds: float) -> None:
        """It may take so long: systemd waits, whatever the unit says."""
        self._send(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}", _PATIENCE)

    def status(self, text: str) -> None:
        """One line for ``systemctl status``; sent when it has changed."""
        line = " ".join(text.split())[:_LONGEST_STATUS]
        if line != self._status and self._send(f"STATUS={line}"):
            self._status = line

    def watchdog(self) -> None:
        self._send("WATCHDOG=1")

    def _send(self, message: str, patience: float = 0.0) -> bool:
        """Whether it was handed over; systemd may be busy and its queue, of ten or so, full."""
        if not self._address:
            return True
        address = self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(patience)
                sender.sendto(message.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError:
            return False
        return True
