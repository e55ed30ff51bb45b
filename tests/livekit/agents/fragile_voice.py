"""The steady voice agent, and a way to break it: data on the topic ``break`` is done to its own job."""

from __future__ import annotations

import os
import signal
import time

from livekit import rtc
from livekit.agents import AgentServer, JobContext
from steady_voice import steady

from voice import entrypoint as talk
from voice import prewarm

server = AgentServer()
server.setup_fnc = prewarm
steady(server)


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    ctx.room.on("data_received", obey)
    await talk(ctx)


def obey(packet: rtc.DataPacket) -> None:
    if packet.topic == "break" and packet.data == b"hang":
        time.sleep(3600)
    elif packet.topic == "break" and packet.data == b"die":
        os.kill(os.getpid(), signal.SIGKILL)
