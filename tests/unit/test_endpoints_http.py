"""The HTTP server on real sockets: what a path answers, what a hostile peer gets, what a browser may do."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest

from supervisor.endpoints import http as http_module
from supervisor.endpoints import intake
from supervisor.endpoints.feed import Feed
from supervisor.endpoints.http import HttpServer, is_local_name
from supervisor.endpoints.listen import ListenError
from supervisor.endpoints.page import FILES
from supervisor.events import (
    ConflictKind,
    ConflictResolved,
    EventBus,
    InternalError,
    Resolution,
    WebhookOutcome,
    WebhookReceived,
)
from tests.unit.endpoint_fakes import STATUS, FakeSink, FakeViews, Recorder, room

WEBHOOK = "/livekit/webhook"
LIMIT = 1024 * 1024
LOOPBACK = ("127.0.0.1", 0)
READ = [*FILES, "/metrics", "/healthz", "/readyz", "/api/status", "/api/rooms", "/api/conflicts"]


class World:
    """A server, and a client that talks to it."""

    def __init__(self, client: aiohttp.ClientSession) -> None:
        self.views = FakeViews()
        self.sink = FakeSink()
        self.bus = EventBus()
        self.recorder = Recorder(self.bus)
        self.feed = Feed(self.views, self.bus)
        self.bus.subscribe(self.feed)
        self.server = HttpServer(self.views, self.sink, self._scrape, self.feed, self.bus)
        self.accepts: list[str] = []
        self._client = client

    def _scrape(self, accept: str) -> tuple[bytes, str]:
        self.accepts.append(accept)
        return b"up 1.0\n", "text/plain; version=0.0.4; charset=utf-8"

    def url(self, path: str, listener: int = 0) -> str:
        host, port = self.server.addresses[listener]
        return f"http://{host}:{port}{path}"

    async def ask(
        self, path: str, method: str = "GET", listener: int = 0, **options: Any
    ) -> tuple[aiohttp.ClientResponse, str]:
        async with self._client.request(method, self.url(path, listener), **options) as response:
            return response, await response.text()

    async def post(self, body: Any, **options: Any) -> int:
        data = io.BytesIO(body) if isinstance(body, bytes) else body
        response, _ = await self.ask(WEBHOOK, "POST", data=data, **options)
        return response.status

    @asynccontextmanager
    async def raw(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection(*self.server.addresses[0])
        try:
            yield reader, writer
        finally:
            writer.close()

    async def spoken(self, request: bytes) -> bytes:
        """The whole answer to a request made by hand."""
        async with self.raw() as (reader, writer):
            writer.write(request)
            return await asyncio.wait_for(reader.read(), 10)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with aiohttp.ClientSession() as client:
        world = World(client)
        await world.server.start(LOOPBACK)
        yield world
        await world.server.aclose()


# --- reading --------------------------------------------------------------------------------------


async def test_alive_or_what_is_stuck(world: World) -> None:
    response, text = await world.ask("/healthz")
    assert (response.status, text) == (200, "alive\n")
    world.views.alive = (False, "these loops are stuck: rooms")
    response, text = await world.ask("/healthz")
    assert (response.status, text) == (503, "these loops are stuck: rooms\n")


async def test_ready_or_why_not(world: World) -> None:
    response, text = await world.ask("/readyz")
    assert (response.status, text) == (200, "ready\n")
    world.views.ready = (False, "LiveKit is not reached: refused")
    response, text = await world.ask("/readyz")
    assert (response.status, text) == (503, "LiveKit is not reached: refused\n")


async def test_documents(world: World) -> None:
    world.views.all_rooms = [room("lobby")]
    for path, expected in (
        ("/api/status", STATUS),
        ("/api/rooms", {"version": 1, "rooms": [room("lobby")]}),
        ("/api/conflicts", {"version": 1, "conflicts": []}),
    ):
        response, text = await world.ask(path)
        assert response.content_type == "application/json"
        assert json.loads(text) == expected


async def test_conflicts_since(world: World) -> None:
    await world.ask("/api/conflicts?since=1700000000.5")
    assert world.views.since == 1700000000.5
    await world.ask("/api/conflicts")
    assert world.views.since is None
    response, text = await world.ask("/api/conflicts?since=yesterday")
    assert (response.status, text) == (400, "since: not a number of Unix seconds\n")


async def test_metrics_get_the_accept_header(world: World) -> None:
    response, text = await world.ask("/metrics", headers={"Accept": "application/openmetrics-text"})
    assert text == "up 1.0\n"
    assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert world.accepts == ["application/openmetrics-text"]


@pytest.mark.parametrize(("path", "content_type"), [(path, kind) for path, (_, kind) in FILES.items()])
async def test_the_page_s_files(world: World, path: str, content_type: str) -> None:
    response, text = await world.ask(path)
    assert (response.status, response.content_type) == (200, content_type)
    assert text
    again, _ = await world.ask(path, headers={"If-None-Match": response.headers["ETag"]})
    assert again.status == 304


@pytest.mark.parametrize("path", [*READ, "/nothing", WEBHOOK])
async def test_every_answer_has_the_security_headers(world: World, path: str) -> None:
    response, _ = await world.ask(path)
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert "aiohttp" not in response.headers["Server"]
    assert response.headers["Cache-Control"] in ("no-store", "no-cache")


@pytest.mark.parametrize("path", READ)
async def test_nothing_changes_state(world: World, path: str) -> None:
    for method in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
        response, _ = await world.ask(path, method)
        assert response.status == 405


async def test_no_page_from_elsewhere_may_read(world: World) -> None:
    response, _ = await world.ask("/api/rooms", headers={"Origin": "https://evil.example"})
    assert not [name for name in response.headers if name.startswith("Access-Control")]


async def test_a_defect_is_one_bad_answer_and_an_event(world: World) -> None:
    world.views.error = RuntimeError("secret detail")
    response, text = await world.ask("/api/status")
    assert response.status == 500
    assert "secret detail" not in text
    (event,) = world.recorder.of(InternalError)
    assert isinstance(event, InternalError)
    assert event.where == "GET /api/status"
    world.views.error = None
    assert (await world.ask("/api/status"))[0].status == 200


# --- a name that was made to point here -----------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1:9105", True),
        ("localhost", True),
        ("supervisor.localhost:80", True),
        ("[::1]:9105", True),
        ("192.168.1.5", True),
        ("evil.example:9105", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("", False),
        ("[::1", False),
    ],
)
def test_names_that_no_name_server_can_point_here(host: str, local: bool) -> None:
    assert is_local_name(host) is local


@pytest.mark.parametrize("path", ["/", "/api/status", "/api/rooms", "/api/conflicts", "/api/events"])
async def test_the_page_is_not_for_a_name_that_was_made_to_point_here(world: World, path: str) -> None:
    response, text = await world.ask(path, headers={"Host": "evil.example"})
    assert response.status == 421
    assert "localhost" in text


async def test_monitoring_and_webhooks_may_use_any_name(world: World) -> None:
    host = {"Host": "monitoring.example"}
    for path in ("/metrics", "/healthz", "/readyz"):
        assert (await world.ask(path, headers=host))[0].status == 200
    assert await world.post(b"{}", headers=host) == 200


async def test_on_another_address_any_name_will_do() -> None:
    async with aiohttp.ClientSession() as client:
        world = World(client)
        await world.server.start(("0.0.0.0", 0))
        port = world.server.addresses[0][1]
        async with client.get(f"http://127.0.0.1:{port}/", headers={"Host": "voice.example"}) as response:
            assert response.status == 200
        await world.server.aclose()


# --- webhooks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (WebhookOutcome.ACCEPTED, 200),
        (WebhookOutcome.REPEATED, 200),
        (WebhookOutcome.UNSIGNED, 401),
        (WebhookOutcome.MALFORMED, 400),
        (WebhookOutcome.STALE, 400),
        (WebhookOutcome.OVERSIZED, 413),
    ],
)
async def test_a_webhook_s_answer(world: World, outcome: WebhookOutcome, status: int) -> None:
    world.sink.outcome = outcome
    assert await world.post(b'{"event": "room_started"}', headers={"Authorization": "token"}) == status
    assert world.sink.received == [(b'{"event": "room_started"}', "token")]


async def test_a_webhook_of_just_the_limit_arrives(world: World) -> None:
    assert await world.post(b"x" * LIMIT) == 200
    assert [len(body) for body, _ in world.sink.received] == [LIMIT]


async def body_in_pieces(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 65536):
        yield b"x" * 65536
    yield b"x" * (size % 65536)


def outcomes(world: World) -> list[WebhookOutcome]:
    return [e.outcome for e in world.recorder.events if isinstance(e, WebhookReceived)]


async def test_one_byte_more_does_not(world: World) -> None:
    assert await world.post(b"x" * (LIMIT + 1)) == 413
    assert await world.post(body_in_pieces(LIMIT + 1)) == 413  # without a length
    assert await world.post(body_in_pieces(20 * LIMIT)) == 413
    assert world.sink.received == []
    assert outcomes(world) == [WebhookOutcome.OVERSIZED] * 3


async def test_a_compressed_body_is_not_unfolded(world: World) -> None:
    bomb = gzip.compress(b"\0" * (20 * LIMIT))
    assert await world.post(bomb, headers={"Content-Encoding": "gzip"}) == 200
    assert [body for body, _ in world.sink.received] == [bomb]


async def test_a_slow_body_is_not_waited_for(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "BODY_SECONDS", 0.2)
    started = time.monotonic()
    async with world.raw() as (reader, writer):
        writer.write(b"POST /livekit/webhook HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc")
        line = await asyncio.wait_for(reader.readline(), 5)
    assert line.startswith(b"HTTP/1.1 400")
    assert time.monotonic() - started < 3
    assert outcomes(world) == [WebhookOutcome.MALFORMED]


async def test_a_peer_that_hangs_up_in_its_body_harms_nobody(world: World) -> None:
    for _ in range(20):
        async with world.raw() as (_, writer):
            writer.write(
                b"POST /livekit/webhook HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc"
            )
            await writer.drain()
    assert await world.post(b"{}") == 200
    assert len(world.sink.received) == 1
    assert not world.recorder.of(InternalError)


async def test_a_defect_behind_it_is_not_livekit_s_to_repeat(world: World) -> None:
    world.sink.error = RuntimeError("defect")
    assert await world.post(b"{}") == 200
    assert world.recorder.of(InternalError)


@pytest.mark.parametrize(
    "request_text",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"POST /livekit/webhook HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /livekit/webhook HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"POST /livekit/webhook HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"GET /" + b"y" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\r\n\r\n\r\n\0\0",
    ],
    ids=["tls", "negative length", "bad chunk", "long header", "long path", "noise"],
)
async def test_what_is_no_http_is_refused_and_harms_nobody(
    world: World, request_text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.raw() as (reader, writer):
        writer.write(request_text)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 10)
    assert answer == b"" or answer.split(b" ")[1] in (b"400", b"413", b"431", b"414"), answer[:100]
    assert not world.recorder.of(InternalError)
    assert [record for record in caplog.records if record.levelno > logging.DEBUG] == []
    assert await world.post(b"{}") == 200


async def test_a_second_address_is_for_webhooks_only() -> None:
    async with aiohttp.ClientSession() as client:
        world = World(client)
        await world.server.start(LOOPBACK, LOOPBACK)
        response, _ = await world.ask(WEBHOOK, "POST", listener=1, data=b"{}")
        assert response.status == 200
        assert len(world.sink.received) == 1
        for path in READ:
            response, _ = await world.ask(path, listener=1)
            assert response.status == 404
        response, _ = await world.ask(WEBHOOK, listener=1)
        assert response.status == 405
        await world.server.aclose()


# --- the feed -------------------------------------------------------------------------------------


async def read_event(reader: aiohttp.StreamReader) -> tuple[str, Any]:
    name = (await asyncio.wait_for(reader.readline(), 5)).decode().strip()
    data = (await asyncio.wait_for(reader.readline(), 5)).decode().strip()
    assert await reader.readline() == b"\n"
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def test_the_feed_over_http(world: World) -> None:
    world.views.all_rooms = [room("line\nbreak")]
    async with aiohttp.ClientSession() as client, client.get(world.url("/api/events")) as response:
        assert response.content_type == "text/event-stream"
        assert [await read_event(response.content) for _ in range(3)] == [
            ("status", STATUS),
            ("rooms", {"reset": True, "changed": [room("line\nbreak")], "removed": []}),
            ("timeline", []),
        ]
        world.bus.publish(
            ConflictResolved(kind=ConflictKind.DUPLICATE_AGENT, resolution=Resolution.EVICTED, seconds=0.01)
        )
        name, lines = await read_event(response.content)
        assert (name, lines[0]["title"]) == ("timeline", "Duplicate agent: evicted")
        await world.server.aclose()
        assert await asyncio.wait_for(response.content.read(), 5) == b""


async def test_a_page_that_is_closed_makes_room_at_once(world: World) -> None:
    for _ in range(3):
        async with aiohttp.ClientSession() as client:
            pages = [await client.get(world.url("/api/events")) for _ in range(20)]
            assert {page.status for page in pages} == {200}
            for page in pages:
                page.close()
        deadline = time.monotonic() + 5
        while world.feed._watchers:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)


async def test_too_many_pages_are_told_to_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.feed.aclose()
    response, _ = await world.ask("/api/events")
    assert (response.status, response.headers["Retry-After"]) == (503, "10")


async def test_silence_is_broken_now_and_then(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """By an event with data: a browser hides from the page whatever else it is sent."""
    monkeypatch.setattr(http_module, "SILENCE_SECONDS", 0.05)
    async with aiohttp.ClientSession() as client, client.get(world.url("/api/events")) as response:
        for _ in range(3):
            await read_event(response.content)
        for _ in range(2):
            assert await read_event(response.content) == ("ping", {})


# --- start and end --------------------------------------------------------------------------------


async def test_a_taken_port_leaves_nothing_listening(world: World) -> None:
    taken = world.server.addresses[0]
    async with aiohttp.ClientSession() as client:
        other = World(client)
        with pytest.raises(ListenError, match="another program listens there already"):
            await other.server.start(LOOPBACK, taken)
        assert other.server.addresses == []


async def test_the_port_is_free_again_at_once(world: World) -> None:
    address = world.server.addresses[0]
    await world.ask("/healthz")
    await world.server.aclose()
    await world.server.aclose()
    async with aiohttp.ClientSession() as client:
        other = World(client)
        await other.server.start(address)
        assert (await other.ask("/healthz"))[0].status == 200
        await other.server.aclose()


async def test_connections_beyond_a_number_are_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_module, "MOST_CONNECTIONS", 3)
    async with aiohttp.ClientSession() as client:
        small = World(client)
        await small.server.start(LOOPBACK)
        idle = [await asyncio.open_connection(*small.server.addresses[0]) for _ in range(3)]
        await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection(*small.server.addresses[0])
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        for _, each in idle:
            each.close()
            await each.wait_closed()
        deadline = time.monotonic() + 5
        while True:
            try:
                assert (await small.ask("/healthz"))[0].status == 200
                break
            except aiohttp.ClientConnectionError:
                assert time.monotonic() < deadline
        await small.server.aclose()
