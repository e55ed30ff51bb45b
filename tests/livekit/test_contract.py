"""What we rely on LiveKit to do, asked of the real server and of the model that simulations run on.

The model may be trusted as far as this goes: every fact that a decision depends on belongs here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import pytest

from supervisor.core.model import (
    ATTRIBUTE_AGENT_ID,
    ATTRIBUTE_PUBLISH_ON_BEHALF,
    DEFAULT_IDENTITY_PREFIX,
    Dispatch,
    ParticipantKind,
    Unknown,
)
from supervisor.core.ports import Done, Failed, RequestOutcome
from tests.livekit.conftest import MakeServer
from tests.livekit.server import LiveKitServer
from tests.livekit.stage import (
    Kind,
    Stage,
    StageWorker,
    Story,
    dispatches,
    participants,
    play_on_model,
    play_on_server,
    rooms,
    some_room,
    until,
)
from tests.simulation.model_ports import Verdict

Play = Callable[[Story], None]

GONE = Done(RequestOutcome.NOT_FOUND)
DEPARTURE_TIMEOUT = 2


@pytest.fixture(scope="module", params=["model", "server"])
def play(request: pytest.FixtureRequest) -> Play:
    if request.param == "model":
        return play_on_model
    server: LiveKitServer = request.getfixturevalue("livekit_server")
    return lambda story: play_on_server(story, server)


@pytest.fixture(params=["model", "server"])
def play_alone(request: pytest.FixtureRequest) -> Play:
    """With a server of its own, that closes empty rooms soon."""
    if request.param == "model":
        return lambda story: play_on_model(story, departure_timeout=DEPARTURE_TIMEOUT)
    make: MakeServer = request.getfixturevalue("make_livekit_server")
    server = make(departure_timeout=DEPARTURE_TIMEOUT)
    return lambda story: play_on_server(story, server)


# --- rooms --------------------------------------------------------------------------------------------


def test_a_missing_room_is_empty_and_there_is_nothing_to_undo(play: Play) -> None:
    async def story(stage: Stage) -> None:
        room = some_room()
        assert await stage.livekit.list_participants(room) == ()
        assert await stage.livekit.list_dispatches(room) == ()
        assert await stage.livekit.remove_participant(room, "ann") == GONE
        assert await stage.livekit.delete_dispatch(room, "AD_nothing") == GONE
        assert room not in await rooms(stage)

    play(story)


def test_a_new_room_asks_for_the_unnamed_agent(play: Play) -> None:
    async def story(stage: Stage) -> None:
        room = some_room()
        await stage.visitor(room, "ann")
        assert room in await rooms(stage)
        [dispatch] = (await dispatches(stage, room)).values()
        assert (dispatch.agent_name, dispatch.room, dispatch.job_ids) == ("", room, ())

    play(story)


def test_a_token_asks_for_agents_only_where_it_makes_the_room(play: Play) -> None:
    async def story(stage: Stage) -> None:
        room, later = some_room(), some_room()
        await stage.visitor(room, "ann", agents=("A", "B"))
        asked = {d.agent_name for d in (await dispatches(stage, room)).values()}
        assert asked == {"A", "B"}, "and not for the unnamed one"
        await stage.visitor(later, "ann")
        await stage.visitor(later, "bob", agents=("A",))
        assert {d.agent_name for d in (await dispatches(stage, later)).values()} == {""}

    play(story)


def test_whoever_joins_makes_the_room(play: Play) -> None:
    async def story(stage: Stage) -> None:
        room = some_room()
        await stage.visitor(room, "agent-1", "agent")
        assert [d.agent_name for d in (await dispatches(stage, room)).values()] == [""]

    play(story)


def test_an_agent_does_not_keep_a_room_that_its_human_has_left(play_alone: Play) -> None:
    async def story(stage: Stage) -> None:
        room = some_room()
        human = await stage.visitor(room, "ann")
        await stage.visitor(room, "agent-1", "agent")
        await human.leave()

        async def closed() -> bool:
            return room not in await rooms(stage)

        assert await until(closed, within=10) >= DEPARTURE_TIMEOUT - 1
        assert await participants(stage, room) == {}
        assert await dispatches(stage, room) == {}

    play_alone(story)


# --- participants -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["standard", "sip", "agent", "egress", "ingress"])
def test_kinds_and_tracks_are_told(play: Play, kind: Kind) -> None:
    async def story(stage: Stage) -> None:
        room = some_room()
        await stage.visitor(room, "somebody", kind, attributes={ATTRIBUTE_AGENT_ID: "agent-1"})

        async def published() -> bool:
            return (await participants(stage, room))["somebody"].has_track

        await until(published)
        somebody = (await participants(stage, room))["somebody"]
        assert somebody.kind is ParticipantKind(kind)
        assert somebody.agent_id == "agent-1"
        assert somebody.sid.startswith("PA_")
        assert somebody.joined_at_ms > 1_600_000_000_000

    play(story)


def test_an_avatar_is_told_from_an_agent(play: Play) -> None:
    async def story(stage: Stage) -> None:
        room = some_room()
        await stage.visitor(room, "face", "agent", attributes={ATTRIBUTE_PUBLISH_ON_BEHALF: "agent-1"})
        face = (await participants(stage, room))["face"]
        assert face.is_avatar
        assert not face.is_agent

    play(story)


def test_who_leaves_is_gone_at_once(play: Play) -> None:
    async def story(stage: Stage) -> None:
        room = some_room()
        human = await stage.visitor(room, "ann")
        await stage.visitor(room, "bob")
        await human.leave()

        async def gone() -> bool:
            return set(await participants(stage, room)) == {"bob"}

        assert await until(gone) < 1

    play(story)


def test_who_is_removed_is_gone_at_once_and_only_once(play: Play) -> None:
    async def story(stage: Stage) -> None:
        room = some_room()
        await stage.visitor(room, "ann")
        await stage.visitor(room, "agent-1", "agent")
        assert await stage.livekit.remove_participant(room, "agent-1") == Done()
        assert set(await participants(stage, room)) == {"ann"}
        assert await stage.livekit.remove_participant(room, "agent-1") == GONE

    play(story)


def test_a_second_of_the_same_identity_pushes_the_first_one_out(play: Play) -> None:
    async def story(stage: Stage) -> None:
        room = some_room()
        await stage.visitor(room, "ann")
        before = (await participants(stage, room))["ann"]
        await stage.visitor(room, "ann")
        after = await participants(stage, room)
        assert set(after) == {"ann"}
        assert after["ann"].sid != before.sid

    play(story)


def test_whose_process_is_killed_stays_listed_as_a_ghost_and_can_be_removed(play: Play) -> None:
    async def story(stage: Stage) -> None:
        room = some_room()
        await stage.visitor(room, "ann")
        ghosts = [await stage.visitor(room, name, "agent", mortal=True) for name in ("one", "two")]

        async def published() -> bool:
            return all(p.has_track for p in (await participants(stage, room)).values())

        await until(published)
        for ghost in ghosts:
            await ghost.die()
        await asyncio.sleep(1)
        assert await stage.livekit.remove_participant(room, "one") == Done()
        assert set(await participants(stage, room)) == {"ann", "two"}

        async def faded() -> bool:
            listed = await participants(stage, room)
            assert listed["two"].has_track if "two" in listed else True
            return "two" not in listed

        assert 15 < await until(faded, within=30) < 25

    play(story)


# --- dispatches and jobs ------------------------------------------------------------------------------


def test_every_dispatch_is_one_more(play: Play) -> None:
    async def story(stage: Stage) -> None:
        room = some_room()
        await stage.visitor(room, "ann")
        made = [await stage.livekit.create_dispatch(room, "A", f"metadata {n}") for n in range(2)]
        listed = await dispatches(stage, room)
        for number, dispatch in enumerate(made):
            assert isinstance(dispatch, Dispatch)
            assert (dispatch.agent_name, dispatch.room) == ("A", room)
            assert dispatch.metadata == f"metadata {number}"
            assert dispatch.created_at_ms > 1_600_000_000_000
            assert listed[dispatch.id].metadata == dispatch.metadata
        assert len(listed) == 3

    play(story)


def test_a_dispatch_makes_a_missing_room_with_its_default_one(play: Play) -> None:
    async def story(stage: Stage) -> None:
        room = some_room()
        assert isinstance(await stage.livekit.create_dispatch(room, "A", ""), Dispatch)
        assert room in await rooms(stage)
        assert sorted(d.agent_name for d in (await dispatches(stage, room)).values()) == ["", "A"]

    play(story)


def test_an_accepted_job_brings_an_agent(play: Play) -> None:
    async def story(stage: Stage) -> None:
        room, name = some_room(), some_room()
        worker = await stage.worker(name, Verdict.ACCEPT)
        await stage.visitor(room, "ann", agents=(name,))

        async def sounds() -> bool:
            return any(p.is_agent and p.has_track for p in (await participants(stage, room)).values())

        await until(sounds)
        [job_id] = worker.offers
        agent = (await participants(stage, room))[DEFAULT_IDENTITY_PREFIX + job_id]
        assert (agent.kind, agent.agent_name) == (ParticipantKind.AGENT, name)
        assert await listed_jobs(stage, room) == (job_id,)

    play(story)


def test_jobs_are_listed_late_after_a_worker_has_registered(play: Play) -> None:
    """Up to 5 s: no job listed does not mean that there is none."""

    async def story(stage: Stage) -> None:
        name = some_room()
        await stage.worker(name, Verdict.ACCEPT)
        seconds = []
        for room in (some_room(), some_room()):
            await stage.visitor(room, "ann", agents=(name,))
            await until(lambda room=room: agent_is_there(stage, room))  # type: ignore[misc]
            seconds.append(await until(lambda room=room: has_listed_jobs(stage, room)))  # type: ignore[misc]
        assert 3 < seconds[0] < 6
        assert seconds[1] < 1

    play(story)


async def has_listed_jobs(stage: Stage, room: str) -> bool:
    return any(d.job_ids for d in (await dispatches(stage, room)).values())


async def listed_jobs(stage: Stage, room: str) -> tuple[str, ...]:
    """Of the only dispatch that has any, once it has."""
    await until(lambda: has_listed_jobs(stage, room))
    [jobs] = [d.job_ids for d in (await dispatches(stage, room)).values() if d.job_ids]
    return jobs


def test_a_job_stays_listed_after_its_agent_was_removed(play: Play) -> None:
    async def story(stage: Stage) -> None:
        room, name = some_room(), some_room()
        worker = await stage.worker(name, Verdict.ACCEPT)
        await stage.visitor(room, "ann", agents=(name,))

        async def sounds() -> bool:
            return any(p.is_agent and p.has_track for p in (await participants(stage, room)).values())

        await until(sounds)
        identity = DEFAULT_IDENTITY_PREFIX + worker.offers[0]
        assert await stage.livekit.remove_participant(room, identity) == Done()
        assert await listed_jobs(stage, room) == tuple(worker.offers)
        assert set(await participants(stage, room)) == {"ann"}
        assert len(worker.offers) == 1, "and nobody is asked anew"

    play(story)


def test_without_a_worker_a_dispatch_is_lost_for_good(play: Play) -> None:
    async def story(stage: Stage) -> None:
        room, name = some_room(), some_room()
        await stage.visitor(room, "ann", agents=(name,))
        await asyncio.sleep(1)
        worker = await stage.worker(name, Verdict.ACCEPT)
        await asyncio.sleep(2)
        assert worker.offers == []
        [lost] = (await dispatches(stage, room)).values()
        assert lost.job_ids == ()
        await stage.livekit.create_dispatch(room, name, "")
        await until(lambda: agent_is_there(stage, room))
        assert len(worker.offers) == 1

    play(story)


def test_a_job_that_is_refused_for_good_is_offered_to_nobody_else(play: Play) -> None:
    async def story(stage: Stage) -> None:
        room, name = some_room(), some_room()
        workers = [await stage.worker(name, Verdict.REJECT) for _ in range(2)]
        await stage.visitor(room, "ann", agents=(name,))
        jobs = await listed_jobs(stage, room)
        assert jobs == tuple(job for worker in workers for job in worker.offers), "though nobody has it"
        assert len(jobs) == 1
        assert set(await participants(stage, room)) == {"ann"}

    play(story)


def test_a_job_that_is_passed_on_is_offered_to_each_worker_once(play: Play) -> None:
    async def story(stage: Stage) -> None:
        room, name = some_room(), some_room()
        workers = [await stage.worker(name, Verdict.PASS) for _ in range(3)]
        await stage.visitor(room, "ann", agents=(name,))

        async def all_asked() -> bool:
            return all(worker.offers for worker in workers)

        await until(all_asked)
        await asyncio.sleep(6)
        offers = [worker.offers for worker in workers]
        assert offers == [offers[0]] * 3
        assert len(offers[0]) == 1, "one job, asked of each once"
        assert [d.job_ids for d in (await dispatches(stage, room)).values()] == [()]

    play(story)


def test_a_worker_that_does_not_answer_costs_the_dispatch(play: Play) -> None:
    async def story(stage: Stage) -> None:
        room, name = some_room(), some_room()
        silent = await stage.worker(name, None)
        await stage.visitor(room, "ann", agents=(name,))

        async def asked() -> bool:
            return len(silent.offers) == 1

        await until(asked)
        other = await stage.worker(name, Verdict.ACCEPT)
        await asyncio.sleep(6)
        assert len(silent.offers) == 1
        assert other.offers == []
        assert [d.job_ids for d in (await dispatches(stage, room)).values()] == [()]

    play(story)


def test_a_worker_that_dies_when_asked_leaves_it_to_another(play: Play) -> None:
    """A job request is given up after 3 s: where a machine was too slow for that, it is tried again."""

    async def story(stage: Stage) -> None:
        for _ in range(5):
            room, name = some_room(), some_room()
            silent = await stage.worker(name, None)
            await stage.visitor(room, "ann", agents=(name,))
            await until(partial(asked, silent))
            since = asyncio.get_running_loop().time()
            other = await stage.worker(name, Verdict.ACCEPT)
            await silent.stop()
            if asyncio.get_running_loop().time() - since < 1.0:
                await until(partial(agent_is_there, stage, room))
                assert other.offers == silent.offers
                return
        raise AssertionError("never within a second")

    async def asked(worker: StageWorker) -> bool:
        return len(worker.offers) == 1

    play(story)


def test_a_deleted_dispatch_ends_its_agent_slowly(play: Play) -> None:
    async def story(stage: Stage) -> None:
        room, name = some_room(), some_room()
        await stage.worker(name, Verdict.ACCEPT)
        await stage.visitor(room, "ann", agents=(name,))
        await until(lambda: agent_is_there(stage, room))
        [dispatch] = (await dispatches(stage, room)).values()
        assert await stage.livekit.delete_dispatch(room, dispatch.id) == Done()
        assert await dispatches(stage, room) == {}
        assert await stage.livekit.delete_dispatch(room, dispatch.id) == GONE
        await asyncio.sleep(1)
        assert await agent_is_there(stage, room)

        async def gone() -> bool:
            return not await agent_is_there(stage, room)

        await until(gone, within=14)

    play(story)


def test_the_dispatch_of_a_dead_worker_leaves_its_participant_there(play: Play) -> None:
    async def story(stage: Stage) -> None:
        room, name = some_room(), some_room()
        worker = await stage.worker(name, Verdict.ACCEPT)
        await stage.visitor(room, "ann", agents=(name,))
        await until(lambda: agent_is_there(stage, room))
        await worker.stop()
        assert await listed_jobs(stage, room) == tuple(worker.offers), "it shows nothing of that"
        [dispatch] = (await dispatches(stage, room)).values()
        assert await stage.livekit.delete_dispatch(room, dispatch.id) == Done()
        await asyncio.sleep(8)
        assert await agent_is_there(stage, room)

    play(story)


async def agent_is_there(stage: Stage, room: str) -> bool:
    return any(p.is_agent for p in (await participants(stage, room)).values())


# --- the server goes and comes ------------------------------------------------------------------------


def test_a_server_that_is_away_is_unknown_and_one_that_is_back_has_forgotten(play_alone: Play) -> None:
    async def story(stage: Stage) -> None:
        room = some_room()
        human = await stage.visitor(room, "ann", mortal=True)
        await human.die()
        assert set(await participants(stage, room)) == {"ann"}
        await stage.kill_server()
        assert isinstance(await stage.livekit.list_rooms(), Unknown)
        assert isinstance(await stage.livekit.list_participants(room), Unknown)
        assert isinstance(await stage.livekit.list_dispatches(room), Unknown)
        for answer in (
            await stage.livekit.remove_participant(room, "ann"),
            await stage.livekit.create_dispatch(room, "A", ""),
            await stage.livekit.delete_dispatch(room, "AD_1"),
        ):
            assert isinstance(answer, Failed)
            assert answer.outcome is RequestOutcome.UNAVAILABLE
        await stage.start_server()
        assert await stage.livekit.list_rooms() == ()
        assert await stage.livekit.list_participants(room) == ()

    play_alone(story)
