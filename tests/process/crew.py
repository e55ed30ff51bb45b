"""The worker reconciler with all its real parts over a state directory, in the process of the test.

One rule: it is built as the daemon builds it; LiveKit and the rooms are left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import TypeVar

from supervisor.core.backoff import BackoffPolicy
from supervisor.core.model import DeadJob
from supervisor.core.ports import ProcessSpec
from supervisor.core.worker_plan import WorkerPolicy
from supervisor.daemon.evidence import DeathEvidence
from supervisor.daemon.wishes import StopWishes
from supervisor.events import Event, EventBus
from supervisor.process.host import PosixProcessHost
from supervisor.process.watch import PidfdWatch
from supervisor.reconcile.claimbook import ClaimBook
from supervisor.reconcile.worker import AgentSpec
from supervisor.reconcile.workers import WorkerReconciler
from supervisor.store.sqlite import SqliteStore
from tests.process.programs import Bench

POLICY = WorkerPolicy(
    backoff=BackoffPolicy(initial=0.02, factor=2.0, max=0.2),
    stable_after=60.0,
    startup_timeout=30.0,
    heartbeat_timeout=10.0,
    drain=1.0,
    kill=0.3,
    guarded=False,
)


E = TypeVar("E", bound=Event)


class NoRooms:
    """Nobody to tell."""

    enforce = True

    def wake(self, room: str) -> None: ...

    def wake_agent(self, agent_id: str) -> None: ...

    def note_death(self, dead: DeadJob) -> None: ...

    def note_refused(self, room: str, dispatch_id: str) -> None: ...

    def slot_freed(self, agent_id: str) -> None: ...


class Crew:
    """One life of the daemon, as far as processes are concerned."""

    def __init__(self, bench: Bench, *, livekit_up: bool = True) -> None:
        self.events: list[Event] = []
        self.livekit_up = livekit_up
        bus = EventBus()
        bus.subscribe(self.events.append)
        self.host = PosixProcessHost(bench.state)
        self.wishes = StopWishes(bench.state / "wishes", bus)
        self.wishes.load()
        store = SqliteStore(bench.state / "supervisor.db", bus, max_age=60.0, max_size=1 << 20)
        self.book = ClaimBook(
            store, PidfdWatch(), bus, time.monotonic, worker_hung=lambda _: None, worker_pid=lambda _: None
        )
        self.book.listen(NoRooms())
        self.workers = WorkerReconciler(
            self.host,
            self.book,
            self.wishes,
            DeathEvidence(self.host, str),
            bus,
            time.monotonic,
            random=lambda: 0.5,
            livekit_up=lambda: self.livekit_up,
        )

    def configure(self, *specs: ProcessSpec, **policy: object) -> None:
        self.workers.configure(agents(specs, **policy))

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Until the block ends; what runs is left alone then, as by a daemon that is killed."""
        task = asyncio.create_task(self.workers.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def told(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]


def agents(specs: Iterable[ProcessSpec], **policy: object) -> list[AgentSpec]:
    settings = replace(POLICY, **policy)  # type: ignore[arg-type]
    return [AgentSpec(spec.id, "", (), 0, settings, spec) for spec in specs]
