"""Every answer to a job request, and what a drain and a lower limit do about claims, moves its series.

The guard's part is spoken by the test, from inside a supervised process; the daemon cannot tell, and LiveKit
is not needed.
"""

from __future__ import annotations

from pathlib import Path

from tests.livekit.supervised import Supervised
from tests.observability import guard_mouth
from tests.observability.effects import comes_to, command, kill_worker, moves, rises_above, supervised
from tests.observability.guard_mouth import AGENT, Lender, Mouth
from tests.observability.odd_livekit import OddLiveKit


async def test_claims(livekit: OddLiveKit, tmp_path: Path, runtime_dir: Path) -> None:
    lent = Lender(runtime_dir)
    async with supervised(tmp_path / "daemon", runtime_dir, livekit, [lent.configured()]) as daemon:
        await lent.listens()
        async with guard_mouth.worker(lent.path, AGENT) as worker:
            await requests_are_counted_by_their_answer(daemon, worker)
            async with guard_mouth.job(lent.path, AGENT, "one", "first") as job:
                await a_job_that_was_there_first_takes_a_promised_room(daemon, lent, worker)
                await a_drain_is_answered_and_can_be_interrupted(daemon, worker, job)
        await a_worker_that_does_not_hear_is_stopping(daemon, lent)


async def requests_are_counted_by_their_answer(daemon: Supervised, worker: Mouth) -> None:
    for room, job, outcome in (
        ("one", "first", "granted"),
        ("one", "second", "held"),
        ("two", "third", "granted"),
        ("three", "fourth", "full"),
    ):
        async with moves(daemon, "claim_requests_total", agent_id=AGENT, outcome=outcome):
            assert await worker.asks(room, job) == outcome
    assert await daemon.metric("claims", {"agent_id": AGENT}) == 2
    assert await daemon.metric("agent_max_rooms", {"agent_id": AGENT}) == 2
    await rises_above(daemon, 0, "rooms", state="empty")


async def a_job_that_was_there_first_takes_a_promised_room(
    daemon: Supervised, lent: Lender, worker: Mouth
) -> None:
    """As after a daemon that came back without its store: whom it was promised to does not get it later."""
    async with guard_mouth.job(lent.path, AGENT, "two", "older") as older:
        await an_agent_above_its_limit_is_told(daemon, lent)
        older.says("goodbye", reason="over")
        await comes_to(daemon, 1, "claims", agent_id=AGENT)
    async with moves(daemon, "claim_requests_total", agent_id=AGENT, outcome="error"):
        assert await worker.asks("two", "third") == "error"


async def an_agent_above_its_limit_is_told(daemon: Supervised, lent: Lender) -> None:
    """Nobody in a call is put out by a lower limit."""
    daemon.write(agents=[lent.configured(max_rooms=1)])
    async with moves(daemon, "conflicts_total", kind="too_many_rooms", resolution="reported"):
        await command(daemon, "reload")
    assert await daemon.metric("conflicts_unresolved", {"kind": "too_many_rooms"}) == 1
    status = await daemon.status()
    assert status is not None
    assert "more rooms than its max_rooms of 1" in [problem["message"] for problem in status["problems"]]
    daemon.write(agents=[lent.configured()])
    await command(daemon, "reload")
    await comes_to(daemon, 0, "conflicts_unresolved", kind="too_many_rooms")
    assert await daemon.metric("agent_restarts_total") == 0


async def a_drain_is_answered_and_can_be_interrupted(daemon: Supervised, worker: Mouth, job: Mouth) -> None:
    assert await daemon.metric("agent_active_jobs", {"agent_id": AGENT}) == 1
    job.says("census", agents=["agent-first"], humans=1)
    await command(daemon, "drain", agent=AGENT)
    await worker.hears("drain")
    async with moves(daemon, "claim_requests_total", agent_id=AGENT, outcome="draining"):
        assert await worker.asks("four", "fifth") == "draining"
    assert await daemon.metric("agent_state", {"agent_id": AGENT, "state": "draining"}) == 1
    async with moves(daemon, "drains_total", agent_id=AGENT, outcome="interrupted"):
        await kill_worker(daemon)
    await comes_to(daemon, 1, "agent_state", agent_id=AGENT, state="stopped")


async def a_worker_that_does_not_hear_is_stopping(daemon: Supervised, lent: Lender) -> None:
    lent.path.unlink()
    await command(daemon, "start", agent=AGENT)
    await lent.listens()
    await command(daemon, "stop", agent=AGENT)
    await comes_to(daemon, 1, "agent_state", agent_id=AGENT, state="stopping")
    await kill_worker(daemon)
    await comes_to(daemon, 1, "agent_state", agent_id=AGENT, state="stopped")
