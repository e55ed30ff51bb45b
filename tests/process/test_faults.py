"""Kills, stops and commands at random moments, over and over: never two workers' trees, never none for long.

The seed is printed at the head of the run; with it, the same things happen in the same order.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from supervisor.cli.documents import Status
from supervisor.process.procfs import Identity, environment, pids, read_stat, variable
from supervisor.process.variables import AGENT_ID, LAUNCH, STATE
from tests.livekit.supervised import Supervised
from tests.process.test_supervision import Nowhere, command
from tests.scale import times

ROUNDS = times(test=12, soak=200)
LONGEST_GAP = 10.0
"""Seconds without any process though one is wanted; the start of a daemon on a busy machine included."""

# The worker, and a grandchild with its own session that will not end.
_FAMILY = """
setsid sh -c "trap '' TERM; while :; do sleep 60; done" &
exec sleep 600
"""

Look = dict[Identity, str]


class Subject:
    """A daemon, its one agent, and what may be done to them."""

    def __init__(self, folder: Path, runtime: Path) -> None:
        self._script = folder / "family.sh"
        self._script.write_text(_FAMILY)
        self._version = 0
        server: Any = Nowhere()
        self.daemon = Supervised(folder / "daemon", runtime, server, agents=[self._agent()])
        self._marks = {(STATE, str(self.daemon.state)), (AGENT_ID, "a")}

    def _agent(self) -> dict[str, Any]:
        return {
            "id": "a",
            "command": ["sh", str(self._script)],
            "env": {"VERSION": str(self._version)},
            "restart": {"initial": "20ms", "max": "200ms", "jitter": 0},
            "stop": {"drain": "1s", "kill": "200ms"},
        }

    def look(self) -> Look:
        """Who is alive of this agent, and the launch that it came from."""
        found = {}
        for pid in pids():
            block = environment(pid) or b""
            stat = read_stat(pid) if self._is_of_it(block) else None
            if stat is not None and stat.is_alive:
                found[stat.identity] = variable(block, LAUNCH) or ""
        return found

    def worker(self) -> int | None:
        """The eldest of its tree."""
        eldest = min(self.look(), key=lambda who: (who.start_ticks, who.pid), default=None)
        return eldest.pid if eldest is not None else None

    def is_settled(self, status: Status) -> bool:
        """Ready, by a process that lives: a worker that was killed just now is told as ready a moment longer.

        A shell that becomes another program shows no environment while it does.
        """
        alive = {who.pid for who in self.look()}
        return [a["ready"] and a["pid"] in alive for a in status["agents"]] == [True]

    def _is_of_it(self, block: bytes) -> bool:
        return self._marks <= {(name, variable(block, name)) for name in (STATE, AGENT_ID)}

    # --- what may happen ---

    async def kill_daemon(self) -> None:
        await self.daemon.kill()
        await self.daemon.start(wait=False)

    async def kill_worker(self) -> None:
        self._signal(signal.SIGKILL)

    async def stop_worker_for_good(self) -> None:
        self._signal(signal.SIGSTOP)
        await self._tell("restart", now=True)

    async def kill_both(self) -> None:
        self._signal(signal.SIGKILL)
        await self.kill_daemon()

    async def kill_daemon_while_it_stops_the_worker(self) -> None:
        await self._tell("restart", now=True)
        await asyncio.sleep(random.uniform(0.0, 0.2))
        await self.kill_daemon()

    async def stop_and_start(self) -> None:
        await self._tell("stop")
        await asyncio.sleep(random.uniform(0.0, 0.1))
        await self._tell("start")

    async def restart(self) -> None:
        await self._tell("restart")

    async def hand_off(self) -> None:
        await self._tell("restart", now=True)
        await self._tell("handoff")
        await self.daemon.ended()
        await self.daemon.start(wait=False)

    async def change(self) -> None:
        self._version += 1
        self.daemon.write(agents=[self._agent()])
        await self._tell("reload")

    async def change_while_it_stops(self) -> None:
        await self._tell("restart", now=True)
        await self.change()

    async def take_out_and_put_back(self) -> None:
        other = {"id": "b", "command": ["sleep", "600"], "stop": {"kill": "200ms"}}
        self.daemon.write(agents=[other])
        await self._tell("reload")
        await asyncio.sleep(random.uniform(0.0, 0.1))
        self.daemon.write(agents=[self._agent()])
        await self._tell("reload")

    async def _tell(self, name: str, **arguments: Any) -> None:
        await self.daemon.until(lambda status: bool(status["agents"]), 30)
        await command(self.daemon, name, **arguments)

    def _signal(self, number: signal.Signals) -> None:
        pid = self.worker()
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


@pytest.fixture
async def subject(tmp_path: Path, runtime_dir: Path) -> AsyncIterator[Subject]:
    subject = Subject(tmp_path, runtime_dir)
    await subject.daemon.start(wait=False)
    yield subject
    await subject.daemon.close()
    assert subject.look() == {}


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_never_two_and_never_none_for_long(subject: Subject) -> None:
    happenings: list[Callable[[], Awaitable[None]]] = [
        subject.kill_daemon,
        subject.kill_worker,
        subject.kill_worker,
        subject.kill_both,
        subject.kill_daemon_while_it_stops_the_worker,
        subject.stop_worker_for_good,
        subject.stop_and_start,
        subject.restart,
        subject.hand_off,
        subject.change,
        subject.change_while_it_stops,
        subject.take_out_and_put_back,
    ]
    order = [happenings[n % len(happenings)] for n in range(ROUNDS)]
    random.shuffle(order)
    watching = asyncio.create_task(_watch(subject))
    try:
        for happening in order:
            await asyncio.sleep(random.uniform(0.0, 0.5))
            assert not watching.done(), f"before {happening.__name__}: {watching.exception()}"
            await happening()
        await subject.daemon.until(subject.is_settled, 30)
        assert len(set(subject.look().values())) == 1
        assert not watching.done(), watching.exception()
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


async def _watch(subject: Subject) -> None:
    """For ever: fails when two launches are alive at once, or none is for too long."""
    loop = asyncio.get_running_loop()
    seen = loop.time()
    while True:
        look = await asyncio.to_thread(subject.look)
        now = loop.time()
        if look:
            seen = now
        assert now - seen < LONGEST_GAP, f"no process for {now - seen:.1f} s"
        if len(set(look.values())) > 1:
            # Alive then, and alive now: so they were there at the same time.
            again = {who: launch for who, launch in subject.look().items() if who in look}
            assert len(set(again.values())) < 2, f"two at once: {again}"
        await asyncio.sleep(0.01)
