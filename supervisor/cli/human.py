"""A synthetic human: joins a room over LiveKit's RTC client, speaks, listens, and tells what it heard.

One rule: what it tells is what a person in the room would have heard, in sound and not in lists.
Needs the package ``livekit`` (it comes with livekit-agents), imported only when somebody joins.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, Self

from supervisor.cli.ears import Noticed, Timelines
from supervisor.cli.hearing import Hearing
from supervisor.cli.rtc_connection import Connection, JoinFailed, RtcMissing, require_rtc

__all__ = ["Access", "Happening", "Human", "JoinFailed", "Kind", "Rejoin", "RtcMissing", "What"]

PITCH = 330.0
"""Hertz of the human's voice unless told otherwise."""

_LOOK_AGAIN = 0.05
_REJOIN_PAUSE = 0.5

Kind = Literal["standard", "egress", "ingress", "sip", "agent"]


class Rejoin(StrEnum):
    """What to do when the SDK's own attempts to reconnect, some ten, are used up."""

    NEVER = "never"
    WHEN_LOST = "when_lost"
    """Join anew under the same identity until it works.  Not after having been removed."""


class What(StrEnum):
    JOINED = "joined"
    LEFT = "left"
    RECONNECTING = "reconnecting"
    RECONNECTED = "reconnected"
    LOST = "lost"
    AGENT_CAME = "agent_came"
    AGENT_WENT = "agent_went"
    AGENT_HEARD = "agent_heard"


@dataclass(frozen=True, slots=True)
class Happening:
    at: float
    what: What
    who: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Access:
    """Where a LiveKit server is, and the key to it."""

    url: str
    api_key: str
    api_secret: str = field(repr=False)


