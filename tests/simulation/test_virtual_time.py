"""The virtual clock itself."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.simulation import virtual_time
from tests.simulation.virtual_time import START, Circles, Deadlock, VirtualTimeLoop


def now() -> float:
    return asyncio.get_running_loop().time()


def test_a_year_passes_at_once_and_exactly() -> None:
    async def story() -> float:
        await asyncio.sleep(365 * 24 * 3600)
        return now()

    started = time.monotonic()
    assert virtual_time.run(story()) == START + 365 * 24 * 3600
    assert time.monotonic() - started < 5


def test_timers_fire_in_order_at_their_time() -> None:
    seen: list[tuple[str, float]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((name, round(now() - START, 6)))

    async def story() -> None:
        asyncio.get_running_loop().call_later(0.2, lambda: seen.append(("timer", round(now() - START, 6))))
        await asyncio.gather(sleeper("late", 0.3), sleeper("early", 0.1), sleeper("also late", 0.3))

    virtual_time.run(story())
    assert seen == [("early", 0.1), ("timer", 0.2), ("late", 0.3), ("also late", 0.3)]


def test_timeouts_use_the_virtual_clock() -> None:
    async def story() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(10):
                await asyncio.Event().wait()
        return now()

    assert virtual_time.run(story()) == START + 10


def test_the_wall_clock_goes_along() -> None:
    async def story() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        before = loop.wall()
        await asyncio.sleep(60)
        return loop.wall() - before

    assert virtual_time.run(story()) == 60


def test_deadlock_is_told() -> None:
    async def story() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Deadlock):
        virtual_time.run(story())


def test_running_in_circles_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_time, "PATIENCE", 1_000)

    async def story() -> None:
        loop = asyncio.get_running_loop()

        def again() -> None:
            loop.call_soon(again)

        again()
        await asyncio.Event().wait()

    with pytest.raises(Circles):
        virtual_time.run(story())


def test_threads_are_refused() -> None:
    async def story() -> None:
        await asyncio.to_thread(time.sleep, 0)

    with pytest.raises(RuntimeError, match="real time"):
        virtual_time.run(story())


def test_failures_that_nobody_awaits_are_raised() -> None:
    async def fail() -> None:
        raise ValueError("unnoticed")

    async def story() -> None:
        task = asyncio.create_task(fail())
        await asyncio.sleep(1)
        del task
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(1)

    with pytest.raises(ExceptionGroup) as caught:
        virtual_time.run(story())
    assert caught.group_contains(ValueError)
    assert caught.group_contains(ZeroDivisionError)


def test_what_was_left_running_is_ended() -> None:
    ended: list[str] = []

    async def background() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("background")

    async def story() -> asyncio.Task[None]:
        task = asyncio.create_task(background())
        await asyncio.sleep(1)
        return task

    assert virtual_time.run(story()).cancelled()
    assert ended == ["background"]
