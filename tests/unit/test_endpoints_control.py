"""The control socket, spoken to with plain HTTP over a real Unix socket."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from supervisor.endpoints.control import LARGEST_BODY, ControlServer, is_permitted, peer_user
from supervisor.endpoints.listen import ListenError
from supervisor.endpoints.ports import CommandError
from supervisor.events import EventBus, InternalError
from tests.unit.endpoint_fakes import STATUS, FakeCommands, FakeViews, Recorder, room

NOBODY = 65_534


class World:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.views = FakeViews()
        self.commands = FakeCommands()
        self.bus = EventBus()
        self.recorder = Recorder(self.bus)
        self.server = ControlServer(path, self.views, self.commands, self.bus)

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        connector = aiohttp.UnixConnector(str(self.path))
        async with (
            aiohttp.ClientSession(connector=connector) as client,
            client.request(method, f"http://daemon{path}", **options) as response,
        ):
            return response.status, await response.json(content_type=None)


@pytest.fixture
async def world(runtime_dir: Path) -> AsyncIterator[World]:
    world = World(runtime_dir / "control.sock")
    await world.server.start()
    yield world
    await world.server.aclose()


async def test_documents(world: World) -> None:
    world.views.all_rooms = [room("lobby")]
    assert await world.ask("GET", "/v1/status") == (200, STATUS)
    assert await world.ask("GET", "/v1/rooms") == (200, {"version": 1, "rooms": [room("lobby")]})
    assert await world.ask("GET", "/v1/conflicts") == (200, {"version": 1, "conflicts": []})
    assert world.views.since is None
    await world.ask("GET", "/v1/conflicts?since=1700000000.25")
    assert world.views.since == 1700000000.25


async def test_a_command(world: World) -> None:
    assert await world.ask("POST", "/v1/commands/restart", json={"agent": "a", "now": True}) == (
        200,
        {"ok": True, "command": "restart"},
    )
    assert await world.ask("POST", "/v1/commands/reload") == (200, {"ok": True, "command": "reload"})
    assert world.commands.asked == [("restart", {"agent": "a", "now": True}), ("reload", {})]


@pytest.mark.parametrize(("exit_code", "status"), [(2, 400), (1, 409), (3, 409)])
async def test_a_refused_command_says_why_and_the_exit_code(
    world: World, exit_code: int, status: int
) -> None:
    world.commands.error = CommandError("there is no agent 'b'; did you mean 'a'?", exit_code)
    assert await world.ask("POST", "/v1/commands/stop", json={"agent": "b"}) == (
        status,
        {"error": "there is no agent 'b'; did you mean 'a'?", "exit_code": exit_code},
    )


@pytest.mark.parametrize(
    "body", ["[]", "3", "null", "{", '{"a": "\xff', "[" * 100_000, '"' + "x" * LARGEST_BODY + '"']
)
async def test_arguments_that_are_none(world: World, body: str) -> None:
    status, answer = await world.ask("POST", "/v1/commands/stop", data=body.encode("latin-1"))
    assert (status, answer) == (400, {"error": "arguments: not a JSON object", "exit_code": 2})
    assert world.commands.asked == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/commands/stop", 405),
        ("POST", "/v1/status", 405),
        ("GET", "/v1/conflicts?since=yesterday", 400),
    ],
)
async def test_what_it_does_not_know_is_answered_in_json(
    world: World, method: str, path: str, status: int
) -> None:
    got, answer = await world.ask(method, path)
    assert got == status
    assert answer["error"]
    assert answer["exit_code"] == 2


async def test_a_defect_is_one_bad_answer_and_an_event(world: World) -> None:
    world.commands.error = RuntimeError("defect")
    status, answer = await world.ask("POST", "/v1/commands/stop")
    assert (status, answer["exit_code"]) == (500, 1)
    assert "RuntimeError" in answer["error"]
    assert world.recorder.of(InternalError)
    assert (await world.ask("GET", "/v1/status"))[0] == 200


async def test_a_command_goes_on_when_the_one_who_asked_has_hung_up(world: World) -> None:
    world.commands.wait = asyncio.Event()
    _, writer = await asyncio.open_unix_connection(str(world.path))
    writer.write(b"POST /v1/commands/drain HTTP/1.1\r\nHost: daemon\r\nContent-Length: 0\r\n\r\n")
    await world.commands.until(world.commands.asked)
    writer.close()
    await writer.wait_closed()
    assert (await world.ask("GET", "/v1/status"))[0] == 200
    world.commands.wait.set()
    await world.commands.until(world.commands.done)
    assert world.commands.done == ["drain"]


async def test_others_are_answered_while_a_command_takes_its_time(world: World) -> None:
    world.commands.wait = asyncio.Event()
    slow = asyncio.create_task(world.ask("POST", "/v1/commands/drain"))
    await world.commands.until(world.commands.asked)
    assert (await asyncio.wait_for(world.ask("GET", "/v1/status"), 1))[0] == 200
    world.commands.wait.set()
    assert (await slow)[0] == 200


# --- who may --------------------------------------------------------------------------------------


async def test_the_socket_is_its_owner_s_alone(world: World) -> None:
    status = os.lstat(world.path)
    assert stat.S_ISSOCK(status.st_mode)
    assert stat.S_IMODE(status.st_mode) == 0o600


def test_our_user_and_root_are_permitted() -> None:
    assert is_permitted(0)
    assert is_permitted(os.geteuid())
    assert not is_permitted(NOBODY if os.geteuid() != NOBODY else 1)


def test_the_peer_s_user_is_the_kernel_s_word() -> None:
    left, right = socket.socketpair()
    with left, right:
        assert peer_user(left) == os.geteuid()


def ask_as_nobody(path: Path) -> bytes:
    """The first line of the answer to a child process that is another user."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(5)
                connection.connect(str(path))
                connection.sendall(b"GET /v1/status HTTP/1.1\r\nHost: daemon\r\nConnection: close\r\n\r\n")
                os.write(writer, connection.recv(4096).split(b"\r\n")[0])
        except OSError as error:
            os.write(writer, type(error).__name__.encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_user_is_refused_twice_over() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o755)
        world = World(Path(name) / "s")
        await world.server.start()
        assert await asyncio.to_thread(ask_as_nobody, world.path) == b"PermissionError"
        world.path.chmod(0o666)  # even if somebody opens it up by mistake
        assert await asyncio.to_thread(ask_as_nobody, world.path) == b"HTTP/1.1 403 Forbidden"
        await world.server.aclose()


# --- start and end --------------------------------------------------------------------------------


async def test_a_second_one_is_refused_and_the_first_goes_on(world: World) -> None:
    second = World(world.path)
    with pytest.raises(ListenError, match="another program answers there"):
        await second.server.start()
    await second.server.aclose()
    assert (await world.ask("GET", "/v1/status"))[0] == 200


async def test_a_dead_one_s_place_is_taken_over(runtime_dir: Path) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(runtime_dir / "control.sock"))
    dead.close()
    world = World(runtime_dir / "control.sock")
    await world.server.start()
    assert (await world.ask("GET", "/v1/status"))[0] == 200
    await world.server.aclose()
    assert not world.path.exists()
    await world.server.aclose()


async def test_it_ends_soon_even_with_a_command_under_way(runtime_dir: Path) -> None:
    world = World(runtime_dir / "control.sock")
    await world.server.start()
    world.commands.wait = asyncio.Event()
    asked = asyncio.create_task(world.ask("POST", "/v1/commands/drain"))
    await world.commands.until(world.commands.asked)
    await asyncio.wait_for(world.server.aclose(), 5)
    with pytest.raises((aiohttp.ClientError, json.JSONDecodeError)):
        await asked
