"""The facts that decisions are made from, as immutable values.

One rule: a read that failed is :class:`Unknown`, never an empty collection.  Whoever needs the
participants of a room has to say what happens when they are not known.

Times: ``*_at`` and ``now`` are seconds of the monotonic clock unless the name ends in ``_ms``
(LiveKit's Unix milliseconds) or says ``wall`` (Unix seconds).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

ATTRIBUTE_AGENT_ID = "supervisor.agent_id"
"""Participant attribute set by the guard: which configured agent this participant is."""

ATTRIBUTE_INSTANCE = "supervisor.instance"
"""Participant attribute set by the guard: which supervisor (state directory) owns it."""

ATTRIBUTE_AGENT_NAME = "lk.agent_name"
"""Participant attribute set by livekit-agents 1.x on accept and by the server."""

ATTRIBUTE_PUBLISH_ON_BEHALF = "lk.publish_on_behalf"
"""Present on avatar workers: of kind AGENT, yet no agent of their own."""

DEFAULT_IDENTITY_PREFIX = "agent-"
"""``JobRequest.accept()`` names its participant ``agent-<job id>`` unless the script says otherwise."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A read that failed.  ``reason`` is for people; there is nothing else to know."""

    reason: str


class ParticipantKind(StrEnum):
    """LiveKit's ``ParticipantInfo.Kind``."""

    STANDARD = "standard"
    INGRESS = "ingress"
    EGRESS = "egress"
    SIP = "sip"
    AGENT = "agent"
    CONNECTOR = "connector"
    BRIDGE = "bridge"


HUMAN_KINDS = frozenset({ParticipantKind.STANDARD, ParticipantKind.SIP, ParticipantKind.CONNECTOR})


@dataclass(frozen=True, slots=True)
class Participant:
    """One entry of LiveKit's ``ListParticipants``; entries in state DISCONNECTED are left out."""

    identity: str
    sid: str
    kind: ParticipantKind
    joined_at_ms: int
    has_track: bool = False
    attributes: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_human(self) -> bool:
        return self.kind in HUMAN_KINDS

    @property
    def is_avatar(self) -> bool:
        return ATTRIBUTE_PUBLISH_ON_BEHALF in self.attributes

    @property
    def is_agent(self) -> bool:
        """An agent in its own right: of kind AGENT, and no avatar."""
        return self.kind is ParticipantKind.AGENT and not self.is_avatar

    @property
    def agent_name(self) -> str:
        """LiveKit's agent name; ``""`` for an unnamed worker's agent."""
        return self.attributes.get(ATTRIBUTE_AGENT_NAME) or self.attributes.get("lk.agent.name", "")

    @property
    def agent_id(self) -> str | None:
        return self.attributes.get(ATTRIBUTE_AGENT_ID)

    @property
    def instance(self) -> str | None:
        return self.attributes.get(ATTRIBUTE_INSTANCE)


@dataclass(frozen=True, slots=True)
class Dispatch:
    """LiveKit's request for an agent in a room.

    ``job_ids`` lists the jobs that were ever assigned; their listed state proves nothing about life,
    so it is not read.  No job means that no worker ever took it.
    """

    id: str
    agent_name: str
    room: str
    job_ids: tuple[str, ...] = ()
    metadata: str = ""
    created_at_ms: int = 0

    @property
    def identities(self) -> frozenset[str]:
        """Participants that it brings, as long as the script keeps LiveKit's own identities."""
        return frozenset(f"agent-{job}" for job in self.job_ids)


@dataclass(frozen=True, slots=True)
class Room:
    """One entry of LiveKit's ``ListRooms``."""

    name: str
    sid: str
    num_participants: int = 0
    """Agents left out, and up to 5 s behind: good for choosing what to read, never for deciding."""
    departure_timeout: int = 20


class RecoveryCause(StrEnum):
    """What a recovery is blamed on."""

    WORKER_DEATH = "worker_death"
    JOB_DEATH = "job_death"
    HUNG_JOB = "hung_job"
    LIVEKIT_RESTART = "livekit_restart"
    LOST_DISPATCH = "lost_dispatch"
    OTHER = "other"


class ClaimOutcome(StrEnum):
    """How a job request was answered."""

    GRANTED = "granted"
    HELD = "held"
    FULL = "full"
    DRAINING = "draining"
    ERROR = "error"


class RoomState(StrEnum):
    """A metric label and what ``rooms`` shows."""

    HEALTHY = "healthy"
    MISSING_AGENT = "missing_agent"
    CONFLICT = "conflict"
    EMPTY = "empty"
    UNKNOWN = "unknown"


class ClaimState(StrEnum):
    PENDING = "pending"
    """Granted to a job request; no job has connected yet."""
    LIVE = "live"
    """Held by a job's own connection."""


@dataclass(frozen=True, slots=True)
class Claim:
    """This job of this agent holds this room."""

    room: str
    agent_id: str
    job_id: str
    epoch: int
    state: ClaimState
    expires_at: float
    identity: str
    """The participant identity the job joins with."""
    dispatch_id: str = ""
    job_pid: int = 0
    """0 while pending."""
    joined: bool = False
    """The job has reported that it is in the room, at least once."""
    since: float = 0.0


class JobDeath(StrEnum):
    """Why a job is known to be dead; also what a recovery is blamed on."""

    WORKER_DEATH = "worker_death"
    JOB_DEATH = "job_death"
    HUNG_JOB = "hung_job"


@dataclass(frozen=True, slots=True)
class DeadJob:
    """A job that is known to be over: its participant, if listed, is a ghost, and its dispatch is spent."""

    job_id: str
    identity: str
    agent_id: str
    room: str
    cause: JobDeath | None
    """None: it ended in good order and by itself."""
    died_at: float
    dispatch_id: str = ""
    left: bool = False
    """It said goodbye when it had left the room."""
    failed: bool = False
    """Since its models had: the next one may fare no better."""


@dataclass(frozen=True, slots=True)
class AgentView:
    """What the room plan needs to know about one configured agent, in configuration order."""

    id: str
    name: str | None
    """LiveKit's agent name; None while the script's own name is not yet known."""
    rooms: tuple[str, ...]
    """Room-name patterns (fnmatch) it serves where nothing else was dispatched."""
    ready: bool
    """Registered with LiveKit, and not draining."""
    ready_since: float | None = None
    reason: str = ""
    """Why it is not ready, for people."""
    full: bool = False
    """At ``max_rooms``."""
