"""The guard socket: one peer's misbehaviour ends its own connection and touches no other."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from supervisor.core.ports import BadMessage, GuardPeer, GuardSession, Refusal
from supervisor.endpoints import guard
from supervisor.endpoints.guard import GuardServer
from supervisor.endpoints.listen import ListenError
from supervisor.events import Event, EventBus, GuardPeerRefused

HELLO = {"type": "hello", "v": 1, "agent_id": "a"}


class Echo:
    """A service that accepts everybody but ``agent_id: refused`` and says back what it is told."""

    def __init__(self) -> None:
        self.closed = 0
        self.has_closed = asyncio.Event()
        self.peers: list[GuardPeer] = []

    def hello(self, peer: GuardPeer, message: Mapping[str, object]) -> GuardSession | Refusal:
        if message.get("agent_id") == "refused":
            return Refusal("not you")
        self.peers.append(peer)
        peer.send({"type": "welcome"})
        return _EchoSession(self, peer)


class _EchoSession:
    def __init__(self, service: Echo, peer: GuardPeer) -> None:
        self._service = service
        self._peer = peer

    def receive(self, message: Mapping[str, object]) -> None:
        if message.get("type") == "bad":
            raise BadMessage("that is bad")
        self._peer.send({"type": "echo", **{k: v for k, v in message.items() if k != "type"}})

    def closed(self) -> None:
        self._service.closed += 1
        self._service.has_closed.set()


class Peer:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, message: object) -> None:
        await self.raw(json.dumps(message).encode() + b"\n")

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hear(self) -> dict[str, object] | None:
        """The next message, or None at the end of the connection."""
        try:
            async with asyncio.timeout(5):
                line = await self.reader.readline()
        except ConnectionResetError:
            return None
        return json.loads(line) if line else None

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except (BrokenPipeError, ConnectionResetError):
            return


class Bench:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.service = Echo()
        self.events: list[Event] = []
        bus = EventBus()
        bus.subscribe(self.events.append)
        self.server = GuardServer(path, self.service, bus, asyncio.get_running_loop().time)
        self.peers: list[Peer] = []

    async def connect(self, *, greet: bool = True) -> Peer:
        peer = Peer(*await asyncio.open_unix_connection(str(self.path)))
        self.peers.append(peer)
        if greet:
            await peer.say(HELLO)
            assert await peer.hear() == {"type": "welcome"}
        return peer

    def reasons(self) -> list[str]:
        return [e.reason for e in self.events if isinstance(e, GuardPeerRefused)]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        bench = Bench(Path(folder) / "guard.sock")
        await bench.server.start()
        yield bench
        for peer in bench.peers:
            await peer.close()
        await bench.server.stop()
        assert not bench.path.exists()


async def test_only_our_user_can_open_the_socket(bench: Bench) -> None:
    assert stat.S_IMODE(bench.path.stat().st_mode) == 0o600


async def test_the_pid_is_the_kernels_word(bench: Bench) -> None:
    await bench.connect()
    assert [peer.pid for peer in bench.service.peers] == [os.getpid()]


async def test_messages_may_come_in_pieces_or_together(bench: Bench) -> None:
    peer = await bench.connect()
    await peer.raw(b'{"type":"x","n":1}\n{"type":"x","n"')
    assert await peer.hear() == {"type": "echo", "n": 1}
    await peer.raw(b':2}\n{"type":"x","n":3}\n')
    assert [await peer.hear(), await peer.hear()] == [{"type": "echo", "n": 2}, {"type": "echo", "n": 3}]


async def test_a_refused_peer_is_told_why(bench: Bench) -> None:
    peer = await bench.connect(greet=False)
    await peer.say({**HELLO, "agent_id": "refused"})
    assert await peer.hear() == {"type": "refused", "reason": "not you"}
    assert await peer.hear() is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"hello\n", "a message is no JSON"),
        (b"\xff\xfe\n", "a message is no JSON"),
        (b"[" * 5000 + b"\n", "a message is no JSON"),
        (b"[]\n", "a message is no JSON object"),
        (b'{"type":"request"}\n', "the first message must be hello"),
        (b"x" * (guard.MAX_LINE + 1), "a message is too long"),
        (b"x" * guard.MAX_LINE + b"\n", "a message is too long"),
    ],
    ids=["text", "bytes", "deep", "list", "early", "endless", "long"],
)
async def test_a_malformed_peer_is_cut_off_alone(bench: Bench, data: bytes, reason: str) -> None:
    good = await bench.connect()
    bad = await bench.connect(greet=False)
    await bad.raw(data)
    assert await bad.hear() is None
    assert bench.reasons() == [reason]
    await good.say({"type": "x"})
    assert await good.hear() == {"type": "echo"}


async def test_a_bad_message_of_an_accepted_peer_ends_its_session(bench: Bench) -> None:
    peer = await bench.connect()
    await peer.say({"type": "bad"})
    assert await peer.hear() is None
    assert bench.reasons() == ["that is bad"]
    assert bench.service.closed == 1


async def test_a_silent_peer_is_cut_off(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "HELLO_SECONDS", 0.05)
    peer = await bench.connect(greet=False)
    assert await peer.hear() is None
    assert bench.reasons() == ["no hello in time"]


async def test_a_flood_is_cut_off_and_a_brisk_peer_is_not(bench: Bench) -> None:
    brisk, flood = await bench.connect(), await bench.connect()
    for _ in range(10):
        await brisk.raw(b'{"type":"x"}\n' * 50)
        for _ in range(50):
            assert await brisk.hear() == {"type": "echo"}
    flood.writer.write(b'{"type":"x"}\n' * (guard.MAX_MESSAGES_PER_SECOND + 100))
    while await flood.hear() is not None:
        pass
    assert bench.reasons() == ["too many messages"]
    await brisk.say({"type": "x"})
    assert await brisk.hear() == {"type": "echo"}


async def test_refusals_are_told_and_no_flood_of_them(bench: Bench) -> None:
    for _ in range(guard.REFUSALS_TOLD + 5):
        peer = await bench.connect(greet=False)
        await peer.say({**HELLO, "agent_id": "refused"})
        assert await peer.hear() == {"type": "refused", "reason": "not you"}
    assert bench.reasons() == ["not you"] * guard.REFUSALS_TOLD


async def test_connections_without_a_hello_are_few_for_each_process(bench: Bench) -> None:
    good = await bench.connect()
    strangers = [await bench.connect(greet=False) for _ in range(guard.MAX_STRANGERS)]
    more = [await bench.connect(greet=False) for _ in range(guard.REFUSALS_TOLD + 5)]
    assert [await peer.hear() for peer in more] == [None] * len(more)
    # what is the same again and again is not told for ever
    assert bench.reasons() == ["too many connections without a hello"] * guard.REFUSALS_TOLD
    await strangers[0].say(HELLO)
    assert await strangers[0].hear() == {"type": "welcome"}
    await bench.connect()
    await good.say({"type": "x"})
    assert await good.hear() == {"type": "echo"}


async def test_a_peer_that_only_listens_on_is_done(bench: Bench) -> None:
    """Half-open: it will say no more, so nothing can become of its connection."""
    half, good = await bench.connect(), await bench.connect()
    half.writer.write_eof()
    assert await half.hear() is None
    assert bench.service.closed == 1
    await good.say({"type": "x"})
    assert await good.hear() == {"type": "echo"}


async def test_a_peer_that_does_not_read_is_cut_off(bench: Bench) -> None:
    await bench.connect()
    peer = bench.service.peers[0]
    big = {"type": "x", "text": "y" * 60_000}
    for _ in range(40):  # more than any socket buffer holds
        peer.send(big)
    assert bench.reasons() == ["the peer does not read"]
    peer.send(big)  # to one that is gone: nothing happens
    await asyncio.sleep(0)
    assert bench.service.closed == 1


async def test_the_end_of_a_connection_is_told_once(bench: Bench) -> None:
    peer = await bench.connect()
    await peer.close()
    async with asyncio.timeout(5):
        await bench.service.has_closed.wait()
    assert bench.service.closed == 1


async def test_stopping_ends_every_session(bench: Bench) -> None:
    peers = [await bench.connect() for _ in range(3)]
    await bench.server.stop()
    assert [await peer.hear() for peer in peers] == [None, None, None]
    assert bench.service.closed == 3


async def test_a_socket_left_behind_is_replaced(bench: Bench) -> None:
    await bench.server.stop()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(bench.path))
    await bench.server.start()
    await bench.connect()


async def test_another_kind_of_file_is_left_alone(bench: Bench) -> None:
    await bench.server.stop()
    bench.path.write_text("mine")
    with pytest.raises(ListenError, match="another kind"):
        await bench.server.start()
    assert bench.path.read_text() == "mine"
    bench.path.unlink()