class Human:
    """One participant through all its connections: leaving, returning and reconnecting included.

    ``agents`` holds the timeline of the agents, ``others`` that of everybody else, ``echo`` what came back
    of the human's own voice.  With ``kind="agent"`` it plays an agent.  ``dispatch`` names agents that the
    token asks for, as an application's token would.
    """

    def __init__(
        self,
        access: Access,
        room: str,
        identity: str = "human",
        *,
        kind: Kind = "standard",
        attributes: Mapping[str, str] | None = None,
        dispatch: Sequence[str] = (),
        pitch: float = PITCH,
        rejoin: Rejoin = Rejoin.WHEN_LOST,
        on_happening: Callable[[Happening], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.room = room
        self.identity = identity
        self.agents = Hearing(clock)
        self.others = Hearing(clock)
        self.echo = Hearing(clock)
        self.history: list[Happening] = []
        self._access = access
        self._kind: Kind = kind
        self._attributes = dict(attributes or {})
        self._dispatch = tuple(dispatch)
        self._pitch = pitch
        self._policy = rejoin
        self._on_happening = on_happening
        self._clock = clock
        self._connection: Connection | None = None
        self._talking = False
        self._returning: asyncio.Task[None] | None = None
        self._old: asyncio.Task[None] | None = None
        """Closes the connection that was lost."""
        self._pulse = asyncio.Event()

    # --- being there ------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.join()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.leave()

    @property
    def connected(self) -> bool:
        return self._connection is not None and self._connection.whole

    async def join(self, timeout: float = 15.0) -> None:
        if self._connection is not None:
            return
        require_rtc()
        timelines = Timelines(self.agents, self.others, self.echo, self._pitch, self._noticed)
        connection = Connection(self, timelines)
        await connection.open(self._access.url, self._token(), timeout)
        self._connection = connection
        if self._talking:
            connection.mouth.talk()
        self._happened(What.JOINED)

    async def leave(self) -> None:
        if self._returning is not None:
            self._returning.cancel()
            await asyncio.wait([self._returning])
            self._returning = None
        if self._old is not None:
            await asyncio.wait([self._old])
            self._old = None
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()
            self._happened(What.LEFT)

    async def rejoin(self, identity: str | None = None, timeout: float = 15.0) -> None:
        """Leave if still there, and come back, under another identity if one is given."""
        await self.leave()
        self.identity = self.identity if identity is None else identity
        await self.join(timeout)

    # --- speaking ---------------------------------------------------------------------------------

    def talk(self) -> None:
        """Speak until :meth:`hush`, through every reconnection."""
        self._talking = True
        if self._connection is not None:
            self._connection.mouth.talk()

    async def hush(self) -> None:
        self._talking = False
        if self._connection is not None:
            await self._connection.mouth.hush()

    async def say(self, seconds: float) -> None:
        self.talk()
        try:
            await asyncio.sleep(seconds)
        finally:
            await self.hush()

    # --- listening --------------------------------------------------------------------------------

    async def wait_until(self, condition: Callable[[], bool], timeout: float) -> bool:
        """Whether the condition came true in time; looked at whenever something is noticed."""
        deadline = self._clock() + timeout
        while not condition():
            left = deadline - self._clock()
            if left <= 0:
                return False
            self._pulse.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._pulse.wait(), min(left, _LOOK_AGAIN))
        return True

    async def wait_audible(
        self, timeout: float, *, since: float | None = None, other_than: Iterable[str] = ()
    ) -> float | None:
        """When an agent was first heard after ``since`` (now), on this human's clock; None if not in time."""
        start = self._clock() if since is None else since
        unwanted = frozenset(other_than)

        def heard() -> bool:
            return self.agents.first_heard(start, other_than=unwanted) is not None

        if not await self.wait_until(heard, timeout):
            return None
        first = self.agents.first_heard(start, other_than=unwanted)
        return None if first is None else first.start

    async def wait_settled(self, timeout: float, *, steady: float = 2.0) -> bool:
        """Whether exactly one agent was there, and heard, for ``steady`` seconds without a break."""
        good_since: float | None = None

        def settled() -> bool:
            nonlocal good_since
            if not self.exactly_one_audible():
                good_since = None
                return False
            good_since = self._clock() if good_since is None else good_since
            return self._clock() - good_since >= steady

        return await self.wait_until(settled, timeout)

    def exactly_one_audible(self, within: float = 2.0) -> bool:
        """One agent is in the room, and it is the one that was heard of late."""
        present = self.agents.present()
        return self.connected and len(present) == 1 and self.agents.audible(within) == present

    # --- what its connection tells it -------------------------------------------------------------

    def reconnecting(self) -> None:
        self._happened(What.RECONNECTING)

    def reconnected(self) -> None:
        self._happened(What.RECONNECTED)

    def lost(self, connection: Connection, reason: str, *, final: bool) -> None:
        if connection is not self._connection:
            return
        self._connection = None
        self._happened(What.LOST, detail=reason)
        again = self._policy is Rejoin.WHEN_LOST and not final
        self._old = asyncio.create_task(connection.close())
        self._returning = asyncio.create_task(self._return(self._old, again))

    # --- inside -----------------------------------------------------------------------------------

    def _happened(self, what: What, who: str = "", detail: str = "") -> None:
        happening = Happening(self._clock(), what, who or self.identity, detail)
        self.history.append(happening)
        self._pulse.set()
        if self._on_happening is not None:
            self._on_happening(happening)

    def _token(self) -> str:
        from livekit import api

        token = (
            api.AccessToken(self._access.api_key, self._access.api_secret)
            .with_identity(self.identity)
            .with_kind(self._kind)
            .with_attributes(self._attributes)
            .with_grants(api.VideoGrants(room_join=True, room=self.room))
        )
        if self._dispatch:
            agents = [api.RoomAgentDispatch(agent_name=name) for name in self._dispatch]
            token = token.with_room_config(api.RoomConfiguration(agents=agents))
        return token.to_jwt()

    async def _return(self, old: asyncio.Task[None], again: bool) -> None:
        await asyncio.wait([old])  # whoever leaves meanwhile ends this, and not the closing
        while again and self._connection is None:
            with contextlib.suppress(JoinFailed):
                await self.join()
                return
            await asyncio.sleep(_REJOIN_PAUSE)

    def _noticed(self, noticed: Noticed, who: str, agent: bool) -> None:
        self._pulse.set()
        if agent:
            self._happened(_AGENT_HAPPENINGS[noticed], who)


_AGENT_HAPPENINGS = {
    Noticed.CAME: What.AGENT_CAME,
    Noticed.WENT: What.AGENT_WENT,
    Noticed.HEARD: What.AGENT_HEARD,
}
