r"""The daemon's side of the guard socket: whatever some peers say, the others are answered.

The bytes are a script, cut at each NUL (which no message can hold).  A part begins with the digit of the
peer that sends the rest of it, and connects first where it has to; with nothing to send, it hangs up.
``t`` lets seconds pass; ``r`` hangs up the hard way, in the middle of what it says.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import socket
import struct
import termios
from pathlib import Path

from agent_guard.framing import Decoder
from agent_guard.messages import parse
from supervisor.endpoints.guard import GuardServer
from tests.fuzz.checks import hold, played, scratch
from tests.fuzz.daemon import GOOD, Daemon, turns

PEERS = b"0123"
MOST_PARTS = 64


def guard_socket(data: bytes) -> None:
    played(lambda: _scene(data))


async def _scene(data: bytes) -> None:
    daemon = Daemon("json" if len(data) % 2 else "console")
    path = scratch() / "guard.sock"
    server = GuardServer(path, daemon.guards, daemon.bus, daemon.clock)
    async with daemon.running():
        await server.start()
        peers = [Peer(path) for _ in PEERS]
        good = Good(path)
        try:
            await good.begin()
            for part in data.split(b"\0")[:MOST_PARTS]:
                await _play(part, daemon, peers)
                await good.check()
        finally:
            good.peer.hang_up()
            for peer in peers:
                peer.hang_up()
            await turns(5)
            left = len(server._door.connections)
            await server.stop()
        hold(not left, "connections left:", left)
        await daemon.settle()
        daemon.check()


async def _play(part: bytes, daemon: Daemon, peers: list[Peer]) -> None:
    first, rest = part[:1], part[1:]
    if first == b"t":
        daemon.pass_time(4.0)
        await turns(5)
        return
    number = PEERS.find(first) if first else 0
    peer = peers[number if number >= 0 else 0]
    if first == b"r":
        peer.hang_up(hard=True)
    elif not rest:
        peer.hang_up()
    else:
        await peer.say(rest if number >= 0 else part)
    await turns(5)
    peer.hear()


class Peer:
    """A socket, and what was said over it so far; it reads whatever it is told."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._decoder = Decoder()
        self._heard: list[dict[str, object]] = []

    async def say(self, data: bytes) -> None:
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.setblocking(False)
            self._socket.connect(str(self._path))
            self._decoder = Decoder()
            await turns(5)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            while data:
                with contextlib.suppress(BlockingIOError):
                    data = data[self._socket.send(data) :]
                await self._until_read()
                self.hear()
                if self._socket is None:
                    return

    async def _until_read(self) -> None:
        """By the daemon; a connection that it has cut holds nothing any more."""
        assert self._socket is not None
        for _ in range(10_000):
            if _unread(self._socket) == 0:
                return
            await asyncio.sleep(0)
        hold(False, "the daemon does not read")

    def hear(self) -> None:
        """Everything that the daemon has said, each of which the guard has to understand."""
        while self._socket is not None:
            try:
                data = self._socket.recv(65_536)
            except BlockingIOError:
                return
            except ConnectionResetError:
                data = b""
            if not data:
                self.hang_up()
                return
            for message in self._decoder.feed(data):
                hold(parse(message) is not None, "the guard does not know:", message)
                self._heard.append(message)

    def heard(self) -> list[dict[str, object]]:
        """Since it was last asked."""
        self.hear()
        heard, self._heard = self._heard, []
        return heard

    def hang_up(self, *, hard: bool = False) -> None:
        gone, self._socket = self._socket, None
        if gone is None:
            return
        if hard:
            with contextlib.suppress(OSError):
                gone.send(b'{"type":"hea')
        gone.close()


def _unread(sock: socket.socket) -> int:
    """Bytes sent that the other end has not read."""
    return int(struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0" * 4))[0])


class Good:
    """A worker that behaves: it is connected all the time, and each of its questions is answered."""

    def __init__(self, path: Path) -> None:
        self.peer = Peer(path)
        self._asked = 0

    async def begin(self) -> None:
        heard = await self._ask({"type": "hello", "v": 1, "agent_id": GOOD, "role": "worker"})
        hold([m["type"] for m in heard] == ["welcome"], "the one who behaves heard", heard)

    async def check(self) -> None:
        self._asked += 1
        asks: dict[str, object] = {
            "type": "request",
            "id": self._asked,
            "job_id": "AJ_good",
            "identity": "good",
        }
        heard = await self._ask({**asks, "room": "good", "dispatch_id": "AD_good"})
        answers = [message for message in heard if message["type"] == "answer"]
        hold([m["id"] for m in answers] == [self._asked], "the one who behaves heard", heard)

    async def _ask(self, message: dict[str, object]) -> list[dict[str, object]]:
        await self.peer.say(json.dumps(message).encode() + b"\n")
        await turns(2)
        return self.peer.heard()
