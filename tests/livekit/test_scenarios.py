"""The four everyday scenarios, as those in the room hear them: one agent, always the same, and no gap.

One daemon and one server for all; each round has rooms of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import statistics
from collections.abc import AsyncIterator, Iterable
from functools import partial

import pytest
import pytest_asyncio
from livekit import api

from supervisor.cli.human import Human
from tests import leaks
from tests.livekit.stand import AGENTS, SOON, Stand, becomes, standing
from tests.livekit.supervised import voice
from tests.scale import times

ROUNDS = times(test=1, soak=20)
AWAY = 5.0
"""Seconds between leaving and coming back."""
GAP = 2.0
"""Seconds of silence that are one: two shared cores stutter for less."""
GRACE = 8.0

pytestmark = [
    pytest.mark.soak,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(60 + 40 * ROUNDS),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stand(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    counting = voice(
        id="counting", name="Counting", script=str(AGENTS / "counting_voice.py"), rooms=["counting-*"]
    )
    folder = tmp_path_factory.mktemp("stand")
    async with standing(folder, counting, voice(), rooms={"human_return_grace": f"{GRACE}s"}) as stand:
        yield stand
    assert await leaks.leaked_tasks(grace=2) == []


def now() -> float:
    return asyncio.get_running_loop().time()


async def hears_one(stand: Stand, human: Human, steady: float = 0.5) -> str:
    """The identity of the one agent that the human hears."""
    assert await human.wait_settled(SOON, steady=steady), stand.daemon.tail()
    return human.agents.present()[0]


def nobody_heard_two(stand: Stand, *humans: Human) -> None:
    for human in humans:
        assert human.agents.most_present(0.0) == 1
        assert human.agents.two_at_once(0.0) == 0.0
        assert len(stand.relay.agents(human.room)) == 1, stand.relay.stays(human.room)


def tell(what: str, seconds: Iterable[float]) -> None:
    values = list(seconds)
    print(f"{what}: median {statistics.median(values):.2f} s, worst {max(values):.2f} s, {len(values)} times")


async def test_connect(stand: Stand) -> None:
    took = []
    for number in range(ROUNDS):
        joined = now()
        async with stand.human(f"connect-{number}") as human:
            human.talk()
            heard = await human.wait_audible(SOON, since=joined)
            assert heard is not None, stand.daemon.tail()
            took.append(heard - joined)
            await hears_one(stand, human)
            nobody_heard_two(stand, human)
        await stand.end(human.room)
    tell("connect: audible after joining", took)


async def test_reconnect_after_5_s(stand: Stand) -> None:
    """A real AgentSession: the same one goes on, and has forgotten what the last conversation was."""
    took = []
    for number in range(ROUNDS):
        room = f"counting-{number}"
        identities = ("caller", "caller" if number % 2 else "caller-reloaded")
        async with stand.human(room, identities[0], asks_for="Counting") as human:
            await hears_one(stand, human)
            await becomes(partial(said, stand, room, at_least=3))
            await human.leave()
            await asyncio.sleep(AWAY)
            back = now()
            await human.rejoin(identities[1])
            heard = await human.wait_audible(SOON, since=back)
            assert heard is not None, stand.daemon.tail()
            took.append(heard - back)
            await hears_one(stand, human)
            nobody_heard_two(stand, human)
            await becomes(partial(said, stand, room, resets=1))
        assert len(processes(stand, room)) == 1, "it was not the same session"
        assert not re.search(rf"^<{room}> \d+ closed", stand.printed("counting"), re.MULTILINE)
        await stand.end(room)
    tell(f"reconnect after {AWAY:g} s: audible after joining", took)


async def said(stand: Stand, room: str, *, at_least: int = 0, resets: int = 0) -> bool:
    numbers = [int(n) for n in re.findall(rf"^<{room}> \d+ says (\d+)$", stand.printed("counting"), re.M)]
    again = sum(1 for a, b in itertools.pairwise(numbers) if b < a)
    assert again <= resets
    return again == resets and max(numbers, default=0) >= at_least


def processes(stand: Stand, room: str) -> set[str]:
    return set(re.findall(rf"^<{room}> (\d+) ", stand.printed("counting"), re.MULTILINE))


async def test_five_connects_and_disconnects_as_fast_as_possible(stand: Stand) -> None:
    took = []
    for number in range(ROUNDS):
        human = stand.human(f"hasty-{number}")
        human.talk()
        for _ in range(4):
            await human.join()
            await human.leave()
        last = now()
        await human.join()
        try:
            heard = await human.wait_audible(SOON, since=last)
            assert heard is not None, stand.daemon.tail()
            took.append(heard - last)
            await hears_one(stand, human, steady=2.0)
            nobody_heard_two(stand, human)
        finally:
            await human.leave()
        await stand.end(human.room)
    tell("the last of five quick connects: audible after joining", took)


async def test_two_clients_at_once(stand: Stand) -> None:
    gaps = []
    for number in range(ROUNDS):
        first, second = stand.human(f"pair-{number}", "first"), stand.human(f"pair-{number}", "second")
        async with first:
            first.talk()
            agent = await hears_one(stand, first)
            since = now()
            async with second:
                second.talk()
                assert await hears_one(stand, second) == agent
                await asyncio.sleep(1.0)
                nobody_heard_two(stand, first, second)
                silence = first.agents.longest_silence(since)
                gaps.append(0.0 if silence is None else silence.seconds)
                assert gaps[-1] < GAP, stand.daemon.tail()
            assert first.agents.present() == (agent,)
        await stand.end(first.room)
    tell("two clients at once: the first's longest silence", gaps)


async def test_two_clients_at_the_same_moment_in_a_new_room(stand: Stand) -> None:
    for number in range(ROUNDS):
        pair = [stand.human(f"twins-{number}", identity) for identity in ("one", "other")]
        try:
            for human in pair:
                human.talk()
            await asyncio.gather(*(human.join() for human in pair))
            agents = {await hears_one(stand, human) for human in pair}
            assert len(agents) == 1
            nobody_heard_two(stand, *pair)
        finally:
            await asyncio.gather(*(human.leave() for human in pair))
        await stand.end(pair[0].room)


async def test_the_application_hands_over_to_another_agent(stand: Stand) -> None:
    """A second agent is refused as long as the first is there; dispatched later, it is the room's agent."""
    room = "handover"
    async with stand.human(room) as human:
        human.talk()
        first = await hears_one(stand, human)
        await stand.dispatch(room, "Counting")
        await becomes(partial(asked_for, stand, room, 1), what="the second agent is refused")
        assert human.agents.present() == (first,)
        await stand.livekit.room.remove_participant(api.RoomParticipantIdentity(room=room, identity=first))
        await stand.dispatch(room, "Counting")
        assert await human.wait_until(lambda: human.agents.present() not in ((), (first,)), SOON)
        second = await hears_one(stand, human, steady=3.0)
        assert human.agents.most_present(0.0) == 1
        found = await stand.daemon.room(room)
        assert found is not None
        assert found["claim"]["agent_id"] == "counting"
        assert stand.relay.agents(room) == {first, second}
    await stand.end(room)


