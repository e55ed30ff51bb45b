"""What stands before LiveKit nodes in production: one address, behind it whichever node takes the connection.

One rule: it only passes bytes on, and to a node that is down it sends nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from typing import Any

from tests.livekit.server import LiveKitServer
from tests.ports import free_port


class Front:
    """Tries the nodes in the order of ``nodes``, which may be changed at any time."""

    def __init__(self, nodes: Sequence[LiveKitServer]) -> None:
        self.nodes = list(nodes)
        self.port = free_port()
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(writer.transport.abort)
            for node in self.nodes:
                with contextlib.suppress(OSError):
                    there, back = await asyncio.open_connection("127.0.0.1", node.port)
                    stack.callback(back.transport.abort)
                    await _either(_pass(reader, back), _pass(there, writer))
                    return


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()


async def _either(*ways: Coroutine[Any, Any, None]) -> None:
    """Until one way has ended; a node that was killed ends its own."""
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
