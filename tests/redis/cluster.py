"""LiveKit nodes on one Redis behind one address, and a supervised daemon that asks there.

One rule: what was opened here is closed here, whatever was killed in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from livekit import api

from supervisor.cli.human import Access, Human, What
from tests.livekit.server import KEY, SECRET, LiveKitServer
from tests.livekit.supervised import Supervised
from tests.ports import free_port
from tests.redis.front import Front
from tests.redis.store import RedisServer


class Cluster:
    """``nodes`` share ``store``; daemon, workers and humans come through ``front``."""

    def __init__(
        self, folder: Path, runtime: Path, nodes: int, *, webhooks: bool = True, **settings: Any
    ) -> None:
        port = free_port()
        urls = (f"http://127.0.0.1:{port}/livekit/webhook",) if webhooks else ()
        self.store = RedisServer(folder / "redis")
        self.nodes = [
            LiveKitServer(folder / f"livekit-{number}", webhook_urls=urls, redis=self.store.address)
            for number in range(nodes)
        ]
        self.front = Front(self.nodes)
        self.access = Access(self.front.url, KEY, SECRET)
        livekit = {"url": self.front.url, "api_key": KEY, "api_secret": SECRET}
        self.daemon = Supervised(
            folder / "daemon", runtime, self.nodes[0], port=port, livekit=livekit, **settings
        )

    async def start(self) -> None:
        await asyncio.to_thread(self.store.start)
        await self.front.start()
        for node in self.nodes:
            await asyncio.to_thread(node.start)

    async def close(self) -> None:
        async with contextlib.AsyncExitStack() as stack:  # the rest, too, when one of them fails
            stack.push_async_callback(asyncio.to_thread, self.store.kill)
            for node in self.nodes:
                stack.push_async_callback(asyncio.to_thread, node.kill)
            stack.push_async_callback(self.front.stop)
            if self.daemon.log.exists():
                await self.daemon.close()

    def human(self, room: str, identity: str = "human") -> Human:
        return Human(self.access, room, identity)

    @contextlib.asynccontextmanager
    async def livekit(self) -> AsyncIterator[api.LiveKitAPI]:
        async with api.LiveKitAPI(self.front.url.replace("ws", "http", 1), KEY, SECRET) as livekit:
            yield livekit

    async def make_rooms(self, *names: str) -> None:
        """With nobody in them."""
        async with self.livekit() as livekit:
            for name in names:
                await livekit.room.create_room(api.CreateRoomRequest(name=name))

    async def host(self, room: str) -> LiveKitServer:
        """The node that serves this room."""
        answer = await asyncio.to_thread(self.store.ask, "HGET", "room_node_map", room)
        [node_id] = [line for line in answer.splitlines() if line.startswith("ND_")]
        [host] = [node for node in self.nodes if node_id in await asyncio.to_thread(_node_ids, node)]
        return host

    # --- what the daemon did ---

    def logged(self, *messages: str) -> list[dict[str, Any]]:
        """The daemon's lines of these messages."""
        lines = self.daemon.log.read_text(errors="replace").splitlines()
        parsed = (json.loads(line) for line in lines if line.startswith("{"))
        return [line for line in parsed if line["message"] in messages]

    def blind_writes(self) -> list[dict[str, Any]]:
        """What was done to a room while the last thing that was known of it was nothing."""
        unknown: dict[str, bool] = {}
        found = []
        for line in self.logged("room state changed", "dispatch", "participant removed"):
            if line["message"] == "room state changed":
                unknown[line["room"]] = line["new"] == "unknown"
            elif unknown.get(line["room"]) and line["outcome"] != "joined":
                found.append(line)
        return found


def _node_ids(node: LiveKitServer) -> list[str]:
    """It has another one after every start."""
    lines = node.log.read_text().splitlines()
    return [re.findall(r"ND_\w+", line)[0] for line in lines if "starting LiveKit server" in line]


async def comes_back(human: Human, since: float) -> float:
    """When the human was back, after a restart that began at ``since``."""
    assert await human.wait_until(lambda: human.connected and _back(human, since) > since, 60), human.history
    return _back(human, since)


def _back(human: Human, since: float) -> float:
    return max((h.at for h in human.history if h.what in (What.JOINED, What.RECONNECTED)), default=since)
