"""One stage for the contract: the same story is played with the real server and with the model of it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Literal, Protocol

from livekit.api import AccessToken, RoomAgentDispatch, RoomConfiguration, VideoGrants

from supervisor.core.model import Dispatch, Participant, ParticipantKind, Unknown
from supervisor.core.ports import LiveKit
from supervisor.events import EventBus
from supervisor.livekit.api import LiveKitClient
from tests.livekit.bare_guest import BareGuest
from tests.livekit.bare_worker import BareWorker
from tests.livekit.server import LiveKitServer
from tests.simulation import virtual_time
from tests.simulation.model_guests import Guest
from tests.simulation.model_ports import Offer, Verdict
from tests.simulation.model_workers import DaemonAway, ModelWorker
from tests.simulation.model_world import World

Kind = Literal["standard", "egress", "ingress", "sip", "agent"]


class Visitor(Protocol):
    """Somebody in a room."""

    async def leave(self) -> None: ...
    async def die(self) -> None:
        """SIGKILL of its process."""
        ...


class StageWorker(Protocol):
    @property
    def offers(self) -> list[str]:
        """IDs of the jobs it was asked to take."""
        ...

    async def stop(self) -> None:
        """Its process is gone."""
        ...


class Stage(Protocol):
    livekit: LiveKit

    async def visitor(
        self,
        room: str,
        identity: str,
        kind: Kind = "standard",
        *,
        attributes: Mapping[str, str] | None = None,
        agents: tuple[str, ...] = (),
        mortal: bool = False,
    ) -> Visitor:
        """Joins, with a track.  ``agents``: what its token asks for.  ``mortal``: it may be made to die."""
        ...

    async def worker(self, name: str, verdict: Verdict | None) -> StageWorker:
        """Registers, and gives this answer to every offer; None: never any."""
        ...

    async def kill_server(self) -> None: ...
    async def start_server(self) -> None: ...


Story = Callable[[Stage], Awaitable[None]]


# --- what stories do ----------------------------------------------------------------------------------


def some_room() -> str:
    return f"room-{uuid.uuid4().hex[:8]}"


async def participants(stage: Stage, room: str) -> dict[str, Participant]:
    listed = await stage.livekit.list_participants(room)
    assert not isinstance(listed, Unknown), listed
    return {participant.identity: participant for participant in listed}


async def dispatches(stage: Stage, room: str) -> dict[str, Dispatch]:
    listed = await stage.livekit.list_dispatches(room)
    assert not isinstance(listed, Unknown), listed
    return {dispatch.id: dispatch for dispatch in listed}


async def rooms(stage: Stage) -> set[str]:
    listed = await stage.livekit.list_rooms()
    assert not isinstance(listed, Unknown), listed
    return {room.name for room in listed}


async def until(condition: Callable[[], Awaitable[bool]], within: float = 10.0) -> float:
    """Wait until it is true; the seconds that it took."""
    loop = asyncio.get_running_loop()
    started = loop.time()
    while not await condition():
        assert loop.time() - started < within, f"not within {within:g} s"
        await asyncio.sleep(0.05)
    return loop.time() - started


# --- the real server ----------------------------------------------------------------------------------


class RtcVisitor(BareGuest):
    async def die(self) -> None:
        raise AssertionError("it lives in the test's own process: ask for a mortal one")


class MortalVisitor:
    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None

    async def join(self, url: str, token: str) -> None:
        program = Path(__file__).with_name("bare_guest.py")
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, program, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{url}\n{token}\n".encode())
        assert await self._process.stdout.readline() == b"joined\n"

    async def leave(self) -> None:
        await self.die()

    async def die(self) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


class RealStage:
    def __init__(self, server: LiveKitServer) -> None:
        self._server = server
        self._client = LiveKitClient(server.url, server.key, server.secret, 5.0, EventBus())
        self.livekit: LiveKit = self._client
        self._visitors: list[RtcVisitor | MortalVisitor] = []
        self._workers: list[BareWorker] = []
        self._joining: list[asyncio.Task[Visitor]] = []

    async def visitor(
        self,
        room: str,
        identity: str,
        kind: Kind = "standard",
        *,
        attributes: Mapping[str, str] | None = None,
        agents: tuple[str, ...] = (),
        mortal: bool = False,
    ) -> Visitor:
        token = AccessToken(self._server.key, self._server.secret).with_identity(identity).with_kind(kind)
        token = token.with_attributes(dict(attributes or {}))
        token = token.with_grants(VideoGrants(room_join=True, room=room))
        if agents:
            asked = [RoomAgentDispatch(agent_name=name) for name in agents]
            token = token.with_room_config(RoomConfiguration(agents=asked))
        return await self._join(MortalVisitor() if mortal else RtcVisitor(), token.to_jwt())

    async def _join(self, visitor: RtcVisitor | MortalVisitor, token: str) -> Visitor:
        self._visitors.append(visitor)
        await visitor.join(self._server.url, token)
        return visitor

    async def worker(self, name: str, verdict: Verdict | None) -> StageWorker:
        def assigned(token: str) -> None:
            # Never cancelled: the SDK ends the whole process when whoever connects is not there any more.
            self._joining.append(asyncio.create_task(self._join(RtcVisitor(), token)))

        worker = BareWorker(self._server, name, verdict, assigned)
        self._workers.append(worker)
        await worker.start()
        return worker

    async def kill_server(self) -> None:
        await asyncio.to_thread(self._server.kill)

    async def start_server(self) -> None:
        await asyncio.to_thread(self._server.start)

    async def aclose(self) -> None:
        for worker in self._workers:
            await worker.stop()
        await asyncio.gather(*self._joining)
        for visitor in self._visitors:
            await visitor.leave()
        await self._client.aclose()


@contextlib.asynccontextmanager
async def real_stage(server: LiveKitServer) -> AsyncIterator[RealStage]:
    stage = RealStage(server)
    try:
        yield stage
    finally:
        await stage.aclose()


# --- the model ----------------------------------------------------------------------------------------


class ModelVisitor:
    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    async def leave(self) -> None:
        self._guest.leave()

    async def die(self) -> None:
        self._guest.die()


class _FixedAnswer(DaemonAway):
    """A guard that knows what to say."""

    def __init__(self, world: World, verdict: Verdict) -> None:
        super().__init__(world.server)
        self._verdict = verdict

    def request(self, worker: ModelWorker, offer: Offer, identity: str) -> Verdict:
        return self._verdict


class _RecordingWorker(ModelWorker):
    def __init__(self, world: World, name: str, verdict: Verdict | None) -> None:
        guard = _FixedAnswer(world, verdict or Verdict.PASS)
        super().__init__(world.server, world.processes, world.rng, f"agent-{id(self)}", name, guard)
        self.offers: list[str] = []

    def offer(self, offer: Offer, answer: Callable[[Verdict], None]) -> None:
        self.offers.append(offer.job_id)
        super().offer(offer, answer)

    async def stop(self) -> None:
        self.kill()


class ModelStage:
    def __init__(self, *, departure_timeout: float = 20.0, redis: bool = False) -> None:
        self._redis = redis
        self._world = World(random.Random(1))
        self._world.server.departure_timeout = departure_timeout
        self.livekit: LiveKit = self._world.livekit

    async def visitor(
        self,
        room: str,
        identity: str,
        kind: Kind = "standard",
        *,
        attributes: Mapping[str, str] | None = None,
        agents: tuple[str, ...] = (),
        mortal: bool = False,
    ) -> Visitor:
        guest = Guest(
            self._world.server, self._world.rng, room, identity, ParticipantKind(kind), attributes or {}
        )
        guest.join(agents)
        await asyncio.sleep(0.3)
        return ModelVisitor(guest)

    async def worker(self, name: str, verdict: Verdict | None) -> StageWorker:
        worker = _RecordingWorker(self._world, name, verdict)
        self._world.workers.append(worker)
        worker.start(0)
        await asyncio.sleep(0.1)
        worker.silent = verdict is None
        return worker

    async def kill_server(self) -> None:
        self._world.crash_livekit(forget=not self._redis)

    async def start_server(self) -> None:
        self._world.start_livekit()


def play_on_model(story: Story, *, departure_timeout: float = 20.0, redis: bool = False) -> None:
    async def main() -> None:
        await story(ModelStage(departure_timeout=departure_timeout, redis=redis))

    virtual_time.run(main())


def play_on_server(story: Story, server: LiveKitServer) -> None:
    async def main() -> None:
        async with real_stage(server) as stage:
            await story(stage)

    asyncio.run(main())
