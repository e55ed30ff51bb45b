"""The guard's connection: up by itself, through every death of the daemon, and never in the way."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agent_guard.heartbeat import beat
from agent_guard.messages import Goodbye, Heartbeat, Leave, Report, ToGuard, WorkerHello
from agent_guard.transport import MAX_REPORTS, Connection, tell

HELLO = WorkerHello(agent_id="a", guard="1", agents="1", executor="process", max_load=None)
WELCOME = {"type": "welcome", "v": 1}


class Listener:
    """The other end of the socket; ``greeting`` is what it says to a hello."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.greeting: dict[str, object] | None = WELCOME
        self.heard: list[dict[str, object]] = []
        self.hellos = 0
        self.changed = asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        self.drop()
        await asyncio.sleep(0)

    def drop(self) -> None:
        for writer in self.writers:
            writer.close()
        self.writers.clear()

    def send(self, **message: object) -> None:
        self.writers[-1].write(json.dumps(message).encode() + b"\n")

    async def until(self, condition: Callable[[], bool], timeout: float = 5.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"not in time; heard {self.heard}"
            await asyncio.sleep(0.005)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        await reader.readline()
        self.hellos += 1
        if self.greeting is not None:
            self.send(**self.greeting)
        while line := await reader.readline():
            self.heard.append(json.loads(line))
        writer.close()


class Guard:
    def __init__(self, path: Path) -> None:
        self.received: list[ToGuard] = []
        self.lost = 0
        self.connection = Connection(str(path), lambda: HELLO, self.received.append, self._lost)

    def _lost(self) -> None:
        self.lost += 1


@pytest.fixture
async def listener(runtime_dir: Path) -> AsyncIterator[Listener]:
    listener = Listener(runtime_dir / "guard.sock")
    await listener.start()
    yield listener
    await listener.stop()


@pytest.fixture
async def guard(listener: Listener) -> AsyncIterator[Guard]:
    guard = Guard(listener.path)
    yield guard
    await guard.connection.close()


async def test_it_is_up_when_welcomed_and_delivers_both_ways(listener: Listener, guard: Guard) -> None:
    assert await guard.connection.open(wait=5)
    assert guard.connection.send(Heartbeat(jobs=1, late=0))
    listener.send(type="leave", reason="told", epoch=2)
    await listener.until(lambda: len(guard.received) == 2 and bool(listener.heard))
    assert guard.received[1] == Leave(reason="told", epoch=2)
    assert listener.heard[0]["type"] == "heartbeat"


async def test_without_a_daemon_it_goes_on_and_connects_when_there_is_one(runtime_dir: Path) -> None:
    listener, guard = Listener(runtime_dir / "guard.sock"), Guard(runtime_dir / "guard.sock")
    assert not await guard.connection.open(wait=0.05)
    assert not guard.connection.send(Heartbeat(jobs=0, late=0))
    await listener.start()
    await listener.until(lambda: guard.connection.up)
    await guard.connection.close(Goodbye(reason="stopped"))
    await listener.until(lambda: bool(listener.heard))
    assert listener.heard == [{"type": "goodbye", "reason": "stopped"}]
    await listener.stop()


async def test_where_nobody_listens_a_job_does_not_wait(runtime_dir: Path) -> None:
    guard = Guard(runtime_dir / "guard.sock")
    began = time.monotonic()
    assert not await guard.connection.open(wait=30)
    assert time.monotonic() - began < 10
    await guard.connection.close()


async def test_a_daemon_that_says_nothing_is_away(listener: Listener, guard: Guard) -> None:
    listener.greeting = None
    assert not await guard.connection.open(wait=0.05)
    assert not guard.connection.send(Heartbeat(jobs=0, late=0))


async def test_it_comes_back_after_every_loss(listener: Listener, guard: Guard) -> None:
    await guard.connection.open(wait=5)
    for loss in (1, 2, 3):
        listener.drop()
        await listener.until(lambda n=loss: guard.lost == n and guard.connection.up)  # type: ignore[misc]
    assert listener.hellos == 4


async def test_refused_it_tries_again_until_it_is_welcome(listener: Listener, guard: Guard) -> None:
    listener.greeting = {"type": "refused", "reason": "not yet"}
    assert not await guard.connection.open(wait=0.1)
    listener.greeting = WELCOME
    await listener.until(lambda: guard.connection.up)
    assert guard.lost == 0


@pytest.mark.parametrize("nonsense", [b"nonsense\n", b'{"type":"answer"}\n', b"x" * 70_000])
async def test_nonsense_ends_the_connection_and_the_next_one_is_good(
    listener: Listener, guard: Guard, nonsense: bytes
) -> None:
    await guard.connection.open(wait=5)
    listener.writers[-1].write(nonsense)
    await listener.until(lambda: guard.lost == 1 and guard.connection.up)


async def test_reports_wait_for_the_daemon_but_not_without_bound(listener: Listener, guard: Guard) -> None:
    for number in range(MAX_REPORTS + 5):
        guard.connection.report(Report(report="daemon_away", detail=str(number)))
    await guard.connection.open(wait=5)
    await listener.until(lambda: len(listener.heard) == MAX_REPORTS)
    assert listener.heard[0]["detail"] == "5"


async def test_a_daemon_that_does_not_read_costs_no_memory_without_bound(
    listener: Listener, guard: Guard
) -> None:
    await guard.connection.open(wait=5)
    listener.writers[-1].transport.pause_reading()  # type: ignore[attr-defined]
    sent = 0
    while guard.connection.send(Report(report="x", detail="y" * 1000)):
        sent += 1
        assert sent < 10_000
    await listener.until(lambda: guard.lost == 1)


async def test_one_thing_can_be_told_without_a_loop(listener: Listener) -> None:
    teller = threading.Thread(target=tell, args=(str(listener.path), HELLO, Goodbye(reason="no script")))
    teller.start()
    await listener.until(lambda: bool(listener.heard))
    await asyncio.to_thread(teller.join)
    assert listener.heard == [{"type": "goodbye", "reason": "no script"}]


def test_telling_nobody_is_no_error(runtime_dir: Path) -> None:
    tell(str(runtime_dir / "nobody.sock"), HELLO, Goodbye(reason="x"))


async def test_a_loop_that_is_blocked_makes_no_beat_and_then_tells_how_late_it_was() -> None:
    beats: asyncio.Queue[float] = asyncio.Queue()
    task = asyncio.ensure_future(beat(lambda: 0.04, beats.put_nowait))
    assert await asyncio.wait_for(beats.get(), 5) < 0.2
    time.sleep(0.3)  # noqa: ASYNC251 - a blocked loop is the point
    assert beats.empty()
    assert await asyncio.wait_for(beats.get(), 5) > 0.2
    task.cancel()
