"""One joining of a LiveKit room, from connect to disconnect.

One rule: no participant is left behind in the room, also when connecting was given up.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Protocol

from supervisor.cli.ears import Ears, Timelines
from supervisor.cli.mouth import Mouth

if TYPE_CHECKING:
    from livekit import rtc

_ATTEMPT = 5.0
"""Seconds for each of the SDK's own attempts."""

_LEAVING = 5.0

_UNWANTED = frozenset({"DUPLICATE_IDENTITY", "PARTICIPANT_REMOVED", "ROOM_DELETED", "USER_REJECTED"})


class RtcMissing(Exception):
    """The RTC client is not installed in this environment."""


class JoinFailed(Exception):
    """The room could not be joined; the message says why."""


class Owner(Protocol):
    """Who is told how the connection fares.  The SDK reconnects by itself, some ten times."""

    def reconnecting(self) -> None: ...

    def reconnected(self) -> None: ...

    def lost(self, connection: Connection, reason: str, *, final: bool) -> None:
        """It has ended without having been asked to; ``final`` when somebody wanted us out."""


class Connection:
    """To be opened once and closed once."""

    def __init__(self, owner: Owner, timelines: Timelines) -> None:
        from livekit import rtc

        self._owner = owner
        self._room = rtc.Room()
        self._ears = Ears(self._room, timelines)
        self.mouth = Mouth(timelines.pitch)
        self.whole = False
        """Connected, and not just reconnecting."""
        self._closing = False

    async def open(self, url: str, token: str, timeout: float) -> None:
        from livekit import rtc
        from livekit.rtc.participant import PublishTrackError

        self._ears.attach()
        self._room.on("reconnecting", self._reconnecting)
        self._room.on("reconnected", self._reconnected)
        self._room.on("disconnected", self._disconnected)
        options = rtc.RoomOptions(connect_timeout=_ATTEMPT)
        connecting = asyncio.create_task(self._room.connect(url, token, options))
        try:
            # Cancelling it would leave the native client connecting, and a participant that nobody owns.
            done, _ = await asyncio.wait([connecting], timeout=timeout)
        except asyncio.CancelledError:
            self._give_up(connecting)
            raise
        if not done:
            self._give_up(connecting)
            raise JoinFailed(f"{url}: no connection within {timeout:g} s")
        try:
            connecting.result()
        except rtc.ConnectError as error:
            raise JoinFailed(f"{url}: {error.message}") from error
        self.whole = True
        self._ears.look_around()
        try:
            await asyncio.wait_for(self.mouth.publish(self._room), _ATTEMPT)
        except (TimeoutError, PublishTrackError) as error:
            await self.close()
            raise JoinFailed(f"{url}: joined, but could not publish: {error!r}") from error
        except asyncio.CancelledError:
            await self.close()
            raise
        if not self._room.isconnected():
            await self.close()
            raise JoinFailed(f"{url}: the connection ended while joining")

    async def close(self) -> None:
        self._closing = True
        self.whole = False
        await self.mouth.aclose()
        await self._ears.aclose()
        await self._leave()

    async def _leave(self) -> None:
        leaving = asyncio.ensure_future(self._room.disconnect())
        await asyncio.wait([leaving], timeout=_LEAVING)

    def _give_up(self, connecting: asyncio.Task[None]) -> None:
        self._closing = True
        given_up.add(task := asyncio.create_task(self._leave_once_connected(connecting)))
        task.add_done_callback(given_up.discard)

    async def _leave_once_connected(self, connecting: asyncio.Task[None]) -> None:
        await asyncio.wait([connecting])
        if not connecting.cancelled() and connecting.exception() is None:
            await self.close()

    def _reconnecting(self) -> None:
        self.whole = False
        self._owner.reconnecting()

    def _reconnected(self) -> None:
        self.whole = True
        self._owner.reconnected()

    def _disconnected(self, reason: rtc.DisconnectReason.ValueType) -> None:
        from livekit import rtc

        self.whole = False
        if self._closing:
            return
        name = rtc.DisconnectReason.Name(reason)
        self._owner.lost(self, name.lower(), final=name in _UNWANTED)


given_up: set[asyncio.Task[None]] = set()
"""Connections that nobody waits for any more, until they have ended."""


def require_rtc() -> None:
    try:
        import livekit.rtc  # noqa: F401
    except ImportError as error:
        raise RtcMissing(
            "LiveKit's RTC client is not installed in this environment; it comes with livekit-agents: "
            f"{sys.executable} -m pip install livekit-agents ({error})"
        ) from error
