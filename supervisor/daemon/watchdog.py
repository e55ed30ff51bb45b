"""Feeds systemd's watchdog for as long as the loops turn, and knows which do not.

One rule: a loop turns when it takes what waits for it.  Whether LiveKit answers, a worker starts or a call
succeeds has nothing to do with it: a failed look is a turn, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from supervisor.daemon.notify import Notifier
from supervisor.events import Event, EventBus, InternalError, Loop, Reconciled

PATIENCE = 60.0
"""Seconds that something may wait for a loop that finishes nothing."""

_CALLS_IN_A_LOOK = 12
"""More than the calls to LiveKit that one look at a room makes, each of which may take its whole time-out."""

_FEEDS = 4
"""Within systemd's patience: some may come late."""


class Watchdog:
    """Subscribes to :class:`Reconciled`; :meth:`tick` is called by the event loop, twice a second."""

    def __init__(
        self,
        notifier: Notifier,
        bus: EventBus,
        clock: Callable[[], float],
        waiting: Mapping[Loop, Callable[[], int]],
        *,
        call_timeout: float,
    ) -> None:
        """``waiting`` tells how much waits to be taken by each loop."""
        self._notifier = notifier
        self._bus = bus
        self._clock = clock
        self._waiting = waiting
        self._patience = max(PATIENCE, _CALLS_IN_A_LOOK * call_timeout)
        self._turned = dict.fromkeys(waiting, clock())
        self._fed = float("-inf")
        self._stuck: frozenset[Loop] = frozenset()

    @property
    def stuck(self) -> frozenset[Loop]:
        """Loops that something has been waiting for in vain, longer than patience lasts."""
        return self._stuck

    def __call__(self, event: Event) -> None:
        if isinstance(event, Reconciled) and event.loop in self._turned:
            self._turned[event.loop] = self._clock()

    def tick(self) -> None:
        now = self._clock()
        for loop, count in self._waiting.items():
            if not count():
                self._turned[loop] = now
        stuck = frozenset(loop for loop, at in self._turned.items() if now - at > self._patience)
        if stuck - self._stuck:
            names = ", ".join(sorted(stuck))
            # No event of its own: it is a defect, and systemd is about to end us.
            self._bus.publish(InternalError(where="watchdog", error=f"these loops are stuck: {names}"))
        self._stuck = stuck
        seconds = self._notifier.watchdog_seconds
        if seconds and not stuck and now - self._fed >= seconds / _FEEDS:
            self._fed = now
            self._notifier.watchdog()
