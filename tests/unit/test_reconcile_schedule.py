"""What is periodic goes on when somebody sets the clock."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from supervisor.events import EventBus
from supervisor.reconcile.schedule import STEP_SECONDS, Schedule

HOUR = 3600.0


class Clocks:
    """The wall clock, against which everything is measured, can be set."""

    def __init__(self) -> None:
        self.set_by = 0.0
        self.ran = asyncio.Event()
        self.schedule = Schedule(EventBus(), time.monotonic, lambda: time.time() + self.set_by)
        self.schedule.every(HOUR, "job", self._job)

    async def _job(self) -> None:
        self.ran.set()

    def next_run(self) -> datetime:
        job = self.schedule._scheduler.get_job("job")
        assert job is not None
        due: datetime = job.next_run_time
        return due

    def set_back(self, seconds: float) -> None:
        """As it looks to the scheduler: its next time is so much further away."""
        self.set_by -= seconds
        self.schedule._scheduler.modify_job("job", next_run_time=self.next_run() + timedelta(seconds=seconds))


@pytest.fixture
async def clocks() -> AsyncIterator[Clocks]:
    clocks = Clocks()
    clocks.schedule.start()
    yield clocks
    clocks.schedule.stop()


async def test_a_clock_that_is_set_back_keeps_nothing_waiting(clocks: Clocks) -> None:
    clocks.set_back(HOUR)
    clocks.schedule.check_clock()
    async with asyncio.timeout(5):
        await clocks.ran.wait()
    assert clocks.next_run() <= datetime.now(UTC) + timedelta(seconds=HOUR)


async def test_a_clock_that_is_only_corrected_changes_nothing(clocks: Clocks) -> None:
    before = clocks.next_run()
    clocks.set_by = STEP_SECONDS / 2
    clocks.schedule.check_clock()
    assert clocks.next_run() == before
