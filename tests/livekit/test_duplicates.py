"""Duplicates by the thousand: what a guard refuses never becomes a participant, what none sees is removed.

Two guarded workers have one agent name; LiveKit offers each job to either.  Who became a participant is
asked of LiveKit's own webhooks, of its lists, and of the humans in the rooms.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
from collections.abc import AsyncIterator
from functools import partial

import pytest
import pytest_asyncio

from supervisor.cli.human import Human
from tests import leaks
from tests.livekit.relay import Stay
from tests.livekit.stand import SOON, Stand, becomes, standing
from tests.livekit.supervised import voice
from tests.scale import times

DISPATCHES = times(test=20, soak=1000)
UNGUARDED = times(test=3, soak=50)
ROOMS = times(test=2, soak=4)
AT_A_TIME = 8
GAP = 2.0
"""Seconds of silence that are one: two shared cores stutter for less."""

pytestmark = [
    pytest.mark.soak,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(120 + DISPATCHES + 10 * UNGUARDED),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    agents = [voice(id="one"), voice(id="two")]
    async with standing(tmp_path_factory.mktemp("stand"), *agents) as stand:
        yield stand
    assert await leaks.leaked_tasks(grace=2) == []


@contextlib.asynccontextmanager
async def calls(stand: Stand, kind: str) -> AsyncIterator[list[tuple[Human, str]]]:
    """Humans in rooms of their own, and the identity of the agent that each of them hears."""
    async with contextlib.AsyncExitStack() as stack:
        humans = [await stack.enter_async_context(stand.human(f"{kind}-{i}")) for i in range(ROOMS)]
        for human in humans:
            human.talk()
        for human in humans:
            assert await human.wait_settled(SOON, steady=0.5), stand.daemon.tail()
        yield [(human, human.agents.present()[0]) for human in humans]
    for human in humans:
        await stand.end(human.room)


async def test_a_guarded_duplicate_never_becomes_a_participant(stand: Stand) -> None:
    async with calls(stand, "guarded") as talking:
        since = asyncio.get_running_loop().time()
        made = 0
        while made < DISPATCHES or not all(await refused(stand)):
            assert made < 20 * DISPATCHES, "one of the workers was never asked"
            rooms = [talking[(made + i) % ROOMS][0].room for i in range(AT_A_TIME)]
            await asyncio.gather(*(stand.dispatch(room) for room in rooms))
            made += len(rooms)

        async def all_refused() -> bool:
            return sum(await refused(stand)) == made

        await becomes(all_refused, 60, "all are refused")
        for human, agent in talking:
            # all that is left is what brought the agent that is there
            await becomes(partial(alone, stand, human.room), 60)
            assert await human.wait_settled(SOON, steady=1.0), stand.daemon.tail()
            assert stand.relay.agents(human.room) == {agent}
            assert await stand.agents_in(human.room) == [agent]
            assert human.agents.most_present(0.0) == 1
            heard_without_a_gap(human, since)
        seconds = asyncio.get_running_loop().time() - since
    print(f"{made} duplicate dispatches, refused by two workers: {await refused(stand)}, in {seconds:.1f} s")


async def refused(stand: Stand) -> list[int]:
    """By each of the two workers."""
    series = [{"agent_id": agent, "outcome": "held"} for agent in ("one", "two")]
    return [int(await stand.daemon.metric("claim_requests_total", labels)) for labels in series]


async def alone(stand: Stand, room: str) -> bool:
    return len(await stand.dispatches(room)) == 1


def heard_without_a_gap(human: Human, since: float, *, two: float = 0.0) -> None:
    assert human.agents.two_at_once(since) <= two
    silence = human.agents.longest_silence(since)
    assert silence is None or silence.seconds < GAP, silence


async def test_an_unguarded_duplicate_is_removed_and_the_right_agent_stays(stand: Stand) -> None:
    async with calls(stand, "unguarded") as talking, stand.unguarded_worker():
        since = asyncio.get_running_loop().time()
        stays: list[Stay] = []
        number = 0
        while len(stays) < UNGUARDED:
            human, agent = talking[number % ROOMS]
            number += 1
            found = await answered(stand, human.room, agent)
            if found is not None:
                stays.append(found)
        for human, agent in talking:
            await becomes(partial(alone, stand, human.room))
            assert await human.wait_settled(SOON, steady=1.0), stand.daemon.tail()
            assert human.agents.present() == (agent,)
            # It asked nobody; on a busy machine its first syllable may be out before it is.
            heard_without_a_gap(human, since, two=0.5)
    assert len(evicted(stand)) == UNGUARDED
    times = sorted(stay.seconds or 0.0 for stay in stays)
    print(
        f"{UNGUARDED} unguarded agents (of {number} dispatches), in the room for: "
        f"median {statistics.median(times) * 1000:.0f} ms, worst {times[-1] * 1000:.0f} ms"
    )


def evicted(stand: Stand) -> set[str]:
    """Each once: one that is removed while it joins may come a second time, by a client that reconnects."""
    lines = [json.loads(line) for line in stand.daemon.log.read_text().splitlines() if line.startswith("{")]
    resolved = [line for line in lines if line.get("name") == "conflict_resolved"]
    return {line["identity"] for line in resolved if line["resolution"] == "evicted"}


async def answered(stand: Stand, room: str, right: str) -> Stay | None:
    """Dispatch once more; how long the agent was there, if one came, and None if it was refused."""
    before = len(stand.relay.stays(room))
    held = sum(await refused(stand))
    await stand.dispatch(room)

    async def decided() -> bool:
        came = [stay for stay in stand.relay.stays(room)[before:] if stay.left_at is not None]
        return bool(came) or sum(await refused(stand)) > held

    await becomes(decided, what="the dispatch is answered, and who came of it has gone")
    assert await stand.agents_in(room) == [right]
    new = stand.relay.stays(room)[before:]
    return new[0] if new else None
