"""The guard socket: framing, peer credentials and limits.  What is said is answered by a GuardService.

The rule: one peer's misbehaviour (malformed, oversized, slow, half-open, flooding) ends its own connection
and touches no other.  docs/protocol.md is the contract.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from supervisor.core.ports import BadMessage, GuardService, GuardSession, Refusal
from supervisor.endpoints.listen import UnixListener
from supervisor.events import EventBus, GuardPeerRefused

MAX_LINE = 64 * 1024
MAX_UNREAD = 256 * 1024
"""Bytes that may wait for a peer that does not read."""
MAX_MESSAGES_PER_SECOND = 1_000
HELLO_SECONDS = 2.0
MAX_CONNECTIONS = 4_096
MAX_STRANGERS = 32
"""Connections of one process that have not said hello: a guard says it at once."""
REFUSALS_TOLD = 20
"""Each second; who floods us with connections does not flood the log and the history."""
MAX_INTEGER = 2**53 - 1


class GuardServer:
    """Listens on ``guard.sock``."""

    def __init__(self, path: Path, service: GuardService, bus: EventBus, clock: Callable[[], float]) -> None:
        self.path = path
        self._service = service
        self._clock = clock
        self._door = _Door(bus, clock)
        self._listener: UnixListener | None = None
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Bind the socket, mode 0600.  Raises :class:`supervisor.endpoints.listen.ListenError`."""
        await self._listen()

    async def restore(self) -> bool:
        """Whether the socket had lost its name; it has one again, and who is connected stays.

        Raises :class:`supervisor.endpoints.listen.ListenError`.
        """
        if self._server is None or self._listener is None or not self._listener.is_lost:
            return False
        before = self._server
        await self._listen()
        before.close()
        return True

    async def _listen(self) -> None:
        self._listener = UnixListener(self.path)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._accept, sock=self._listener.socket, backlog=512)

    async def stop(self) -> None:
        """Close the listener and every connection; guards reconnect to the next daemon."""
        if self._server is None or self._listener is None:
            return
        self._server.close()
        for connection in tuple(self._door.connections):
            connection.close()
        await self._server.wait_closed()
        self._listener.remove()

    def _accept(self) -> _Connection:
        return _Connection(self._service, self._clock, self._door)


class _Door:
    """Who is connected, and of whom that is too much."""

    def __init__(self, bus: EventBus, clock: Callable[[], float]) -> None:
        self.connections: set[_Connection] = set()
        self._strangers: Counter[int] = Counter()
        self._bus = bus
        self._told = Rate(REFUSALS_TOLD, clock)

    def come(self, connection: _Connection) -> str:
        """``""``, or why it cannot stay."""
        self.connections.add(connection)
        self._strangers[connection.pid] += 1
        if self._strangers[connection.pid] > MAX_STRANGERS:
            return "too many connections without a hello"
        return "too many connections" if len(self.connections) > MAX_CONNECTIONS else ""

    def greeted(self, pid: int) -> None:
        """It has said hello, or has gone without."""
        self._strangers[pid] -= 1
        if self._strangers[pid] <= 0:
            del self._strangers[pid]

    def refuse(self, pid: int, reason: str, agent_id: str = "") -> None:
        if self._told.within():
            self._bus.publish(GuardPeerRefused(pid=pid, reason=reason, agent_id=agent_id))


class Rate:
    """So many in a second of the clock, beginning with the first."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._second = float("-inf")
        self._count = 0

    def within(self) -> bool:
        now = self._clock()
        if now - self._second >= 1.0:
            self._second, self._count = now, 0
        self._count += 1
        return self._count <= self._most


class _Connection(asyncio.Protocol):
    """One peer.  Also what the service knows it by (:class:`supervisor.core.ports.GuardPeer`)."""

    def __init__(self, service: GuardService, clock: Callable[[], float], door: _Door) -> None:
        self.pid = 0
        self._service = service
        self._door = door
        self._rate = Rate(MAX_MESSAGES_PER_SECOND, clock)
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._session: GuardSession | None = None
        self._hello_timer: asyncio.TimerHandle | None = None
        self._is_stranger = True

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.pid, uid = _peer(transport.get_extra_info("socket"))
        too_much = self._door.come(self)
        if uid != os.getuid():
            self._cut(f"user {uid} is not ours")
        elif too_much:
            self._cut(too_much)
        else:
            loop = asyncio.get_running_loop()
            self._hello_timer = loop.call_later(HELLO_SECONDS, self._cut, "no hello in time")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while self._transport is not None and not self._transport.is_closing():
            end = self._buffer.find(b"\n")
            if end < 0:
                if len(self._buffer) > MAX_LINE:
                    self._cut("a message is too long")
                return
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            self._line(line)

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.connections.discard(self)
        self._is_known()
        if self._session is not None:
            self._session.closed()
            self._session = None

    # --- GuardPeer ---

    def send(self, message: Mapping[str, object]) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(_encode(message).encode() + b"\n")
        if self._transport.get_write_buffer_size() > MAX_UNREAD:
            self._cut("the peer does not read")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # --- inside ---

    def _line(self, line: bytes) -> None:
        if len(line) >= MAX_LINE:
            return self._cut("a message is too long")
        if not self._rate.within():
            return self._cut("too many messages")
        try:
            message = _parsed(line)
        except (ValueError, RecursionError):
            return self._cut("a message is no JSON")
        if not isinstance(message, dict):
            return self._cut("a message is no JSON object")
        try:
            self._message(message)
        except BadMessage as error:
            self._cut(str(error))

    def _message(self, message: dict[str, object]) -> None:
        if self._session is not None:
            self._session.receive(message)
            return
        if message.get("type") != "hello":
            raise BadMessage("the first message must be hello")
        self._is_known()
        answer = self._service.hello(self, message)
        if isinstance(answer, Refusal):
            self._door.refuse(self.pid, answer.reason, answer.agent_id)
            self.send({"type": "refused", "reason": answer.reason})
            self.close()
        else:
            self._session = answer

    def _is_known(self) -> None:
        if self._hello_timer is not None:
            self._hello_timer.cancel()
        if self._is_stranger:
            self._is_stranger = False
            self._door.greeted(self.pid)

    def _cut(self, reason: str) -> None:
        self._door.refuse(self.pid, reason)
        if self._transport is not None:
            self._transport.abort()


def _parsed(line: bytes) -> object:
    """Raises ValueError, also for what is no I-JSON (RFC 7493): LiveKit and the store would not take it."""
    message: object = _decode(line.decode())
    if b"\\u" in line:  # half of a surrogate pair, perhaps
        json.dumps(message, ensure_ascii=False).encode()
    return message


def _integer(digits: str) -> int:
    """``NaN`` and ``Infinity`` are none."""
    if abs(value := int(digits)) > MAX_INTEGER:
        raise ValueError("more digits than a number can be relied on to have")
    return value


# Made once: json.loads() and json.dumps() make one for each message that is not spelled in the usual way.
_decode = json.JSONDecoder(parse_constant=_integer, parse_int=_integer).decode
_encode = json.JSONEncoder(separators=(",", ":")).encode


def _peer(sock: socket.socket) -> tuple[int, int]:
    """Pid and user of the process at the other end, from the kernel."""
    size = struct.calcsize("3i")
    pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return pid, uid
