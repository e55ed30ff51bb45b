"""Everything of the model in one hand: what a simulation adds, breaks, and asks about."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping

from supervisor.core.model import ATTRIBUTE_AGENT_NAME, ATTRIBUTE_PUBLISH_ON_BEHALF, ParticipantKind
from supervisor.events import EventBus
from tests.simulation.model_faults import ApiFaults, WebhookCourier, WebhookFaults
from tests.simulation.model_guests import Guest
from tests.simulation.model_livekit import ModelLiveKit
from tests.simulation.model_observer import Observer
from tests.simulation.model_ports import DispatchState, ModelDispatch
from tests.simulation.model_processes import ModelProcesses
from tests.simulation.model_rooms import ModelServer
from tests.simulation.model_workers import Guard, ModelJob, ModelWorker
from tests.simulation.virtual_time import VirtualTimeLoop


def _ignore(event: str, room: str, sid: str) -> None:
    pass


class World:
    """Made inside a running :class:`VirtualTimeLoop`; all chance comes from ``rng``."""

    def __init__(
        self,
        rng: random.Random,
        *,
        webhook: Callable[[str, str, str], None] = _ignore,
        webhook_faults: WebhookFaults | None = None,
        api_faults: ApiFaults | None = None,
        bus: EventBus | None = None,
        timeout: float = 5.0,
    ) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop), "the model lives in virtual time"
        self.rng = rng
        self.webhook = webhook
        """Receives event, room and its SID; may be set later."""
        self.webhook_faults = webhook_faults or WebhookFaults()
        self.api_faults = api_faults or ApiFaults()
        self.processes = ModelProcesses(loop.wall)
        self._courier = WebhookCourier(
            rng, self.webhook_faults, lambda event, room, sid: self.webhook(event, room, sid)
        )
        self.server = ModelServer(rng, loop.wall, self._courier.send)
        self.livekit = ModelLiveKit(self.server, rng, self.api_faults, bus, timeout)
        self.observer = Observer(self.server)
        self.workers: list[ModelWorker] = []
        self.guests: list[Guest] = []

    # --- who comes ---

    def human(
        self,
        room: str,
        identity: str,
        *,
        kind: ParticipantKind = ParticipantKind.STANDARD,
        agents: tuple[str, ...] = (),
        comes_back: bool = True,
    ) -> Guest:
        """``agents``: those that its token asks for; LiveKit heeds it only for a room that it makes."""
        guest = Guest(self.server, self.rng, room, identity, kind, comes_back=comes_back)
        return self._welcome(guest, agents)

    def loose_agent(self, room: str, identity: str, attributes: Mapping[str, str] | None = None) -> Guest:
        """An agent that nobody dispatched, with a token of its own."""
        return self._welcome(
            Guest(self.server, self.rng, room, identity, ParticipantKind.AGENT, attributes or {}), ()
        )

    def avatar(self, room: str, identity: str, on_behalf_of: str) -> Guest:
        attributes = {ATTRIBUTE_PUBLISH_ON_BEHALF: on_behalf_of, ATTRIBUTE_AGENT_NAME: ""}
        return self.loose_agent(room, identity, attributes)

    def _welcome(self, guest: Guest, agents: tuple[str, ...]) -> Guest:
        self.guests.append(guest)
        guest.join(agents)
        return guest

    def worker(
        self,
        agent_id: str,
        name: str,
        guard: Guard | None = None,
        attributes: Mapping[str, str] | None = None,
        *,
        start: float | None = 0.0,
    ) -> ModelWorker:
        """A worker that registers after ``start`` seconds; None: not started yet."""
        worker = ModelWorker(self.server, self.processes, self.rng, agent_id, name, guard, attributes)
        self.workers.append(worker)
        if start is not None:
            worker.start(start)
        return worker

    # --- what breaks ---

    def crash_livekit(self, *, forget: bool = True) -> None:
        self._courier.lose_all()
        self.server.crash(forget=forget)

    def start_livekit(self) -> None:
        self.server.start()

    async def restart_livekit(self, down: float, *, forget: bool = True) -> None:
        self.crash_livekit(forget=forget)
        await asyncio.sleep(down)
        self.start_livekit()

    # --- what is asked ---

    def jobs(self) -> list[ModelJob]:
        return [job for worker in self.workers for job in worker.jobs.values()]

    def audible(self, room: str) -> tuple[str, ...]:
        found = self.server.rooms.get(room)
        return found.audible() if found is not None else ()

    def humans(self, room: str) -> int:
        found = self.server.rooms.get(room)
        return found.humans() if found is not None else 0

    def outstanding(self, room: str) -> tuple[ModelDispatch, ...]:
        """Dispatches that may still bring an agent that is not there yet."""
        found = self.server.rooms.get(room)
        if found is None:
            return ()
        return tuple(d for d in found.dispatches.values() if self._may_come(d))

    def _may_come(self, dispatch: ModelDispatch) -> bool:
        if dispatch.state is DispatchState.LAUNCHING:
            return True
        coming = {job.id for job in self.jobs() if job.alive and not job.frozen and not job.present}
        return dispatch.state is DispatchState.ASSIGNED and not coming.isdisjoint(dispatch.job_ids)
