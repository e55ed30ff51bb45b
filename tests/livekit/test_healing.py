"""The promise, as a human in the room hears it: whatever breaks, exactly one agent is audible again soon."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from livekit import api

from supervisor.cli.human import Human
from tests.livekit.conftest import MakeServer
from tests.livekit.supervised import Supervised
from tests.ports import free_port

SOON = 60.0
"""Seconds; two shared cores need 5 to start a worker."""


@pytest.fixture
async def supervised(
    make_livekit_server: MakeServer, tmp_path: Path, runtime_dir: Path
) -> AsyncIterator[Supervised]:
    port = free_port()
    server = await asyncio.to_thread(
        make_livekit_server, webhook_urls=(f"http://127.0.0.1:{port}/livekit/webhook",)
    )
    subject = Supervised(tmp_path / "daemon", runtime_dir, server, port=port)
    await subject.start()
    yield subject
    await subject.close()


async def becomes(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until that is so; there is no edge to wait for in what another process shows."""
    async with asyncio.timeout(SOON):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def called(supervised: Supervised, human: Human) -> str:
    """The identity of the one agent that the human hears."""
    assert await human.wait_settled(SOON, steady=1.0), supervised.tail()
    return human.agents.present()[0]


async def test_a_second_dispatch_is_refused_and_nobody_hears_two(supervised: Supervised) -> None:
    async with supervised.human("second") as human, supervised.human("other") as bystander:
        human.talk()
        bystander.talk()
        first = await called(supervised, human)
        since = asyncio.get_running_loop().time()
        async with api.LiveKitAPI(
            supervised.server.http_url, supervised.server.key, supervised.server.secret
        ) as livekit:
            request = api.CreateAgentDispatchRequest(agent_name="Agent_66", room="second")
            await livekit.agent_dispatch.create_dispatch(request)

            async def refused() -> bool:
                listed = await livekit.agent_dispatch.list_dispatch("second")
                return [d.agent_name for d in listed if d.agent_name] == ["Agent_66"]

            await becomes(refused)
        assert await human.wait_settled(SOON)
        assert human.agents.most_present(since) == 1
        assert human.agents.two_at_once(since) == 0.0
        assert human.agents.present() == (first,)
        assert await bystander.wait_settled(SOON)
    kinds = {(c["kind"], c["resolution"]) for c in await supervised.conflicts()}
    # Nobody dispatched Agent_66 to these rooms: it was sent there when their humans had waited for it.
    assert kinds == {("duplicate_request", "rejected"), ("missing_agent", "redispatched")}
    assert await supervised.metric("conflicts_total", {"kind": "duplicate_request"}) == 1
    assert await supervised.metric("claim_requests_total", {"outcome": "held"}) == 1


async def test_a_killed_worker_is_replaced_and_its_ghost_goes(supervised: Supervised) -> None:
    async with supervised.human("ghost") as human:
        human.talk()
        first = await called(supervised, human)
        before = await supervised.agent()
        assert before["pid"] is not None
        since = asyncio.get_running_loop().time()
        os.kill(before["pid"], signal.SIGKILL)
        gone = await human.wait_until(lambda: first not in human.agents.present(), 2.0)
        assert gone, "the ghost is still there"
        assert await human.wait_audible(SOON, since=since + 0.5) is not None, supervised.tail()
        second = await called(supervised, human)
        assert second != first
        assert human.agents.most_present(since + 2.0) == 1
        assert human.agents.two_at_once(since) == 0.0
    after = await supervised.agent()
    assert after["pid"] not in (None, before["pid"])
    assert await supervised.metric("agent_restarts_total", {"reason": "signal"}) == 1
    assert await supervised.metric("recovery_seconds_count", {"cause": "worker_death"}) == 1
    assert await supervised.metric("conflicts_total", {"kind": "ghost_agent", "resolution": "evicted"}) == 1
    assert await supervised.metric("conflict_resolution_seconds_count", {"kind": "ghost_agent"}) == 1
    lost = {"kind": "lost_dispatch"}
    assert await supervised.metric("conflicts_total", lost) == 0, "one was made for the worker that had died"
    assert await supervised.metric("conflicts_unresolved") == 0


async def test_livekit_killed_and_restarted(supervised: Supervised) -> None:
    async with supervised.human("restart") as human:
        human.talk()
        await called(supervised, human)
        await asyncio.to_thread(supervised.server.kill)

        async def unready() -> bool:
            status, why = await supervised.get("/readyz")
            return status == 503 and "LiveKit is not reached" in why

        await becomes(unready)
        assert await supervised.metric("livekit_up") == 0
        await asyncio.to_thread(supervised.server.start)
        assert await human.wait_until(lambda: human.connected, SOON)
        back = asyncio.get_running_loop().time()
        assert await human.wait_audible(10.0, since=back) is not None, supervised.tail()
        assert await human.wait_settled(SOON), supervised.tail()
        assert human.agents.two_at_once(back) <= 1.0
    assert await supervised.metric("livekit_up") == 1


async def test_the_daemon_may_be_killed_in_the_middle_of_a_call(supervised: Supervised) -> None:
    async with supervised.human("adopted") as human:
        human.talk()
        first = await called(supervised, human)
        before = await supervised.agent()
        since = asyncio.get_running_loop().time()
        await supervised.kill()
        await supervised.start()
        after = await supervised.agent()
        assert after["pid"] == before["pid"]
        assert await human.wait_settled(SOON)
        assert human.agents.present() == (first,)
        assert human.agents.longest_silence(since) is None or (
            human.agents.longest_silence(since).seconds < 3.0  # type: ignore[union-attr]
        )
        room = await supervised.room("adopted")
        assert room is not None
        assert room["claim"]["agent_id"] == "agent-66"
        assert [a["holder"] for a in room["agents"]] == [True]
    assert await supervised.metric("agent_restarts_total") == 0


async def test_a_human_who_comes_back_soon_finds_the_same_agent(supervised: Supervised) -> None:
    async with supervised.human("return") as human:
        human.talk()
        first = await called(supervised, human)
        await human.leave()
        await asyncio.sleep(1.0)
        await human.rejoin("another")
        assert await called(supervised, human) == first
    assert await supervised.metric("dispatches_total", {"outcome": "created"}) == 1