async def asked_for(stand: Stand, room: str, dispatches: int) -> bool:
    return len(await stand.dispatches(room)) == dispatches


async def test_when_nobody_comes_back_nothing_is_left(stand: Stand) -> None:
    """LiveKit keeps the room for a while; the agent, its dispatch and its claim are gone before that."""
    async with stand.human("left") as human:
        agent = await hears_one(stand, human)
        since = now()

    async def over() -> bool:
        room = await stand.daemon.room("left")
        gone = all(stay.left_at is not None for stay in stand.relay.stays("left"))
        return gone and not await stand.dispatches("left") and (room is None or room["claim"] is None)

    await becomes(over, what="the room is given back")
    assert now() - since >= GRACE - 1.0
    assert stand.relay.agents("left") == {agent}
    listed = await stand.livekit.room.list_rooms(api.ListRoomsRequest(names=["left"]))
    assert [room.name for room in listed.rooms] == ["left"]


async def test_nothing_was_refused_or_done_twice(stand: Stand) -> None:
    """After all of the above: no conflict that the scenarios would not have caused by themselves."""
    conflicts = {(c["kind"], c["resolution"]) for c in await stand.daemon.conflicts()}
    assert conflicts <= {("duplicate_request", "rejected"), ("duplicate_dispatch", "terminated")}
    assert await stand.daemon.metric("conflicts_unresolved") == 0
