"""The names of our sockets, taken away: by a cleaner of ``/tmp``, or at the end of a login session."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from supervisor.daemon.sockets import SocketNames
from supervisor.endpoints.control import ControlServer
from supervisor.endpoints.guard import GuardServer
from supervisor.endpoints.listen import UnixListener
from supervisor.events import EventBus, SocketMissing, SocketRestored
from tests.unit.endpoint_fakes import FakeCommands, FakeViews, Recorder
from tests.unit.test_endpoints_guard import HELLO, Echo, Peer


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        bus = EventBus()
        self.recorder = Recorder(bus)
        clock = asyncio.get_running_loop().time
        self.guards = GuardServer(folder / "guard.sock", Echo(), bus, clock)
        self.control = ControlServer(folder / "control.sock", FakeViews(), FakeCommands(), bus)
        self.names = SocketNames([self.guards, self.control], bus)

    async def greeted(self) -> Peer:
        peer = Peer(*await asyncio.open_unix_connection(str(self.guards.path)))
        await peer.say(HELLO)
        assert await peer.hear() == {"type": "welcome"}
        return peer

    async def status(self) -> int:
        connector = aiohttp.UnixConnector(str(self.control.path))
        async with (
            aiohttp.ClientSession(connector=connector) as client,
            client.get("http://daemon/v1/status") as response,
        ):
            return response.status

    def restored(self) -> list[str]:
        return [Path(e.path).name for e in self.recorder.of(SocketRestored) if isinstance(e, SocketRestored)]

    def faults(self) -> int:
        return len(self.recorder.of(SocketMissing))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(dir="/tmp") as parent:
        folder = Path(parent) / "run"
        folder.mkdir(mode=0o700)
        world = World(folder)
        await world.guards.start()
        await world.control.start()
        yield world
        await world.control.aclose()
        await world.guards.stop()
        assert list(folder.iterdir()) == []


async def test_names_that_are_there_are_left_alone(world: World) -> None:
    before = {path.name: path.stat().st_ino for path in world.folder.iterdir()}
    await world.names.keep()
    assert {path.name: path.stat().st_ino for path in world.folder.iterdir()} == before
    assert world.restored() == []


@pytest.mark.parametrize("times", [1, 3])
async def test_names_that_have_gone_come_back_with_their_folder(world: World, times: int) -> None:
    peer = await world.greeted()
    for _ in range(times):
        shutil.rmtree(world.folder)
        await world.names.keep()
        newcomer = await world.greeted()
        await newcomer.close()
        assert await world.status() == 200
    assert world.folder.stat().st_mode & 0o777 == 0o700
    await peer.say({"type": "x"})
    assert await peer.hear() == {"type": "echo"}, "who was connected stays so"
    await peer.close()
    assert world.restored() == ["guard.sock", "control.sock"] * times


async def test_what_has_taken_the_place_is_left_alone_and_told_once(world: World) -> None:
    world.guards.path.unlink()
    stranger = UnixListener(world.guards.path)
    for _ in range(3):
        await world.names.keep()
    assert world.faults() == 1
    assert world.restored() == []
    stranger.remove()
    stranger.socket.close()
    await world.names.keep()
    assert world.restored() == ["guard.sock"]
    peer = await world.greeted()
    await peer.close()


async def test_a_fault_of_one_socket_costs_the_other_nothing(world: World) -> None:
    world.guards.path.unlink()
    world.guards.path.write_text("of another kind")
    world.control.path.unlink()
    await world.names.keep()
    assert await world.status() == 200
    assert world.faults() == 1
    world.guards.path.unlink()
    await world.names.keep()
    assert world.restored() == ["control.sock", "guard.sock"]
    assert world.faults() == 1
