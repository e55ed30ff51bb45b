"""What is periodic, on APScheduler: coalesced, and never twice at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from supervisor.events import EventBus, InternalError, LoopLate

TICK_SECONDS = 0.5
LATE_SECONDS = 1.0
"""The event loop was so late that others may have been kept waiting."""


class Schedule:
    """Periodic jobs; a job that raises is published and runs again at its next time."""

    def __init__(self, bus: EventBus) -> None:
        self._bus = bus
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
