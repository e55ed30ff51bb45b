"""What a worker says on its health endpoint is heard: livekit-agents never mends its inference process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.livekit.stand import AGENTS, standing
from tests.livekit.supervised import voice


async def test_a_worker_whose_inference_process_died_is_replaced(tmp_path: Path) -> None:
    pid = tmp_path / "inference.pid"
    agent = voice(
        script=str(AGENTS / "inferring_voice.py"),
        env={"INFERENCE_PID": str(pid)},
        heartbeat={"interval": "500ms", "timeout": "2s"},
    )
    async with standing(tmp_path, agent) as stand:
        before = await stand.daemon.agent()
        died = int(pid.read_text())
        os.kill(died, signal.SIGKILL)
        await stand.daemon.until(
            lambda s: s["agents"][0]["ready"] and s["agents"][0]["pid"] != before["pid"], 60
        )
        assert await stand.daemon.metric("agent_restarts_total", {"reason": "hung"}) == 1
        assert "inference process not running" in stand.daemon.log.read_text()
        assert int(pid.read_text()) != died
