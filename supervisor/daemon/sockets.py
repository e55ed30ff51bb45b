"""Keeps the names of our sockets: workers and commands find us by them.

The rule: a name that has gone is made again; one that somebody else has by now is told of and left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from supervisor.endpoints.listen import ListenError
from supervisor.events import EventBus, SocketMissing, SocketRestored
from supervisor.process.files import StateDirectoryError, private_directory


class SocketServer(Protocol):
    """Listens on a Unix socket."""

    path: Path

    async def restore(self) -> bool: ...


class SocketNames:
    """The names of ``servers``; their folder is made again, too."""

    def __init__(self, servers: Sequence[SocketServer], bus: EventBus) -> None:
        self._servers = servers
        self._bus = bus
        self._faults: frozenset[str] = frozenset()

    async def keep(self) -> None:
        """Look once; a fault is told once while it stands."""
        faults = frozenset([fault for server in self._servers if (fault := await self._keep(server))])
        for fault in faults - self._faults:
            self._bus.publish(SocketMissing(error=fault))
        self._faults = faults

    async def _keep(self, server: SocketServer) -> str:
        """What is wrong, if anything."""
        try:
            private_directory(server.path.parent)
            if await server.restore():
                self._bus.publish(SocketRestored(path=str(server.path)))
        except (ListenError, StateDirectoryError) as error:
            return str(error)
        return ""
