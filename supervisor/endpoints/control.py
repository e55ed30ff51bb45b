"""The control socket: HTTP over a Unix socket, for the commands of this host's operator.

The rule: only our own user and root are answered, and that is the kernel's word (``SO_PEERCRED``), not the
peer's.  A command goes on when the one who asked has hung up.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

from aiohttp import web

from supervisor.endpoints.listen import UnixListener
from supervisor.endpoints.ports import CommandError, Commands, Views
from supervisor.endpoints.serving import Handler, Serving, document, guarded, since
from supervisor.events import EventBus

MOST_CONNECTIONS = 64
LARGEST_BODY = 64 * 1024
EXIT_WRONG, EXIT_USAGE = 1, 2


class ControlServer:
    """Listens on ``control.sock`` in the runtime directory."""

    def __init__(self, path: Path, views: Views, commands: Commands, bus: EventBus) -> None:
        self.path = path
        self._views = views
        self._commands = commands
        self._bus = bus
        self._listener: UnixListener | None = None
        self._serving: Serving | None = None

    async def start(self) -> None:
        """Raises :class:`supervisor.endpoints.listen.ListenError`."""
        app = web.Application(
            middlewares=[guarded(self._bus, _broken), _in_json, _own_user], client_max_size=LARGEST_BODY
        )
        app.add_routes(
            [
                web.get("/v1/status", self._status),
                web.get("/v1/rooms", self._rooms),
                web.get("/v1/conflicts", self._conflicts),
                web.post("/v1/commands/{name}", self._command),
            ]
        )
        self._listener = UnixListener(self.path)
        self._serving = Serving(app, [self._listener.socket], most=MOST_CONNECTIONS, abandon=False)
        await self._serving.start()

    async def restore(self) -> bool:
        """Whether the socket had lost its name; it has one again.  Raises ListenError."""
        if self._listener is None or self._serving is None or not self._listener.is_lost:
            return False
        self._listener = UnixListener(self.path)
        await self._serving.move([self._listener.socket])
        return True

    async def aclose(self) -> None:
        """May be called again, and before the start."""
        listener, self._listener = self._listener, None
        serving, self._serving = self._serving, None
        if listener is not None:
            listener.remove()  # at once: the next daemon may want the place
        if serving is not None:
            await serving.aclose()

    async def _status(self, request: web.Request) -> web.Response:
        return document(self._views.status())

    async def _rooms(self, request: web.Request) -> web.Response:
        return document(self._views.rooms())

    async def _conflicts(self, request: web.Request) -> web.Response:
        return document(await self._views.conflicts(since(request)))

    async def _command(self, request: web.Request) -> web.Response:
        arguments = await _arguments(request)
        if arguments is None:
            return _refused("arguments: not a JSON object", EXIT_USAGE)
        try:
            return document(await self._commands.run(request.match_info["name"], arguments))
        except CommandError as error:
            return _refused(error.message, error.exit_code)


async def _arguments(request: web.Request) -> Mapping[str, object] | None:
    try:
        body = await request.read()
        arguments = json.loads(body) if body else {}
    except (ValueError, RecursionError, web.HTTPRequestEntityTooLarge):
        return None
    return arguments if isinstance(arguments, dict) else None


def _refused(message: str, exit_code: int) -> web.Response:
    return document(
        {"error": message, "exit_code": exit_code}, status=400 if exit_code == EXIT_USAGE else 409
    )


@web.middleware
async def _in_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        return document({"error": str(error.text).strip(), "exit_code": EXIT_USAGE}, status=error.status)


def _broken(error: Exception) -> web.Response:
    message = f"unexpected error: {type(error).__name__}; the supervisor's log has it"
    return document({"error": message, "exit_code": EXIT_WRONG}, status=500)


# --- who asks -------------------------------------------------------------------------------------


@web.middleware
async def _own_user(request: web.Request, handler: Handler) -> web.StreamResponse:
    peer = request.transport.get_extra_info("socket") if request.transport is not None else None
    if peer is None or not is_permitted(peer_user(peer)):
        return document({"error": "not permitted", "exit_code": EXIT_WRONG}, status=403)
    return await handler(request)


def peer_user(connection: socket.socket) -> int:
    """The user of the process that connected, as the kernel knows it."""
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(user)


def is_permitted(user: int) -> bool:
    return user in (0, os.geteuid())
