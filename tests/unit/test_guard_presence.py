"""How long a job waits for its human: every order of coming, leaving, losing sight and draining."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

import pytest

from agent_guard.presence import HumanState, Presence

ALICE, BOB, NOBODY = ("alice",), ("bob",), ()
BOTH = (*ALICE, *BOB)
SHORT, LONG = 0.02, 60.0


class Job:
    """Remembers what the presence told it."""

    def __init__(self, grace: float) -> None:
        self.told: list[str] = []
        self.over = asyncio.Event()
        self.presence = Presence(
            grace,
            on_gone=lambda: self.told.append("gone"),
            on_returned=lambda who, lost: self.told.append(f"{who} {'found' if lost else 'returned'}"),
            on_over=self._over,
        )

    def see(self, *humans: Collection[str]) -> Job:
        for seen in humans:
            self.presence.seen(seen)
        return self

    def _over(self) -> None:
        self.told.append("over")
        self.over.set()

    async def ends(self) -> bool:
        done, waiting = await asyncio.wait([asyncio.ensure_future(self.over.wait())], timeout=SHORT * 5)
        for task in waiting:
            task.cancel()
        return bool(done)


async def test_it_ends_after_the_last_human_left() -> None:
    job = Job(SHORT).see(ALICE, NOBODY)
    assert await job.ends()
    assert job.told == ["gone", "over"]


async def test_a_return_under_the_same_or_another_name_keeps_it() -> None:
    for back in (ALICE, BOB):
        job = Job(SHORT).see(ALICE, NOBODY, back)
        assert not await job.ends()
        assert job.told == ["gone", f"{back[0]} returned"]


async def test_who_takes_a_humans_place_between_two_looks_is_told_as_a_return() -> None:
    job = Job(SHORT).see(ALICE, BOB)
    assert not await job.ends()
    assert job.told == ["bob returned"]


async def test_only_the_last_human_counts() -> None:
    job = Job(SHORT).see(ALICE, BOTH, BOB)
    assert not await job.ends()
    assert job.told == []


async def test_one_that_waits_for_its_first_human_is_not_ended() -> None:
    job = Job(SHORT).see(NOBODY, NOBODY)
    assert not await job.ends()
    assert job.presence.state is HumanState.AWAITED


async def test_seeing_nobody_again_does_not_prolong_the_grace() -> None:
    job = Job(SHORT).see(ALICE, NOBODY)
    await asyncio.sleep(SHORT / 2)
    job.see(NOBODY)
    timer = job.presence._timer
    assert timer is not None
    assert timer.when() <= asyncio.get_running_loop().time() + SHORT / 2 + 0.001
    assert await job.ends()


async def test_while_blind_no_time_passes() -> None:
    job = Job(SHORT).see(ALICE, NOBODY)
    job.presence.blind()
    assert not await job.ends()
    job.see(NOBODY)
    assert await job.ends()


async def test_who_was_lost_with_the_connection_did_not_leave() -> None:
    job = Job(LONG).see(ALICE)
    job.presence.blind()
    job.see(NOBODY, ALICE)
    assert job.told == ["gone", "alice found"]
    job.see(NOBODY, ALICE)
    assert job.told == ["gone", "alice found", "gone", "alice returned"]
    job.presence.end()


async def test_who_is_still_there_after_a_reconnection_is_not_lost_later() -> None:
    job = Job(LONG).see(ALICE)
    job.presence.blind()
    job.see(ALICE, NOBODY, ALICE)
    assert job.told == ["gone", "alice returned"]


async def test_somebody_else_after_a_lost_connection_does_not_go_on_where_the_lost_one_was() -> None:
    seen = Job(LONG).see(ALICE)
    seen.presence.blind()
    seen.see(NOBODY, BOB)
    assert seen.told == ["gone", "bob returned"]
    unseen = Job(LONG).see(ALICE)
    unseen.presence.blind()
    unseen.see(BOB, BOB)
    assert unseen.told == ["bob returned"]


async def test_who_was_lost_goes_before_somebody_else() -> None:
    for here in (BOTH, BOB + ALICE):
        job = Job(LONG).see(ALICE)
        job.presence.blind()
        job.see(NOBODY, here)
        assert job.told == ["gone", "alice found"]


async def test_of_two_who_were_lost_the_one_who_is_back_is_told() -> None:
    """The session may have been the other one's."""
    for seen in ([BOB], [BOB, BOTH]):
        job = Job(LONG).see(BOTH)
        job.presence.blind()
        job.see(*seen)
        assert job.told == ["bob found"]
    unchanged = Job(LONG).see(BOTH)
    unchanged.presence.blind()
    assert unchanged.see(BOTH).told == []


async def test_a_first_human_is_no_return_whatever_was_out_of_sight() -> None:
    job = Job(LONG).see(NOBODY)
    job.presence.blind()
    job.see(NOBODY, ALICE)
    assert job.told == []
    assert job.presence.state is HumanState.HERE


async def test_a_drained_job_ends_as_soon_as_the_human_is_gone() -> None:
    job = Job(LONG).see(ALICE)
    job.presence.drain()
    assert not await job.ends()
    job.see(NOBODY)
    assert await job.ends()


async def test_a_drain_ends_a_grace_that_runs() -> None:
    job = Job(LONG).see(ALICE, NOBODY)
    job.presence.drain()
    assert await job.ends()


async def test_a_drained_job_waits_for_a_first_human_no_longer_than_the_grace() -> None:
    job = Job(SHORT).see(NOBODY)
    job.presence.drain()
    assert await job.ends()
    came = Job(SHORT).see(NOBODY)
    came.presence.drain()
    came.see(ALICE)
    assert not await came.ends()


@pytest.mark.parametrize("then", [NOBODY, ALICE])
async def test_nothing_follows_the_end(then: tuple[str, ...]) -> None:
    job = Job(SHORT).see(ALICE, NOBODY)
    assert await job.ends()
    job.presence.drain()
    job.see(then, NOBODY)
    assert job.told == ["gone", "over"]
    assert job.presence.state is HumanState.OVER
