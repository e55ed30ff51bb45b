"""An agent with a real ``AgentSession``: it says sentence after sentence, and numbers each by its memory.

The number is that of the sentences in the session's history: a session that has been reset begins with 1.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from livekit import rtc
from livekit.agents import Agent, AgentServer, AgentSession, JobContext
from steady_voice import steady

from voice import greeting

server = AgentServer()
steady(server)


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    def tell(*words: object) -> None:
        print(f"<{ctx.job.room.name}> {os.getpid()} {' '.join(map(str, words))}\n", end="", flush=True)

    session: AgentSession[None] = AgentSession()
    session.on("close", lambda event: tell("closed", event.reason.value))
    await session.start(Agent(instructions="none"), room=ctx.room)
    while True:
        number = len(session.history.items) + 1
        tell("says", number)
        await session.say(f"sentence {number}", audio=sound())


async def sound() -> AsyncIterator[rtc.AudioFrame]:
    for frame in greeting():
        yield frame
