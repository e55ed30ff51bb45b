"""A look at the room through LiveKit itself, for when the daemon does not answer.

One rule: only a look that worked and showed no agent means that the room is free.
"""

from __future__ import annotations

import asyncio

from livekit import api

LOOK_TIMEOUT = 0.5
ON_BEHALF = "lk.publish_on_behalf"
"""The attribute of an avatar: of kind AGENT, yet no agent of its own."""


class LookFailed(Exception):
    """The room could not be read; nothing is known about it."""


async def agents_in(room: str) -> list[str]:
    """Identities of the agents in the room, avatars left out."""
    reading = asyncio.ensure_future(_read(room))
    done, _ = await asyncio.wait({reading}, timeout=LOOK_TIMEOUT)
    if not done:
        reading.cancel()
        raise LookFailed("LiveKit did not answer in time")
    error = reading.exception()
    if error is not None:
        raise LookFailed(f"{type(error).__name__}: {error}")
    return reading.result()


async def _read(room: str) -> list[str]:
    # The worker's own URL, key and secret: AgentServer.run() exports them to the environment.
    async with api.LiveKitAPI() as livekit:
        response = await livekit.room.list_participants(api.ListParticipantsRequest(room=room))
    return [
        p.identity
        for p in response.participants
        if p.kind == api.ParticipantInfo.Kind.AGENT
        and p.state != api.ParticipantInfo.State.DISCONNECTED
        and ON_BEHALF not in p.attributes
    ]
