"""What a reload changes is in force from then on, also what no agent is about."""

from __future__ import annotations

from pathlib import Path

from tests.observability.effects import SLEEPER, command, rises_above, supervised
from tests.observability.odd_livekit import OddLiveKit


async def test_the_pace_of_the_resync_and_the_form_of_the_log(
    livekit: OddLiveKit, tmp_path: Path, runtime_dir: Path
) -> None:
    folder = tmp_path / "daemon"
    async with supervised(
        folder, runtime_dir, livekit, [SLEEPER], rooms={"resync": "1h"}, log={"format": "json"}
    ) as daemon:
        assert all(line.startswith("{") for line in daemon.log.read_text().splitlines())
        before = await daemon.metric("reconcile_total", {"loop": "workers", "outcome": "ok"})
        daemon.write(rooms={"resync": "200ms"}, log={"format": "console"})
        await command(daemon, "reload")
        await rises_above(daemon, before + 10, "reconcile_total", loop="workers", outcome="ok")
        assert "configuration reloaded" in daemon.log.read_text().splitlines()[-1]
        assert not daemon.log.read_text().splitlines()[-1].startswith("{")
