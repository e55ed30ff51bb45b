"""Sees to it that an agent hears its caller again after LiveKit has restarted.

After a full reconnection the SDK now and then never subscribes to a track that was published at just that
moment: the agent is in the room, alive, and deaf.  One rule: only what the script was subscribed to before,
of the same human or of those in whose place another one came, is asked for anew, so that a script that does
not want a track is not given it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from livekit import rtc

SUBSCRIBED_BY = 1.5
"""Seconds within which a track that was published again should be ours again."""
LET_GO_AFTER = 0.5
BETWEEN = 0.1

_Source = tuple[str, int]
"""Who publishes, and what: LiveKit's ``TrackSource``."""


class Subscriptions:
    """Those of one job's room; to be attached before it connects."""

    def __init__(self, room: rtc.Room) -> None:
        self._room = room
        self._wanted: set[_Source] = set()
        self._asking: set[asyncio.Future[Any]] = set()
        room.on("track_published", self._published)
        room.on("track_subscribed", self._subscribed)
        room.on("track_unsubscribed", self._unsubscribed)

    def close(self) -> None:
        for task in self._asking:
            task.cancel()

    def take_over(self, identity: str) -> None:
        """The agent is this human's now: of somebody new the script wants what it wanted of those before."""
        if any(known == identity for known, _ in self._wanted):
            return
        self._wanted |= {(identity, source) for _, source in self._wanted}
        who = self._room.remote_participants.get(identity)
        if who is not None:
            for publication in who.track_publications.values():
                self._published(publication, who)

    def _subscribed(
        self, _track: rtc.Track, publication: rtc.RemoteTrackPublication, who: rtc.RemoteParticipant
    ) -> None:
        self._wanted.add((who.identity, publication.source))

    def _unsubscribed(
        self, _track: Any, publication: rtc.RemoteTrackPublication, who: rtc.RemoteParticipant
    ) -> None:
        self._spawn(self._judge(publication, who))

    async def _judge(self, publication: rtc.RemoteTrackPublication, who: rtc.RemoteParticipant) -> None:
        """A track that is still published a while later was let go of by the script: it is not wanted."""
        await asyncio.sleep(LET_GO_AFTER)
        if self._is_there(publication, who) and publication.track is None:
            self._wanted.discard((who.identity, publication.source))

    def _published(self, publication: rtc.RemoteTrackPublication, who: rtc.RemoteParticipant) -> None:
        if (who.identity, publication.source) in self._wanted:
            self._spawn(self._ask_anew(publication, who))

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

    def _is_there(self, publication: rtc.RemoteTrackPublication, who: rtc.RemoteParticipant) -> bool:
        present = self._room.remote_participants.get(who.identity) is who
        return present and who.track_publications.get(publication.sid) is publication

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
