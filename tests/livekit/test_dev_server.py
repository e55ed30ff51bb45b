"""The development server, as configured by ``dev_server.render_config``, on the real program."""

from __future__ import annotations

import socket

import psutil
import pytest
from livekit import api

from supervisor.livekit import dev_server
from tests.livekit.conftest import MakeServer
from tests.livekit.server import LiveKitServer


async def _list_rooms(server: LiveKitServer, secret: str) -> int:
    async with api.LiveKitAPI(server.http_url, server.key, secret) as client:
        return len((await client.room.list_rooms(api.ListRoomsRequest())).rooms)


async def test_takes_the_key_and_no_other(livekit_server: LiveKitServer) -> None:
    assert await _list_rooms(livekit_server, livekit_server.secret) == 0
    with pytest.raises(api.TwirpError) as caught:
        await _list_rooms(livekit_server, "x" * 40)
    assert caught.value.status == 401


def test_is_bound_to_loopback_only(livekit_server: LiveKitServer) -> None:
    connections = psutil.Process(livekit_server.pid).net_connections("inet")
    assert {(c.type, c.laddr.ip) for c in connections} == {
        (socket.SOCK_STREAM, "127.0.0.1"),
        (socket.SOCK_DGRAM, "127.0.0.1"),
    }


def test_comes_back_on_the_same_port(make_livekit_server: MakeServer) -> None:
    server = make_livekit_server()
    first = server.pid
    server.kill()
    assert not server.running
    server.start()
    assert server.pid != first
    server.stop()
    assert not server.running


def test_a_stranger_on_the_port_is_named(livekit_server: LiveKitServer) -> None:
    owner = rf"in use by process {livekit_server.pid} \(livekit-server"
    with pytest.raises(dev_server.DevServerError, match=owner):
        dev_server.require_free(livekit_server.port)
