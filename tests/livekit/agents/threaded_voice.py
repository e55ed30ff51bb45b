"""The fragile voice agent with the thread executor: its jobs are threads, and cannot be killed alone."""

from __future__ import annotations

from fragile_voice import entrypoint as break_or_talk
from livekit.agents import AgentServer, JobContext, JobExecutorType
from steady_voice import steady

from voice import prewarm

server = AgentServer(job_executor_type=JobExecutorType.THREAD)
server.setup_fnc = prewarm
steady(server)


@server.rtc_session()
async def entrypoint(ctx: JobContext) -> None:
    await break_or_talk(ctx)
