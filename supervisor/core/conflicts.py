"""What can be wrong, how it ends, and which agent stays when there are several."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from supervisor.core.model import Claim, Participant


class ConflictKind(StrEnum):
    DUPLICATE_PROCESS = "duplicate_process"
    DUPLICATE_REQUEST = "duplicate_request"
    DUPLICATE_DISPATCH = "duplicate_dispatch"
    DUPLICATE_AGENT = "duplicate_agent"
    FOREIGN_AGENT = "foreign_agent"
    GHOST_AGENT = "ghost_agent"
    LOST_DISPATCH = "lost_dispatch"
    MISSING_AGENT = "missing_agent"
    HUNG_JOB = "hung_job"
    TOO_MANY_ROOMS = "too_many_rooms"


class Resolution(StrEnum):
    REJECTED = "rejected"
    EVICTED = "evicted"
    TERMINATED = "terminated"
    REDISPATCHED = "redispatched"
    REPORTED = "reported"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Conflict:
    """One thing that is wrong in one room, as long as it is."""

    kind: ConflictKind
    subject: str = ""
    """What it is about: an identity, a dispatch ID, or nothing for the room itself."""
    agent_id: str = field(default="", compare=False)
    """Whom it concerns; no part of what it is, since of several agents of a name another may come to help."""


def winner(agents: tuple[Participant, ...], claim: Claim | None, configured: frozenset[str]) -> Participant:
    """Which of several agents stays in a room.

    In this order: the holder of the live claim; an agent that is configured here (``configured`` holds
    the identities of those); one with a published track; the one that joined first; the smallest identity.
    ``agents`` is not empty.
    """
    holder = claim.identity if claim is not None else None
    return min(
        agents,
        key=lambda a: (
            a.identity != holder,
            a.identity not in configured,
            not a.has_track,
            a.joined_at_ms,
            a.identity,
        ),
    )
