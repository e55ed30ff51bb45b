"""What goes wrong between LiveKit and us: calls that fail, webhooks that do not come as they should."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from tests.simulation.model_facts import WEBHOOK_MAX_AGE, WEBHOOK_SECONDS


class Fault(StrEnum):
    TIMEOUT = "timeout"
    """The request is lost."""
    ANSWER_LOST = "answer_lost"
    """The request is carried out; the answer never comes."""
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    """503, after 3 s."""
    UNAUTHORIZED = "unauthorized"
    ERROR = "error"
    SLOW = "slow"
    """Anything up to the time-out, then it works."""


@dataclass(frozen=True, slots=True)
class FaultWindow:
    """From ``start`` to ``end`` calls go wrong; ``methods`` empty: all of them."""

    kind: Fault
    start: float
    end: float
    probability: float = 1.0
    methods: frozenset[str] = frozenset()
    room: str = ""


@dataclass(slots=True)
class ApiFaults:
    windows: list[FaultWindow] = field(default_factory=list)
    once: list[tuple[str, Fault]] = field(default_factory=list)
    """Method and what befalls its next call."""
    stale: float = 0.0
    """Share of ``list_participants`` that read an old state."""

    def pick(self, method: str, room: str, now: float, rng: random.Random) -> Fault | None:
        for number, (name, kind) in enumerate(self.once):
            if name == method:
                del self.once[number]
                return kind
        self.windows = [w for w in self.windows if w.end > now]
        for window in self.windows:
            hit = window.start <= now and (not window.methods or method in window.methods)
            if hit and window.room in ("", room) and rng.random() < window.probability:
                return window.kind
        return None


@dataclass(slots=True)
class WebhookFaults:
    """Shares of webhooks that are lost, doubled, or late (and so out of order)."""

    lost: float = 0.0
    doubled: float = 0.0
    late: float = 0.0


class WebhookCourier:
    """Brings the names of rooms in which something has happened."""

    def __init__(
        self, rng: random.Random, faults: WebhookFaults, deliver: Callable[[str, str, str], None]
    ) -> None:
        self._rng = rng
        self._faults = faults
        self._deliver = deliver
        self._on_the_way: set[asyncio.TimerHandle] = set()

    def send(self, event: str, room: str, sid: str) -> None:
        if self._rng.random() < self._faults.lost:
            return
        self._send_after(self._delay(), event, room, sid)
        if self._rng.random() < self._faults.doubled:
            self._send_after(self._delay(), event, room, sid)

    def lose_all(self) -> None:
        """The server keeps them in memory only, and has crashed."""
        for handle in self._on_the_way:
            handle.cancel()
        self._on_the_way.clear()

    def _delay(self) -> float:
        if self._rng.random() < self._faults.late:
            return self._rng.uniform(0.0, WEBHOOK_MAX_AGE)
        return self._rng.uniform(*WEBHOOK_SECONDS)

    def _send_after(self, seconds: float, event: str, room: str, sid: str) -> None:
        def arrive() -> None:
            self._on_the_way.discard(handle)
            self._deliver(event, room, sid)

        handle = asyncio.get_running_loop().call_later(seconds, arrive)
        self._on_the_way.add(handle)
