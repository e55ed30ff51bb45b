"""A key is handled by one task at a time, and once more if it was added meanwhile."""

from __future__ import annotations

import asyncio
from collections import Counter

from supervisor.events import Event, EventBus, InternalError, Loop, LoopOutcome, Reconciled
from supervisor.reconcile.queue import LATE_AT_A_TIME, RETRY, KeyedQueue, Late, Reconciler, Requeue


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_adding_twice_is_handled_once() -> None:
    queue = KeyedQueue(Clock())
    queue.add("a")
    queue.add("a")
    queue.add("b")
    assert [await queue.get(), await queue.get()] == ["a", "b"]
    assert len(queue) == 2
    queue.done("a")
    queue.done("b")
    assert len(queue) == 0


async def test_added_while_in_work_is_handled_once_more_and_not_at_once() -> None:
    queue = KeyedQueue(Clock())
    queue.add("a")
    assert await queue.get() == "a"
    queue.add("a")
    queue.add("a")
    waiting = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.done("a")
    assert await waiting == "a"
    queue.done("a")
    assert len(queue) == 0


async def test_a_timed_key_comes_when_it_is_due_and_the_earliest_time_counts() -> None:
    clock = Clock()
    queue = KeyedQueue(clock)
    queue.add_at("a", 105.0)
    queue.add_at("a", 103.0)
    queue.add_at("a", 110.0)
    clock.now = 102.9
    waiting = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done()
    clock.now = 103.0
    queue.add_at("b", 200.0)  # any change makes it look again
    assert await waiting == "a"
    queue.done("a")
    clock.now = 110.0
    rest = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    assert not rest.done()
    rest.cancel()
    await asyncio.gather(rest, return_exceptions=True)


async def test_an_added_key_drops_its_later_time() -> None:
    clock = Clock()
    queue = KeyedQueue(clock)
    queue.add_at("a", 101.0)
    queue.add("a")
    assert await queue.get() == "a"
    queue.done("a")
    clock.now = 102.0
    rest = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    assert not rest.done()
    rest.cancel()
    await asyncio.gather(rest, return_exceptions=True)


async def test_what_was_late_comes_after_all_others_and_only_a_few_at_a_time() -> None:
    queue = KeyedQueue(Clock())
    late = [f"late {number}" for number in range(LATE_AT_A_TIME + 2)]
    for key in late:
        queue.set_late(key, True)
        queue.add(key)
    queue.add("prompt")
    assert await queue.get() == "prompt"
    assert [await queue.get() for _ in range(LATE_AT_A_TIME)] == late[:-2]
    assert queue.waiting == 2
    waiting = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    assert not waiting.done(), "there is room for others only"
    queue.add("another")
    assert await waiting == "another"
    waiting = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    queue.done(late[0])
    assert await waiting == late[-2]


async def test_a_late_key_that_comes_first_waits_for_nobody_and_is_handled_once() -> None:
    queue = KeyedQueue(Clock())
    queue.set_late("a", True)
    for key in ("a", "b", "c"):
        queue.add(key)
    queue.add("a", first=True)
    queue.add("c", first=True)
    assert [await queue.get() for _ in range(3)] == ["a", "c", "b"]
    assert queue.waiting == 0
    queue.set_late("a", False)
    queue.add("a")
    for key in ("a", "b", "c"):
        queue.done(key)
    assert await queue.get() == "a"
    rest = asyncio.ensure_future(queue.get())
    await asyncio.sleep(0)
    assert not rest.done(), "what it has left behind in other lanes is nothing"
    rest.cancel()
    await asyncio.gather(rest, return_exceptions=True)


async def test_however_many_come_first_others_come_too() -> None:
    queue = KeyedQueue(Clock())
    for number in range(20):
        queue.add(f"first {number}", first=True)
    queue.add("patient")
    assert "patient" in [await queue.get() for _ in range(4)]


class Probe:
    """A handler that fails as it is told, and knows how often it was in two places at once."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.inside: Counter[str] = Counter()
        self.overlaps = 0
        self.failures: list[Exception] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.seen: dict[str, asyncio.Event] = {}

    async def __call__(self, key: str) -> float | None:
        self.inside[key] += 1
        self.overlaps += self.inside[key] > 1
        try:
            await self.gate.wait()
            await asyncio.sleep(0)
        finally:
            self.inside[key] -= 1
        self.calls[key] += 1
        self.seen.setdefault(key, asyncio.Event()).set()
        if self.failures:
            raise self.failures.pop(0)
        return None

    async def called(self, key: str, times: int) -> None:
        async with asyncio.timeout(5):
            while self.calls[key] < times:
                event = self.seen.setdefault(key, asyncio.Event())
                event.clear()
                await event.wait()


def reconciler(handler: Probe, events: list[Event]) -> Reconciler:
    bus = EventBus()
    bus.subscribe(events.append)
    clock = asyncio.get_running_loop().time
    return Reconciler(Loop.ROOMS, handler, bus, clock, concurrency=8, random=lambda: 0.5)


async def stop(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_never_two_at_once_for_a_key_and_nothing_is_lost() -> None:
    probe, events = Probe(), list[Event]()
    subject = reconciler(probe, events)
    task = asyncio.create_task(subject.run())
    for round_ in range(50):
        for key in ("a", "b", "c"):
            subject.queue.add(key)
        if round_ % 7 == 0:
            await asyncio.sleep(0)
    before = probe.calls["a"]
    subject.queue.add("a")
    await probe.called("a", before + 1)
    await stop(task)
    assert probe.overlaps == 0
    assert set(probe.calls) == {"a", "b", "c"}


async def test_a_late_key_has_its_turn_again_at_once_and_no_failure_is_counted() -> None:
    probe, events = Probe(), list[Event]()
    probe.failures = [Late(), Late()]
    subject = reconciler(probe, events)
    task = asyncio.create_task(subject.run())
    started = asyncio.get_running_loop().time()
    subject.queue.add("a")
    await probe.called("a", 3)
    assert asyncio.get_running_loop().time() - started < RETRY.initial
    assert subject.queue.is_late("a")
    await stop(task)
    outcomes = [e.outcome for e in events if isinstance(e, Reconciled)]
    assert outcomes[:2] == [LoopOutcome.REQUEUED, LoopOutcome.REQUEUED]


async def test_a_failed_key_is_tried_again_and_told_of() -> None:
    probe, events = Probe(), list[Event]()
    probe.failures = [Requeue(), ValueError("defect")]
    subject = reconciler(probe, events)
    task = asyncio.create_task(subject.run())
    subject.queue.add("a")
    await probe.called("a", 3)
    await stop(task)
    outcomes = [e.outcome for e in events if isinstance(e, Reconciled)]
    assert outcomes[:2] == [LoopOutcome.REQUEUED, LoopOutcome.FAILED]
    assert [e.error for e in events if isinstance(e, InternalError)] == ["ValueError: defect"]
