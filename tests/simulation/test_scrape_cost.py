"""A scrape asks the same of the daemon for no room and for a thousand: steps are counted, not timed."""

from __future__ import annotations

import gc
import random
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from supervisor.core.claims import JobArrival, JobRequest
from supervisor.daemon.gauges import Gauges
from supervisor.events import EventBus
from supervisor.metrics import Metrics
from supervisor.metrics.catalogue import PREFIX
from tests.simulation.model_workers import DaemonAway, ModelWorker
from tests.simulation.model_world import World
from tests.simulation.sim_daemon import Disk, SimDaemon
from tests.simulation.virtual_time import run

AGENTS = 10
ROOMS = 1_000


def steps(work: Callable[[], object]) -> int:
    """Lines of Python that it takes; those of the garbage collector's callbacks are not its own."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    gc.disable()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
        gc.enable()
    return count


class NoLink:
    def leave(self, reason: str, epoch: int) -> None: ...

    def drain(self, timeout: float) -> None: ...


def test_no_more_steps_for_a_thousand_rooms() -> None:
    run(_scrapes())


async def _scrapes() -> None:
    world, bus = World(random.Random(1)), EventBus()
    ids = [f"agent-{n}" for n in range(AGENTS)]
    away = DaemonAway(world.server)
    workers = [ModelWorker(world.server, world.processes, world.rng, i, i, away) for i in ids]
    daemon = SimDaemon(world, workers, Disk(), bus)
    metrics = Metrics(ids)
    gauges = Gauges(metrics, daemon.reconciler, daemon.rooms, daemon.book, lambda: 0)
    await daemon.start()
    try:
        before = steps(gauges.refresh)
        pid = world.processes.spawn(lambda: None).pid
        for n in range(ROOMS):
            room, agent, job = f"room-{n}", ids[n % 4], f"job-{n}"
            daemon.book.request(JobRequest(room, agent, job, "", job), max_rooms=0, draining=False)
            arrival = JobArrival(room, agent, job, job, "", pid, None, joined=True)
            assert daemon.book.arrive(arrival, NoLink(), in_worker=False, timeout=10.0) is not None
        assert steps(gauges.refresh) == before
        for name in ("claims", "agent_active_jobs"):
            told = [metrics.registry.get_sample_value(PREFIX + name, {"agent_id": i}) for i in ids]
            assert told == [ROOMS / 4] * 4 + [0] * (AGENTS - 4)
    finally:
        await daemon.kill()
