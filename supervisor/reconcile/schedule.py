"""What is periodic, on APScheduler: coalesced, and never twice at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from supervisor.events import EventBus, InternalError, LoopLate

TICK_SECONDS = 0.5
STEP_SECONDS = 1.0
"""A wall clock that moves by more than that against the monotonic one has been set."""
LATE_SECONDS = 1.0
"""The event loop was so late that others may have been kept waiting."""


class Schedule:
    """Periodic jobs; a job that raises is published and runs again at its next time.

    The scheduler goes by the wall clock: one that is set back would keep every job waiting for as long.
    """

    def __init__(
        self, bus: EventBus, clock: Callable[[], float], wall: Callable[[], float] = time.time
    ) -> None:
        self._bus = bus
        self._clock = clock
        self._wall = wall
        self._offset = wall() - clock()
        self._scheduler = AsyncIOScheduler(
            executors={"default": AsyncIOExecutor()},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone="UTC",
        )

    def every(self, seconds: float, name: str, job: Callable[[], Awaitable[None]]) -> None:
        async def run() -> None:
            try:
                await job()
            except Exception as error:  # a periodic job must come again, whatever its defect
                self._bus.publish(InternalError.of(name, error))

        self._scheduler.add_job(
            run,
            IntervalTrigger(seconds=seconds, timezone="UTC"),
            id=name,
            name=name,
            replace_existing=True,
        )

    def check_clock(self) -> None:
        """When the wall clock has been set, every job runs now, and from then on as often as before."""
        offset = self._wall() - self._clock()
        if abs(offset - self._offset) > STEP_SECONDS:
            for job in self._scheduler.get_jobs():
                job.modify(next_run_time=datetime.now(UTC))
            self._offset = offset

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)


async def tick(
    clock: Callable[[], float],
    bus: EventBus,
    on_tick: Callable[[], None],
    on_late: Callable[[float], None],
) -> None:
    """Call ``on_tick`` twice a second, and before it ``on_late`` with the seconds by which we were late."""
    while True:
        due = clock() + TICK_SECONDS
        await asyncio.sleep(TICK_SECONDS)
        late = clock() - due
        if late > LATE_SECONDS:
            bus.publish(LoopLate(seconds=late))
            on_late(late)
        on_tick()
