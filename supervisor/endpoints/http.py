"""The HTTP server: metrics, health, status page and documents to read, and LiveKit's webhooks.

The rule: nothing here changes state; that goes through the control socket.  Nor does it ask who reads: it
listens on loopback unless told otherwise.  To expose it, put a proxy with authentication in front and let
through only what is meant for outside: ``/livekit/webhook`` (whose callers sign what they send; or give
it an address of its own with ``http.webhook_listen``) and, for the monitoring, ``/metrics``.

While it listens on loopback only, the page and the documents are answered only to a ``Host`` that is
an IP address or ``localhost``: a page from elsewhere whose name was made to point here cannot read them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web

from supervisor.endpoints.feed import Feed
from supervisor.endpoints.intake import PATH as WEBHOOK_PATH
from supervisor.endpoints.intake import Intake
from supervisor.endpoints.listen import only_loopback, tcp_sockets
from supervisor.endpoints.page import Page, add_headers
from supervisor.endpoints.ports import Scrape, Views, WebhookSink
from supervisor.endpoints.serving import Handler, Serving, document, guarded, since
from supervisor.events import EventBus

Address = tuple[str, int]

MOST_CONNECTIONS = 256
WRITE_SECONDS = 10.0
SILENCE_SECONDS = 15.0
"""Something is sent at least so often: it shows us that a page is gone, and the page that we are.

Twice that, and some, is what ``page.js`` waits.
"""

PING = b"event: ping\ndata: {}\n\n"
"""An event, since browsers keep comments to themselves."""

STREAM = {"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}  # that one is for nginx

ALWAYS = frozenset({"/metrics", "/healthz", "/readyz", WEBHOOK_PATH})
"""Answered whatever the Host: what they tell is not about anybody."""


class HttpServer:
    """Everything on ``http.listen``, and on ``http.webhook_listen`` where that is given."""

    def __init__(self, views: Views, sink: WebhookSink, scrape: Scrape, feed: Feed, bus: EventBus) -> None:
        self._views = views
        self._scrape = scrape
        self._feed = feed
        self._bus = bus
        self._intake = Intake(sink, bus)
        self._page = Page()
        self._serving: list[Serving] = []

    async def start(self, listen: Address, webhook_listen: Address | None = None) -> None:
        """Raises :class:`supervisor.endpoints.listen.ListenError`; then nothing is left listening."""
        try:
            await self._serve(listen, self._everything)
            if webhook_listen is not None:
                await self._serve(webhook_listen, self._webhooks_only)
        except BaseException:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        await self._feed.aclose()
        serving, self._serving = self._serving, []
        for each in serving:
            await each.aclose()

    @property
    def addresses(self) -> list[Address]:
        """Where it listens; the first is that of ``http.listen``."""
        return [address for serving in self._serving for address in serving.addresses]

    async def _serve(self, address: Address, application: Callable[[bool], web.Application]) -> None:
        sockets = tcp_sockets(*address)
        app = application(only_loopback(sockets))
        serving = Serving(app, sockets, most=MOST_CONNECTIONS, abandon=True)
        self._serving.append(serving)
        await serving.start()

    # --- applications ---

    def _everything(self, private: bool) -> web.Application:
        app = self._application([_known_host] if private else [])
        app.add_routes(self._page.routes())
        app.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/healthz", self._alive),
                web.get("/readyz", self._ready),
                web.get("/api/status", self._status),
                web.get("/api/rooms", self._rooms),
                web.get("/api/conflicts", self._conflicts),
                web.get("/api/events", self._events, allow_head=False),
                web.post(WEBHOOK_PATH, self._intake.handle),
            ]
        )
        return app

    def _webhooks_only(self, private: bool) -> web.Application:
        app = self._application([])
        app.router.add_post(WEBHOOK_PATH, self._intake.handle)
        return app

    def _application(
        self, middlewares: list[Callable[..., Awaitable[web.StreamResponse]]]
    ) -> web.Application:
        app = web.Application(middlewares=[guarded(self._bus, _broken), *middlewares])
        app.on_response_prepare.append(add_headers)
        return app

    # --- answers ---

    async def _metrics(self, request: web.Request) -> web.Response:
        body, content_type = self._scrape(",".join(request.headers.getall("Accept", [])))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _alive(self, request: web.Request) -> web.Response:
        return _verdict(*self._views.liveness())

    async def _ready(self, request: web.Request) -> web.Response:
        return _verdict(*self._views.readiness())

    async def _status(self, request: web.Request) -> web.Response:
        return document(self._views.status())

    async def _rooms(self, request: web.Request) -> web.Response:
        return document(self._views.rooms())

    async def _conflicts(self, request: web.Request) -> web.Response:
        return document(await self._views.conflicts(since(request)))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if self._feed.full:
            return web.Response(status=503, text="too many open pages\n", headers={"Retry-After": "10"})
        with self._feed.watch() as watcher:
            response = web.StreamResponse(headers=STREAM)
            await response.prepare(request)
            with contextlib.suppress(TimeoutError, ConnectionError):  # gone, or does not read: let go
                while (message := await _next(watcher.next())) is not None:
                    async with asyncio.timeout(WRITE_SECONDS):
                        await response.write(message)
            response.force_close()
        return response


def _verdict(good: bool, text: str) -> web.Response:
    return web.Response(status=200 if good else 503, text=f"{text}\n")


async def _next(message: Awaitable[bytes | None]) -> bytes | None:
    try:
        return await asyncio.wait_for(message, SILENCE_SECONDS)
    except TimeoutError:
        return PING


def _broken(error: Exception) -> web.Response:
    return web.Response(status=500, text="unexpected error; the supervisor's log has it\n")


@web.middleware
async def _known_host(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.path in ALWAYS or is_local_name(request.host):
        return await handler(request)
    return web.Response(
        status=421,
        text="This listens on loopback and answers to localhost or an IP address only.\n"
        "A proxy in front of it has to send such a Host header.\n",
    )


def is_local_name(host: str) -> bool:
    """Is this ``Host`` one that no name server can point here?"""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
