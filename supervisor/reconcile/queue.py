"""A queue of keys: a key is handled by one task at a time, and once more if it was added meanwhile.

After client-go's work queue: *dirty* keys are waiting or to be handled again, keys in *work* are being
handled.  Adding is idempotent, so a thousand webhooks about one room cost one look, or two.

A key that was *late* the last time waits where it keeps no other waiting: behind all of them, and only a few
of its kind are in work at a time.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
from collections import deque
from collections.abc import Awaitable, Callable
from enum import IntEnum

from supervisor.core.backoff import BackoffPolicy, delay
from supervisor.events import EventBus, InternalError, Loop, LoopOutcome, Reconciled

RETRY = BackoffPolicy(initial=0.2, factor=2.0, max=15.0, jitter=0.2)

Handler = Callable[[str], Awaitable[float | None]]
"""Handles one key; returns the monotonic time of its next look, or None."""


class Requeue(Exception):
    """Raised by a handler that could not read the truth: try the key again, later and later."""


class Late(Requeue):
    """Raised by a handler whose key keeps others waiting: its next turn is among those that are late."""


class Lane(IntEnum):
    """Whose turn it is first."""

    FIRST = 0
    NEXT = 1
    LATE = 2


LATE_AT_A_TIME = 16
"""Late keys in work: each may take seconds, and there may be thousands, for ever."""

_ORDER = (Lane.FIRST, Lane.NEXT, Lane.LATE)
_ORDERS = (
    *(_ORDER, _ORDER, _ORDER, (Lane.NEXT, Lane.FIRST, Lane.LATE)),
    *(_ORDER, _ORDER, _ORDER, (Lane.LATE, Lane.NEXT, Lane.FIRST)),
)
"""Taken in turn, so that however many come first, others come as well."""


class KeyedQueue:
    """Keys waiting for their handler, now or at a time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ready: dict[Lane, deque[str]] = {lane: deque() for lane in Lane}
        """A key that has moved up is left behind in its old lane, and passed over there."""
        self._dirty: dict[str, Lane] = {}
        self._work: dict[str, Lane] = {}
        self._late: set[str] = set()
        self._late_in_work = 0
        self._taken = 0
        self._timed: list[tuple[float, int, str]] = []
        self._due: dict[str, float] = {}
        self._count = itertools.count()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = math.inf

    def add(self, key: str, *, first: bool = False) -> None:
        """Handle this key soon; ``first``: before all others, though it may have been late."""
        self._due.pop(key, None)
        lane = Lane.FIRST if first else Lane.LATE if key in self._late else Lane.NEXT
        if self._dirty.get(key, len(Lane)) <= lane:
            return
        self._dirty[key] = lane
        if key not in self._work:
            self._ready[lane].append(key)
            self._wake_one()

    def add_at(self, key: str, when: float) -> None:
        """Handle this key at ``when`` (monotonic), unless it is due earlier anyway."""
        if key in self._dirty or self._due.get(key, float("inf")) <= when:
            return
        self._due[key] = when
        heapq.heappush(self._timed, (when, next(self._count), key))
        self._promote()

    async def get(self) -> str:
        """The next key, taken into work; :meth:`done` must follow."""
        self._promote()
        while (key := self._take()) is None:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if not waiter.cancelled():
                    self._wake_one()  # the key that it was woken for is somebody else's now
                raise
        return key

    def _take(self) -> str | None:
        for lane in _ORDERS[self._taken % len(_ORDERS)]:
            ready = self._ready[lane]
            while ready and (lane is not Lane.LATE or self._late_in_work < LATE_AT_A_TIME):
                key = ready.popleft()
                if self._dirty.get(key) is lane and key not in self._work:
                    self._work[key] = self._dirty.pop(key)
                    self._late_in_work += lane is Lane.LATE
                    self._taken += 1
                    return key
        return None

    def _wake_one(self) -> None:
        """One key, one of those who wait; the others sleep on."""
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def done(self, key: str) -> None:
        """The key's handler has returned; handle it again if it was added meanwhile."""
        was = self._work.pop(key, None)
        self._late_in_work -= was is Lane.LATE
        lane = self._dirty.get(key)
        if lane is not None:
            self._ready[lane].append(key)
        if lane is not None or (was is Lane.LATE and self._ready[Lane.LATE]):
            self._wake_one()

    def set_late(self, key: str, late: bool) -> None:
        """Whether its truth is slow to come by: from its next turn on it waits with its like."""
        if late:
            self._late.add(key)
        else:
            self._late.discard(key)

    def is_late(self, key: str) -> bool:
        return key in self._late

    def forget(self, key: str) -> None:
        """No timed look at this key any more."""
        self._due.pop(key, None)

    @property
    def waiting(self) -> int:
        """Keys that nobody has taken yet; where the loop turns, there are none for long."""
        return len(self._dirty.keys() - self._work.keys())

    def __len__(self) -> int:
        return len(self._dirty) + len(self._work)

    def _promote(self) -> None:
        """Make ready what is due, and come back when the next is."""
        now = self._clock()
        while self._timed and self._timed[0][0] <= now:
            when, _, key = heapq.heappop(self._timed)
            if self._due.get(key) == when:
                self.add(key)
        if not self._timed or self._alarm_at <= self._timed[0][0]:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = self._timed[0][0]
        self._alarm = asyncio.get_running_loop().call_later(self._alarm_at - now, self._on_alarm)

    def _on_alarm(self) -> None:
        self._alarm, self._alarm_at = None, math.inf
        self._promote()

    def close(self) -> None:
        """No timed key comes any more."""
        if self._alarm is not None:
            self._alarm.cancel()


class Reconciler:
    """Runs a handler over a queue's keys with bounded concurrency, and tries failed keys again."""

    def __init__(
        self,
        loop: Loop,
        handler: Handler,
        bus: EventBus,
        clock: Callable[[], float],
        *,
        concurrency: int,
        random: Callable[[], float],
    ) -> None:
        self.queue = KeyedQueue(clock)
        self._loop = loop
        self._handler = handler
        self._bus = bus
        self._clock = clock
        self._random = random
        self._concurrency = concurrency
        self._failures: dict[str, int] = {}

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for number in range(self._concurrency):
                    group.create_task(self._work(), name=f"{self._loop}-{number}")
        finally:
            self.queue.close()

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                await self._handle(key)
            finally:
                self.queue.done(key)

    async def _handle(self, key: str) -> None:
        started = self._clock()
        outcome = LoopOutcome.OK
        try:
            look_at = await self._handler(key)
        except Late:
            outcome = LoopOutcome.REQUEUED
            self.queue.set_late(key, True)
            self.queue.add(key)
        except Requeue:
            outcome = LoopOutcome.REQUEUED
            self._retry(key)
        except (
            Exception
        ) as error:  # the one place where a defect in a handler is caught: it must not end the loop
            outcome = LoopOutcome.FAILED
            self._bus.publish(InternalError.of(f"reconcile {self._loop}", error))
            self._retry(key)
        else:
            self._failures.pop(key, None)
            if look_at is not None:
                self.queue.add_at(key, look_at)
        self._bus.publish(
            Reconciled(loop=self._loop, outcome=outcome, seconds=max(0.0, self._clock() - started))
        )

    def _retry(self, key: str) -> None:
        failures = self._failures.get(key, 0) + 1
        self._failures[key] = failures
        self.queue.add_at(key, self._clock() + delay(RETRY, failures, self._random()))
