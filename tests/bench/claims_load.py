"""Speaks the guard protocol as a worker would, over many connections: the load of part *claims*.

A program of its own, since only a process in the worker's tree may speak for an agent; so the daemon runs
it as a ``command:`` agent.  One rule: it does as little as it can for each request, so that what is
measured is the daemon.  Every wave asks for rooms of its own.

Usage: claims_load SOCKET AGENT_ID RESULT CONNECTIONS WAVES, the waves as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.bench.ground import write_result
from tests.bench.usage import cpu_seconds

_TICK = 0.001


@dataclass(frozen=True, slots=True)
class Wave:
    name: str
    seconds: float
    rate: float = 0.0
    """Requests a second, whatever the answers do; 0: each connection asks when it has its answer."""
    rooms: int = 0
    """So many rooms, asked for again and again by other jobs; 0: a room for each request."""


@dataclass(frozen=True, slots=True)
class Outcome:
    name: str
    seconds: float
    latencies: list[float]
    cpu_seconds: float
    """What the process at the other end used meanwhile."""


class Connection(asyncio.Protocol):
    """Sends requests, and notes how long each answer took from the time when it should have been sent."""

    def __init__(self, agent_id: str, load: Load) -> None:
        self._load = load
        self._agent_id = agent_id
        self._asked: deque[float] = deque()
        self._greeted = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        hello = {
            "type": "hello",
            "v": 1,
            "role": "worker",
            "agent_id": self._agent_id,
            "guard": "bench",
            "agents": "bench",
            "executor": "process",
            "max_load": None,
        }
        transport.write(json.dumps(hello).encode() + b"\n")

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        answers = data.count(b"\n")
        if not self._greeted and answers:
            self._greeted, answers = True, answers - 1
            self._load.greeted()
        for _ in range(min(answers, len(self._asked))):  # an echo gives heartbeats back, too
            self._load.answered(self, now - self._asked.popleft())

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost()

    def ask(self, number: int, room: str, due: float) -> None:
        assert self._transport is not None
        self._asked.append(due)
        job = f"AJ_{number:012d}"
        self._transport.write(
            f'{{"type":"request","id":{number},"room":"{room}","room_sid":"RM_x","job_id":"{job}",'
            f'"dispatch_id":"AD_{number:012d}","agent_name":"bench","identity":"agent-{job}"}}\n'.encode()
        )

    def peer(self) -> int:
        """The pid at the other end."""
        assert self._transport is not None
        sock = self._transport.get_extra_info("socket")
        size = struct.calcsize("3i")
        return int(struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))[0])

    def beat(self) -> None:
        assert self._transport is not None
        self._transport.write(b'{"type":"heartbeat","jobs":0,"late":0}\n')


class Load:
    def __init__(self, agent_id: str, connections: int) -> None:
        self._agent_id = agent_id
        self._wanted = connections
        self._connections: list[Connection] = []
        self._greetings = 0
        self._ready = asyncio.Event()
        self._lost = False
        self._number = 0
        self._wave = Wave("none", 0.0)
        self._until = 0.0
        self._latencies: list[float] = []

    async def connect(self, path: str) -> None:
        loop = asyncio.get_running_loop()
        # One more, for heartbeats: it never asks.
        while len(self._connections) <= self._wanted:
            _, connection = await loop.create_unix_connection(lambda: Connection(self._agent_id, self), path)
            self._connections.append(connection)
        self._pulse = self._connections.pop()
        self._daemon = self._pulse.peer()
        async with asyncio.timeout(10):
            await self._ready.wait()

    def greeted(self) -> None:
        self._greetings += 1
        if self._greetings > self._wanted:
            self._ready.set()

    def lost(self) -> None:
        self._lost = True

    async def play(self, wave: Wave) -> Outcome:
        self._wave, self._latencies = wave, []
        used, started = cpu_seconds(self._daemon), time.monotonic()
        self._until = started + wave.seconds
        if wave.rate:
            await self._at_a_rate(wave.rate, started)
        else:
            for connection in self._connections:
                self._ask(connection, time.monotonic())
            await asyncio.sleep(wave.seconds)
        took = time.monotonic() - started
        latencies, self._latencies = self._latencies, []
        used = cpu_seconds(self._daemon) - used
        await asyncio.sleep(0.5)
        assert not self._lost, "the daemon has cut a connection"
        return Outcome(wave.name, took, latencies, used)

    async def _at_a_rate(self, rate: float, started: float) -> None:
        sent = 0
        while (now := time.monotonic()) < self._until:
            while sent < (now - started) * rate:
                self._ask(self._connections[sent % self._wanted], started + sent / rate)
                sent += 1
            await asyncio.sleep(_TICK)

    def answered(self, connection: Connection, seconds: float) -> None:
        self._latencies.append(seconds)
        now = time.monotonic()
        if not self._wave.rate and now < self._until:
            self._ask(connection, now)

    def _ask(self, connection: Connection, due: float) -> None:
        self._number += 1
        rooms = self._wave.rooms
        place = self._number % rooms if rooms else self._number
        connection.ask(self._number, f"bench-{self._wave.name}-{place}", due)

    async def beat(self) -> None:
        while True:
            self._pulse.beat()
            await asyncio.sleep(1.0)


async def main(path: str, agent_id: str, outcome: Path, connections: int, waves: list[Wave]) -> None:
    load = Load(agent_id, connections)
    await load.connect(path)
    beating = asyncio.create_task(load.beat())
    try:
        write_result(outcome, [asdict(await load.play(wave)) for wave in waves])
    except AssertionError as error:
        write_result(outcome, {"error": str(error)})
    await beating


if __name__ == "__main__":
    os.environ.pop("PYTHONSAFEPATH", None)
    socket_path, agent, result_path, count, played = sys.argv[1:]
    asyncio.run(
        main(socket_path, agent, Path(result_path), int(count), [Wave(**w) for w in json.loads(played)])
    )
