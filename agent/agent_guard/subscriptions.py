"""Sees to it that an agent hears its caller again after LiveKit has restarted.

After a full reconnection the SDK now and then never subscribes to a track that was published at just that
moment: the agent is in the room, alive, and deaf.  One rule: only what the script was subscribed to before is
asked for anew, so that a script that does not want a track is not given it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from livekit import rtc

SUBSCRIBED_BY = 1.5
"""Seconds within which a track that was published again should be ours again."""
BETWEEN = 0.1

_Source = tuple[str, int]
"""Who publishes, and what: LiveKit's ``TrackSource``."""


class Subscriptions:
    """Those of one job's room; to be attached before it connects."""

    def __init__(self, room: rtc.Room) -> None:
        self._wanted: set[_Source] = set()
        self._asking: set[asyncio.Future[Any]] = set()
        room.on("track_published", self._published)
        room.on("track_subscribed", self._subscribed)
        room.on("track_unsubscribed", self._unsubscribed)

    def close(self) -> None:
        for task in self._asking:
            task.cancel()

    def _subscribed(
        self, _track: rtc.Track, publication: rtc.RemoteTrackPublication, who: rtc.RemoteParticipant
    ) -> None:
        self._wanted.add((who.identity, publication.source))

    def _unsubscribed(
        self, _track: Any, publication: rtc.RemoteTrackPublication, who: rtc.RemoteParticipant
    ) -> None:
        if who.track_publications.get(publication.sid) is publication:
            self._wanted.discard((who.identity, publication.source))  # still there: the script let go of it

    def _published(self, publication: rtc.RemoteTrackPublication, who: rtc.RemoteParticipant) -> None:
        if (who.identity, publication.source) in self._wanted:
            task = asyncio.ensure_future(self._ask_anew(publication, who))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _ask_anew(self, publication: rtc.RemoteTrackPublication, who: rtc.RemoteParticipant) -> None:
        await asyncio.sleep(SUBSCRIBED_BY)
        wanted = (who.identity, publication.source) in self._wanted
        if (
            wanted
            and publication.track is None
            and who.track_publications.get(publication.sid) is publication
        ):
            publication.set_subscribed(False)
            await asyncio.sleep(BETWEEN)
            publication.set_subscribed(True)


__all__ = ["Subscriptions"]
