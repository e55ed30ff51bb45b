"""A resync's look at a room that was quiet: one read, its participants, where a whole look takes two.

The rule: a glance can only find that all is still well.  Anything else is looked at wholly, and nothing is
ever done on a glance.  Dispatches change without an event, so every few looks they are read anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.core.model import Dispatch, Participant, RoomState, Unknown
from supervisor.core.room_plan import Decision

GLANCES = 3
"""In a row, until dispatches are read again: a forgotten one in a healthy room waits for four resyncs."""

_QUIET = frozenset({RoomState.HEALTHY, RoomState.EMPTY})


@dataclass(slots=True)
class Glance:
    """What is remembered of a room's last whole look, if that found it quiet."""

    dispatches: tuple[Dispatch, ...] | None = None
    """None: the next look must be a whole one."""
    sids: frozenset[str] = frozenset()
    left: int = 0

    def note(
        self,
        participants: tuple[Participant, ...] | Unknown,
        dispatches: tuple[Dispatch, ...] | Unknown,
        decision: Decision,
    ) -> None:
        """After a whole look."""
        self.dispatches = None
        if isinstance(participants, Unknown) or isinstance(dispatches, Unknown) or not is_quiet(decision):
            return
        self.dispatches, self.sids, self.left = dispatches, _sids(participants), GLANCES

    @property
    def may_do(self) -> bool:
        return self.dispatches is not None and self.left > 0

    def take(self, participants: tuple[Participant, ...] | Unknown) -> tuple[Dispatch, ...] | None:
        """The dispatches to decide with, since the same participants are there; None: they must be read."""
        if not self.may_do or isinstance(participants, Unknown) or _sids(participants) != self.sids:
            return None
        self.left -= 1
        return self.dispatches


def is_quiet(decision: Decision) -> bool:
    return (
        decision.ours
        and decision.state in _QUIET
        and not (decision.actions or decision.conflicts or decision.arrived or decision.recovery)
        and decision.look_at is None
    )


def _sids(participants: tuple[Participant, ...]) -> frozenset[str]:
    return frozenset(participant.sid for participant in participants)
