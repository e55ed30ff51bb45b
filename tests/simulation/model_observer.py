"""What a human in the room would tell: when two agents were heard, when none.

One rule: it looks at what lives and sounds, not at what is listed; so it sees what the daemon cannot.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tests.simulation.model_rooms import ModelServer


@dataclass(frozen=True, slots=True)
class Interval:
    room: str
    start: float
    end: float
    agents: tuple[str, ...]
    """Of the last moment."""

    @property
    def seconds(self) -> float:
        return self.end - self.start


class Observer:
    """Follows every room; :meth:`finish` closes what is still open."""

    def __init__(self, server: ModelServer) -> None:
        self.doubled: list[Interval] = []
        """A human heard more than one agent."""
        self.silent: list[Interval] = []
        """A human heard none."""
        self.most: dict[str, int] = {}
        """Agents heard in a room at most, at a time."""
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._doubled_since: dict[str, tuple[float, tuple[str, ...]]] = {}
        self._silent_since: dict[str, tuple[float, tuple[str, ...]]] = {}
        server.watch(self._look)

    def finish(self) -> None:
        for room in list(self._doubled_since):
            self._close(self._doubled_since, self.doubled, room)
        for room in list(self._silent_since):
            self._close(self._silent_since, self.silent, room)

    def silent_now(self) -> dict[str, float]:
        """Rooms with a human and no agent, and for how long."""
        return {room: self._loop.time() - since for room, (since, _) in self._silent_since.items()}

    def doubled_now(self) -> dict[str, float]:
        return {room: self._loop.time() - since for room, (since, _) in self._doubled_since.items()}

    def _look(self, name: str) -> None:
        room = self._server.rooms.get(name)
        agents = room.audible() if room is not None else ()
        humans = room.humans() if room is not None else 0
        self.most[name] = max(self.most.get(name, 0), len(agents) if humans else 0)
        self._follow(self._doubled_since, self.doubled, name, agents, humans > 0 and len(agents) > 1)
        self._follow(self._silent_since, self.silent, name, agents, humans > 0 and not agents)

    def _follow(
        self,
        since: dict[str, tuple[float, tuple[str, ...]]],
        closed: list[Interval],
        room: str,
        agents: tuple[str, ...],
        holds: bool,
    ) -> None:
        if not holds:
            if room in since:
                self._close(since, closed, room)
            return
        start = since[room][0] if room in since else self._loop.time()
        since[room] = (start, agents)

    def _close(
        self, since: dict[str, tuple[float, tuple[str, ...]]], closed: list[Interval], room: str
    ) -> None:
        start, agents = since.pop(room)
        closed.append(Interval(room, start, self._loop.time(), agents))
