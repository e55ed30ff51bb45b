"""A resync's look at a room that was quiet: one read, its participants, where a whole look takes two.

The rule: a glance can only find that all is still well.  Anything else is looked at wholly, and nothing is
ever done on a glance.  Dispatches change without an event, so every few looks they are read anyway.
"""

from __future__ import annotations

from dataclasses import dataclass

from supervisor.core.model import Claim, Dispatch, Participant, RoomState, Unknown
from supervisor.core.room import Decision

GLANCES = 7
"""In a row, until dispatches are read again: a forgotten one in a healthy room waits for eight resyncs."""

_QUIET = frozenset({RoomState.HEALTHY, RoomState.EMPTY})


@dataclass(slots=True)
class Glance:
    """What is remembered of a room's last whole look, if that found it quiet.

    Hashes, where equality is all that is asked: rooms come by the ten thousand.
    """

    dispatches: tuple[Dispatch, ...] | None = None
    """None: the next look must be a whole one."""
    present: int = 0
    """Who is there."""
    scene: int = 0
    """All that a decision was made from, but for the dispatches and the time."""
    left: int = 0

    def note(
        self,
        participants: tuple[Participant, ...] | Unknown,
        dispatches: tuple[Dispatch, ...] | Unknown,
        claim: Claim | None,
        decision: Decision,
    ) -> None:
        """After a whole look."""
        self.dispatches = None
        if isinstance(participants, Unknown) or isinstance(dispatches, Unknown) or not is_quiet(decision):
            return
        self.dispatches, self.left = dispatches, GLANCES
        self.present, self.scene = _present(participants), _scene(participants, claim)

    @property
    def may_do(self) -> bool:
        return self.dispatches is not None and self.left > 0

    def is_unchanged(self, participants: tuple[Participant, ...] | Unknown, claim: Claim | None) -> bool:
        """Whether the last decision still stands: it was to do nothing, and named no time to look again."""
        if not self.may_do or isinstance(participants, Unknown):
            return False
        if _scene(participants, claim) != self.scene:
            return False
        self.left -= 1
        return True

    def take(
        self, participants: tuple[Participant, ...] | Unknown, claim: Claim | None
    ) -> tuple[Dispatch, ...] | None:
        """The dispatches to decide with, since the same participants are there; None: they must be read."""
        if not self.may_do or isinstance(participants, Unknown) or _present(participants) != self.present:
            return None
        self.left -= 1
        self.scene = _scene(participants, claim)
        return self.dispatches


def is_quiet(decision: Decision) -> bool:
    return (
        decision.ours
        and decision.state in _QUIET
        and not (decision.actions or decision.conflicts or decision.arrived or decision.recovery)
        and decision.look_at is None
    )


def _present(participants: tuple[Participant, ...]) -> int:
    return hash(frozenset(participant.sid for participant in participants))


def _scene(participants: tuple[Participant, ...], claim: Claim | None) -> int:
    """Attributes that change with every word an agent says are left out, as decisions leave them out."""
    held = claim and (claim.agent_id, claim.job_id, claim.epoch, claim.state, claim.joined, claim.identity)
    seen = frozenset(
        (p.sid, p.identity, p.kind, p.has_track, p.is_avatar, p.agent_name, p.agent_id, p.instance)
        for p in participants
    )
    return hash((held, seen))
