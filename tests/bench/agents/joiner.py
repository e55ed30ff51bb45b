"""An agent that joins its room and does nothing there; its load counts for nothing."""

from __future__ import annotations

import os

from livekit.agents import AgentServer, JobContext

NAME = os.environ.get("BENCH_AGENT_NAME", "")


def no_load(_server: AgentServer) -> float:
    return 0.0


server = AgentServer(load_fnc=no_load, num_idle_processes=1, port=0)


@server.rtc_session(agent_name=NAME)
async def entry(context: JobContext) -> None:
    await context.connect()
