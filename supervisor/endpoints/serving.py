"""What every HTTP endpoint here has in common: how it is served, how it ends, what it answers on a defect.

The rule: no peer, however many or slow, takes the file descriptors that workers and guards need.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from supervisor.endpoints.listen import close_all
from supervisor.endpoints.ports import Document
from supervisor.events import EventBus, InternalError

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

IDLE_SECONDS = 75.0
SHUTDOWN_SECONDS = 1.0
UNREAD_SECONDS = 2.0
"""How long the rest of a request that was answered early is read, so that the answer arrives."""


def _not_the_peer_s_fault(record: logging.LogRecord) -> bool:
    """What is no HTTP has been answered; a log line for each would be the peer's to fill."""
    error = record.exc_info[1] if record.exc_info else None
    return record.levelno <= logging.DEBUG or not isinstance(error, HttpProcessingError)


LOGGER = logging.getLogger("supervisor.http")
LOGGER.addFilter(_not_the_peer_s_fault)


class Serving:
    """An application on listening sockets, until :meth:`aclose`; the sockets are its own from now on.

    ``most``: connections at once.  ``abandon``: a handler ends when its peer hangs up.
    """

    def __init__(
        self, app: web.Application, sockets: list[socket.socket], *, most: int, abandon: bool
    ) -> None:
        self._sockets = sockets
        self._most = most
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=LOGGER,
            handler_cancellation=abandon,
            keepalive_timeout=IDLE_SECONDS,
            shutdown_timeout=SHUTDOWN_SECONDS,
            lingering_time=UNREAD_SECONDS,
            auto_decompress=False,  # nobody here sends compressed; a megabyte can unfold to a gigabyte
        )
        self._servers: list[asyncio.Server] = []

    async def start(self) -> None:
        await self._runner.setup()
        await self._accept()

    async def move(self, sockets: list[socket.socket]) -> None:
        """Accept on these instead; who is connected stays so."""
        for server in self._servers:
            server.close()
        self._sockets, self._servers = sockets, []
        await self._accept()

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        for each in self._sockets:
            self._servers.append(await loop.create_server(self._connection, sock=each))

    async def aclose(self) -> None:
        """Accept nothing more; requests in progress have a moment to end."""
        for server in self._servers:
            server.close()
        await self._runner.cleanup()
        close_all(self._sockets)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each socket, as bound."""
        return [each.getsockname()[:2] for each in self._sockets]

    def _connection(self) -> asyncio.Protocol:
        server = self._runner.server
        if server is None or len(server.connections) >= self._most:
            return _Refuse()
        return server()


class _Refuse(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


def document(data: Document, status: int = 200) -> web.Response:
    return web.json_response(data, status=status, dumps=_dumps)


def _dumps(data: object) -> str:
    return json.dumps(data, default=str)


def since(request: web.Request) -> float | None:
    """The query's ``since``, in Unix seconds.  Raises HTTPBadRequest."""
    text = request.query.get("since")
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        raise web.HTTPBadRequest(text="since: not a number of Unix seconds\n") from None


def guarded(
    bus: EventBus, answer: Callable[[Exception], web.StreamResponse]
) -> Callable[..., Awaitable[web.StreamResponse]]:
    """A middleware: a defect in a handler is an event, and one bad answer instead of a broken connection."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException:
            raise
        except ConnectionError:  # the peer has gone: nobody to answer, nothing wrong here
            raise
        except Exception as error:  # published, and answered
            bus.publish(InternalError.of(f"{request.method} {request.path}", error))
            return answer(error)

    return middleware
