"""The client and the webhook receiver with a real server: keys, restarts, many at a time, real signatures."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from supervisor.core.model import Dispatch, ParticipantKind, Unknown
from supervisor.core.ports import Done, Failed, RequestOutcome
from supervisor.events import EventBus, WebhookOutcome
from supervisor.livekit.api import LiveKitClient
from supervisor.livekit.webhook import Webhook, WebhookReceiver
from tests.livekit.conftest import MakeServer
from tests.livekit.server import LiveKitServer
from tests.livekit.stage import real_stage, some_room
from tests.ports import free_port


@contextlib.asynccontextmanager
async def client_of(
    server: LiveKitServer, url: str = "", key: str = "", secret: str = ""
) -> AsyncIterator[LiveKitClient]:
    client = LiveKitClient(url or server.url, key or server.key, secret or server.secret, 5.0, EventBus())
    try:
        yield client
    finally:
        await client.aclose()


async def test_both_schemes_reach_it(livekit_server: LiveKitServer) -> None:
    for url in (livekit_server.url, livekit_server.http_url, livekit_server.http_url + "/"):
        async with client_of(livekit_server, url=url) as client:
            assert await client.ping() == Done()


@pytest.mark.parametrize(
    ("key", "secret"), [("unknown-key", ""), ("", "a-wrong-secret-0123456789abcdef0123456789")]
)
async def test_a_wrong_key_is_unauthorized(livekit_server: LiveKitServer, key: str, secret: str) -> None:
    async with client_of(livekit_server, key=key, secret=secret) as client:
        failed = await client.ping()
        assert isinstance(failed, Failed)
        assert failed.outcome is RequestOutcome.UNAUTHORIZED
        unknown = await client.list_participants("room")
        assert isinstance(unknown, Unknown)
        assert unknown.reason.startswith("unauthorized")


async def test_a_missing_room_costs_half_a_second_not_three(livekit_server: LiveKitServer) -> None:
    async with client_of(livekit_server) as client:
        started = time.monotonic()
        answers = await asyncio.gather(*(client.list_participants(some_room()) for _ in range(64)))
        assert answers == [()] * 64
        assert time.monotonic() - started < 2


async def test_many_at_a_time(livekit_server: LiveKitServer) -> None:
    async with client_of(livekit_server) as client:
        rooms = [some_room() for _ in range(200)]
        made = await asyncio.gather(*(client.create_dispatch(room, "A", "") for room in rooms))
        assert all(isinstance(dispatch, Dispatch) for dispatch in made)
        listed = await asyncio.gather(*(client.list_dispatches(room) for room in rooms))
        assert all(not isinstance(dispatches, Unknown) and len(dispatches) == 2 for dispatches in listed)


async def test_it_recovers_by_itself_from_a_restart(make_livekit_server: MakeServer) -> None:
    server = make_livekit_server()
    async with client_of(server) as client:
        assert await client.ping() == Done()
        await asyncio.to_thread(server.kill)
        failed = await client.ping()
        assert isinstance(failed, Failed)
        assert failed.outcome is RequestOutcome.UNAVAILABLE
        await asyncio.to_thread(server.start)
        assert await client.ping() == Done()


@pytest.fixture
async def webhooks() -> AsyncIterator[tuple[str, list[tuple[bytes, str | None]]]]:
    """An address for webhooks, and what has come: bodies and authorizations."""
    received: list[tuple[bytes, str | None]] = []

    async def receive(request: web.Request) -> web.Response:
        received.append((await request.read(), request.headers.get("Authorization")))
        return web.Response()

    app = web.Application()
    app.router.add_post("/livekit/webhook", receive)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield f"http://127.0.0.1:{port}/livekit/webhook", received
    await runner.cleanup()


async def test_real_webhooks_are_accepted(
    make_livekit_server: MakeServer, webhooks: tuple[str, list[tuple[bytes, str | None]]]
) -> None:
    url, received = webhooks
    server = await asyncio.to_thread(lambda: make_livekit_server(webhook_urls=(url,)))
    receiver = WebhookReceiver({server.key: server.secret}, max_age=300)
    room = some_room()
    async with real_stage(server) as stage:
        await stage.visitor(room, "ann")
        await stage.visitor(room, "agent-1", "agent")
        assert await stage.livekit.remove_participant(room, "agent-1") == Done()
        accepted: list[Webhook] = []
        deadline = time.monotonic() + 10
        while "participant_left" not in {webhook.event for webhook in accepted}:
            assert time.monotonic() < deadline, [webhook.event for webhook in accepted]
            await asyncio.sleep(0.05)
            taken, received[:] = received[:], []
            accepted += [receiver.receive(body, token, time.time()) for body, token in taken]
            again = [receiver.receive(body, token, time.time()).outcome for body, token in taken]
            assert set(again) <= {WebhookOutcome.REPEATED}
    assert {webhook.outcome for webhook in accepted} == {WebhookOutcome.ACCEPTED}
    assert {webhook.room for webhook in accepted} == {room}
    assert len({webhook.room_sid for webhook in accepted}) == 1
    assert {"room_started", "participant_joined", "track_published"} <= {w.event for w in accepted}
    kinds = {w.participant_identity: w.participant_kind for w in accepted if w.event == "participant_joined"}
    assert kinds == {"ann": ParticipantKind.STANDARD, "agent-1": ParticipantKind.AGENT}
