"""Whether a human is there, and how long the job waits for one to come back.

One rule: the time runs only while we can see that nobody is there; a connection that is down shows
nothing, and a job that still waits for its first human is never ended by it.

Who is missing after such a time was *lost* with the connection, and did not leave: the conversation goes
on where it was when they are back.  Whoever comes in their place begins a new one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from enum import Enum


class HumanState(Enum):
    AWAITED = "awaited"
    """No human has been here yet."""
    HERE = "here"
    GONE = "gone"
    """The last one left; the grace runs, or is held while the connection is down."""
    OVER = "over"
    """Nobody came back in time.  Nothing follows."""


class Presence:
    """``on_returned`` is told whom the job is for now, and whether that one was only lost."""

    def __init__(
        self,
        grace: float,
        on_gone: Callable[[], None],
        on_returned: Callable[[str, bool], None],
        on_over: Callable[[], None],
    ) -> None:
        self.grace = grace
        self.state = HumanState.AWAITED
        self._on_gone = on_gone
        self._on_returned = on_returned
        self._on_over = on_over
        self._draining = False
        self._lost = False
        self._known: frozenset[str] = frozenset()
        """The last who were here."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waits(self) -> bool:
        """A human has been here, and whoever comes back in time is waited for."""
        return self.state in (HumanState.HERE, HumanState.GONE)

    def seen(self, humans: Collection[str]) -> None:
        """The humans in the room at this moment, seen over a connection that is up."""
        if humans:
            self._somebody(humans)
        elif self.state is HumanState.HERE:
            self.state = HumanState.GONE
            self._on_gone()
            self._start()
        elif self._timer is None and (self.state is HumanState.GONE or self._awaited_while_draining()):
            self._start()

    def blind(self) -> None:
        """The connection is down: whoever is missing may only be out of sight."""
        self._lost = self._lost or self.state is HumanState.HERE
        self._stop()

    def drain(self) -> None:
        """End as soon as the human is gone; wait for a first one no longer than the grace."""
        self._draining = True
        if self.state is HumanState.GONE or self._awaited_while_draining():
            self._start()

    def end(self) -> None:
        self._stop()
        self.state = HumanState.OVER

    def _somebody(self, humans: Collection[str]) -> None:
        self._stop()
        known = [who for who in humans if who in self._known]
        missing = self._known.difference(humans)
        found, self._lost = self._lost and bool(known), False
        self._known = frozenset(humans)
        if self.state is HumanState.AWAITED:
            self.state = HumanState.HERE
        elif self.state is HumanState.GONE or (
            # Another one at once, or one of several, whom the session may not have been for.
            self.state is HumanState.HERE and (not known or (found and missing))
        ):
            self.state = HumanState.HERE
            self._on_returned(next(iter(known or humans)), found)

    def _awaited_while_draining(self) -> bool:
        return self._draining and self.state is HumanState.AWAITED

    def _start(self) -> None:
        self._stop()
        wait = 0.0 if self._draining and self.state is HumanState.GONE else self.grace
        self._timer = asyncio.get_running_loop().call_later(wait, self._over)

    def _stop(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _over(self) -> None:
        self.end()
        self._on_over()
