"""With the thread executor nothing can end a hung job but the end of its worker; so that is what it costs."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.livekit.stand import AGENTS, SOON, standing
from tests.livekit.supervised import voice


async def test_a_hung_job_costs_the_worker(tmp_path: Path) -> None:
    agent = voice(
        script=str(AGENTS / "threaded_voice.py"),
        heartbeat={"interval": "500ms", "timeout": "3s"},
        stop={"drain": "1s", "kill": "1s"},
    )
    async with standing(tmp_path, agent) as stand, stand.human("threads", "human") as human:
        human.talk()
        assert await human.wait_settled(SOON), stand.daemon.tail()
        (lost,) = human.agents.present()
        before = await stand.daemon.agent()
        since = asyncio.get_running_loop().time()
        await stand.tell_agent("threads", "break", "hang")
        heard = await human.wait_audible(SOON, since=since, other_than={lost})
        assert heard is not None, stand.daemon.tail()
        after = await stand.daemon.agent()
        assert after["pid"] not in (None, before["pid"])
        assert human.agents.two_at_once(since) == 0.0
        assert await stand.daemon.metric("agent_restarts_total", {"reason": "hung"}) == 1
        assert await stand.daemon.metric("recovery_seconds_count", {"cause": "hung_job"}) == 1
