"""Is LiveKit there?  Told by the outcome of every request, so that no question is asked twice.

The rule: one question about the server as a whole that failed is enough to say no (a LiveKit that has lost
its Redis answers 500), one good answer is enough to say yes; and coming back is an edge that wakes everything
that waited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from supervisor.core.ports import RequestOutcome
from supervisor.events import (
    Event,
    EventBus,
    LiveKitDown,
    LiveKitRequest,
    LiveKitUp,
    WorkerRegistrationLost,
)

_GOOD = frozenset({RequestOutcome.OK.value, RequestOutcome.NOT_FOUND.value})
PROBE = "list_rooms"
"""The one call that asks for the server as a whole: a 503 on a single room says nothing about it."""


class LiveKitHealth:
    """Subscribes to LiveKitRequest events; publishes LiveKitUp and LiveKitDown when it changes."""

    def __init__(
        self, url: str, bus: EventBus, clock: Callable[[], float], *, starts_until: float = 0.0
    ) -> None:
        """``starts_until``: monotonic time before which silence is no news, since it is only starting."""
        self.url = url
        self.up: bool | None = None
        """None before the first answer."""
        self.error = ""
        self.since = 0.0
        """Monotonic time at which LiveKit was last found to be back after having been away; 0: never."""
        self._bus = bus
        self._clock = clock
        self._starts_until = starts_until
        self._on_back: list[Callable[[], None]] = []
        bus.subscribe(self._on_event)

    def on_back(self, callback: Callable[[], None]) -> None:
        self._on_back.append(callback)

    def is_up(self) -> bool:
        return self.up is True

    def since_when(self) -> float:
        """As ``since``; while LiveKit is away, this moment."""
        return self._clock() if self.up is False else self.since

    def _on_event(self, event: Event) -> None:
        if not isinstance(event, LiveKitRequest):
            return
        if event.outcome in _GOOD:
            self._good()
        elif event.method == PROBE:
            self._away(event.error or event.outcome)

    def _good(self) -> None:
        if self.up:
            return
        if self.up is False:
            self.since = self._clock()
        self.up, self.error = True, ""
        self._bus.publish(LiveKitUp(url=self.url))
        for callback in self._on_back:
            callback()

    def _away(self, error: str) -> None:
        if self.up is None and self._clock() < self._starts_until:
            self.error = error
            return
        was, self.up, self.error = self.up, False, error
        if was is not False:
            self._bus.publish(LiveKitDown(url=self.url, error=error))


LOOKS, LOOK_AGAIN_SECONDS = 20, 0.1


class Doubt:
    """A worker that lives has lost its connection to LiveKit: ask LiveKit itself, at once and a few times.

    A restart may be over before the next periodic question, and would then have been nobody's fault.
    """

    def __init__(self, health: LiveKitHealth, ask: Callable[[], Awaitable[object]], bus: EventBus) -> None:
        """``ask`` puts a question whose outcome ``health`` hears of."""
        self._health = health
        self._ask = ask
        self._raised = asyncio.Event()
        bus.subscribe(self._on_event)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, WorkerRegistrationLost):
            self._raised.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._raised.wait()
            self._raised.clear()
            since = self._health.since
            for _ in range(LOOKS):
                await self._ask()
                if self._health.since != since:
                    break  # it was away, and is back
                await asyncio.sleep(LOOK_AGAIN_SECONDS)
