"""Each counter and histogram about rooms moves by what really happens in rooms of a real LiveKit server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from livekit import api

from supervisor.cli.human import Human
from tests.livekit.conftest import MakeServer, make_livekit_server
from tests.livekit.server import LiveKitServer
from tests.livekit.supervised import Supervised, voice
from tests.observability.effects import SOON, comes_to, command, moves, rises_above
from tests.observability.guest import agent_guest
from tests.ports import free_port

__all__ = ["make_livekit_server"]  # a fixture of another tier

AGENT = "agent-66"


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
async def livekit(make_livekit_server: MakeServer, port: int) -> LiveKitServer:
    hook = (f"http://127.0.0.1:{port}/livekit/webhook",)
    return await asyncio.to_thread(make_livekit_server, webhook_urls=hook)


@pytest.fixture
async def daemon(
    livekit: LiveKitServer, port: int, tmp_path: Path, runtime_dir: Path
) -> AsyncIterator[Supervised]:
    agents = [voice(max_rooms=1, stop={"drain": "2s", "kill": "3s"})]
    rooms = {"join_timeout": "8s"}  # longer than LiveKit takes to list a dispatch's job
    subject = Supervised(tmp_path / "daemon", runtime_dir, livekit, port=port, agents=agents, rooms=rooms)
    await subject.start()
    yield subject
    await subject.close()


async def dispatch(livekit: LiveKitServer, room: str) -> None:
    """As an application would."""
    async with api.LiveKitAPI(livekit.http_url, livekit.key, livekit.secret) as client:
        request = api.CreateAgentDispatchRequest(agent_name="Agent_66", room=room)
        await client.agent_dispatch.create_dispatch(request)


async def test_rooms(daemon: Supervised, livekit: LiveKitServer) -> None:
    """One after the other, since starting a worker costs more than all of it."""
    assert await daemon.metric("agent_start_duration_seconds_count", {"agent_id": AGENT}) == 1
    async with daemon.human("one") as human:
        human.talk()
        await a_room_gets_its_agent(daemon, human)
        await a_second_agent_is_refused(daemon, livekit)
        await an_agent_that_is_full_takes_no_other_room(daemon, livekit)
        await a_foreign_agent_is_removed(daemon, livekit)
        await a_second_agent_of_ours_is_removed(daemon, livekit)
        await an_agent_of_another_supervisor_is_reported(daemon, livekit)
        await a_drain_runs_out_of_time(daemon)
    await dispatches_without_a_worker_are_lost(daemon, livekit)


async def a_room_gets_its_agent(daemon: Supervised, human: Human) -> None:
    async with (
        moves(daemon, "claim_requests_total", agent_id=AGENT, outcome="granted"),
        moves(daemon, "dispatches_total", agent_id=AGENT, outcome="created"),
        moves(daemon, "dispatches_total", agent_id=AGENT, outcome="joined"),
        moves(daemon, "livekit_requests_total", method="create_dispatch", outcome="ok"),
        moves(daemon, "conflicts_total", kind="missing_agent", resolution="redispatched"),
        moves(daemon, "conflict_resolution_seconds_count", kind="missing_agent"),
        moves(daemon, "recovery_seconds_count", cause="other"),
        moves(daemon, "webhooks_total", event="track_published", outcome="accepted"),
    ):
        assert await human.wait_settled(SOON), daemon.tail()
    await comes_to(daemon, 1, "rooms", state="healthy")


async def a_second_agent_is_refused(daemon: Supervised, livekit: LiveKitServer) -> None:
    async with (
        moves(daemon, "claim_requests_total", agent_id=AGENT, outcome="held"),
        moves(daemon, "conflicts_total", kind="duplicate_request", resolution="rejected"),
        moves(daemon, "conflict_resolution_seconds_count", kind="duplicate_request"),
        moves(daemon, "livekit_requests_total", method="delete_dispatch", outcome="ok"),
        moves(daemon, "livekit_request_duration_seconds_count", method="delete_dispatch"),
        moves(daemon, "dispatches_total", agent_id=AGENT, outcome="deleted"),
    ):
        await dispatch(livekit, "one")


async def an_agent_that_is_full_takes_no_other_room(daemon: Supervised, livekit: LiveKitServer) -> None:
    async with daemon.human("two"):
        async with (
            moves(daemon, "claim_requests_total", agent_id=AGENT, outcome="full"),
            moves(daemon, "dispatches_total", agent_id=AGENT, outcome="lost"),
            moves(daemon, "conflicts_total", kind="lost_dispatch", resolution="redispatched"),
            moves(daemon, "conflict_resolution_seconds_count", kind="lost_dispatch"),
        ):
            await dispatch(livekit, "two")
        assert await daemon.metric("conflicts_unresolved", {"kind": "missing_agent"}) == 1


async def a_foreign_agent_is_removed(daemon: Supervised, livekit: LiveKitServer) -> None:
    async with (
        moves(daemon, "conflicts_total", kind="foreign_agent", resolution="evicted"),
        moves(daemon, "conflict_resolution_seconds_count", kind="foreign_agent"),
        moves(daemon, "livekit_requests_total", method="remove_participant", outcome="ok"),
        moves(daemon, "livekit_request_duration_seconds_count", method="remove_participant"),
        agent_guest(livekit, "one", {}),
    ):
        await rises_above(daemon, 0, "conflicts_total", kind="foreign_agent")


async def a_second_agent_of_ours_is_removed(daemon: Supervised, livekit: LiveKitServer) -> None:
    """From a worker of that name without a guard."""
    async with (
        moves(daemon, "conflicts_total", kind="duplicate_agent", resolution="evicted"),
        moves(daemon, "conflict_resolution_seconds_count", kind="duplicate_agent"),
        agent_guest(livekit, "one", {"lk.agent_name": "Agent_66"}),
    ):
        await rises_above(daemon, 0, "conflicts_total", kind="duplicate_agent")


async def an_agent_of_another_supervisor_is_reported(daemon: Supervised, livekit: LiveKitServer) -> None:
    """And stays, as a conflict that is there."""
    async with (
        moves(daemon, "conflicts_total", kind="foreign_agent", resolution="reported"),
        agent_guest(livekit, "one", {"supervisor.instance": "another"}),
    ):
        await comes_to(daemon, 1, "rooms", state="conflict")
        await comes_to(daemon, 1, "conflicts_unresolved", kind="foreign_agent")


async def a_drain_runs_out_of_time(daemon: Supervised) -> None:
    async with moves(daemon, "drains_total", agent_id=AGENT, outcome="timeout"):
        await command(daemon, "drain", agent=AGENT)
    await daemon.until(lambda s: s["agents"][0]["state"] == "stopped", SOON)


async def dispatches_without_a_worker_are_lost(daemon: Supervised, livekit: LiveKitServer) -> None:
    """LiveKit launches a dispatch once, and nobody was there; who made two, has one too many."""
    async with daemon.human("later") as human:
        human.talk()
        async with (
            moves(daemon, "conflicts_total", 30, kind="duplicate_dispatch", resolution="terminated"),
            moves(daemon, "conflict_resolution_seconds_count", 30, kind="duplicate_dispatch"),
        ):
            await dispatch(livekit, "later")
            await dispatch(livekit, "later")
        async with (
            moves(daemon, "recovery_seconds_count", cause="lost_dispatch"),
            moves(daemon, "agent_start_duration_seconds_count", agent_id=AGENT),
        ):
            await command(daemon, "start", agent=AGENT)
            assert await human.wait_settled(SOON), daemon.tail()
