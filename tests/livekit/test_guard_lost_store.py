"""The daemon is killed and its store is lost: what its workers and jobs say is enough."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.livekit.stand import SOON, standing
from tests.livekit.test_failures import HEARTBEAT, audible_again, call, fragile, measured, now

pytestmark = [pytest.mark.soak, pytest.mark.timeout(180)]


async def test_a_job_that_hangs_meanwhile_is_found_and_the_others_go_on(tmp_path: Path) -> None:
    async with (
        standing(tmp_path, fragile("one"), fragile("two")) as stand,
        call(stand, "well") as (other, others_agent),
        call(stand, "hangs") as (human, agent),
    ):
        await stand.daemon.kill()
        for file in stand.daemon.state.glob("supervisor.db*"):
            file.unlink()
        since = now()
        await stand.tell_agent("hangs", "break", "hang")
        await stand.daemon.start(wait=False)
        # While the jobs find the new daemon, a second one for either room is refused by a look.
        await asyncio.gather(stand.dispatch("well"), stand.dispatch("hangs"))
        took = await audible_again(stand, human, agent, since, HEARTBEAT + SOON)
        measured("job hung while the store was lost: audible again after", took)
        assert other.agents.present() == (others_agent,)
        assert stand.relay.agents("well") == {others_agent}
        hung = {"kind": "hung_job", "resolution": "terminated"}
        assert await stand.daemon.metric("conflicts_total", hung) == 1
