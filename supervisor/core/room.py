"""The words in which a room is decided about: what was read, what is remembered, what is to be done.

One rule: all of it is values; what follows from them is said in :mod:`supervisor.core.room_plan`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from supervisor.core.backoff import BackoffPolicy, delay
from supervisor.core.conflicts import Conflict, ConflictKind
from supervisor.core.model import (
    AgentView,
    Claim,
    DeadJob,
    Dispatch,
    Participant,
    RecoveryCause,
    RoomState,
    Unknown,
)

RETRY = BackoffPolicy(initial=1.0, factor=2.0, max=30.0)
"""Between dispatches that brought no agent."""


@dataclass(frozen=True, slots=True)
class RoomPolicy:
    """Settings that decide; seconds."""

    missing_grace: float = 2.0
    join_timeout: float = 15.0
    reconnect_grace: float = 5.0
    ignore_agents: tuple[str, ...] = ()
    instance: str = ""
    """Our own ``supervisor.instance``."""


@dataclass(frozen=True, slots=True)
class RoomFacts:
    """All that was read, and what we hold ourselves."""

    name: str
    participants: tuple[Participant, ...] | Unknown
    dispatches: tuple[Dispatch, ...] | Unknown
    claim: Claim | None
    agents: tuple[AgentView, ...]
    livekit_since: float = 0.0
    """When LiveKit was last found to be there again after having been away."""
    age: float = 0.0
    """Seconds since the lists were asked for: what they say may be as old."""


@dataclass(frozen=True, slots=True)
class Target:
    """Which agent the room is to have; ``metadata`` is what the application gave its dispatch."""

    agent_name: str
    agent_id: str
    metadata: str = ""


@dataclass(frozen=True, slots=True)
class RoomMemory:
    """What earlier looks at the room have left: nothing here could be read anew."""

    target: Target | None = None
    seen: Mapping[str, float] = field(default_factory=dict)
    """Dispatch ID to when it was first seen."""
    refused: frozenset[str] = frozenset()
    """Dispatches whose job was refused since the room is held."""
    turned_away: tuple[Target, float] | None = None
    """Whom the last of them was for, and when; None: that is no news any more."""
    dead: tuple[DeadJob, ...] = ()
    suspects: Mapping[str, float] = field(default_factory=dict)
    """Extra agents and dispatches that no claim decides about, and since when."""
    listed: Mapping[str, float] = field(default_factory=dict)
    """SID of each agent to since when it has been listed."""
    vanished: Mapping[str, float] = field(default_factory=dict)
    """SID of each agent that was listed for longer than a list may lag, then was not: when.  SIDs never come
    back, so a list that has it again is an old one."""
    silent_since: float | None = None
    """Since when a human has been without a live agent."""
    cause: RecoveryCause | None = None
    """Why, where that is known; then nothing is waited for."""
    absent_since: float | None = None
    """Since when the claim's holder has been missing while a human was there."""
    had_agent: bool = False
    agent_at: float = 0.0
    """When a live agent was last seen; deaths before that are no reason for a silence after it."""
    agent_since: float | None = None
    """Since when there has been one; None while there is none."""
    attempts: int = 0
    """Dispatches made since there was an agent."""
    next_attempt_at: float = 0.0
    awaited: str = ""
    """Our own dispatch that has not brought its agent yet."""
    stuck: Mapping[str, float] = field(default_factory=dict)
    """Ghosts and their dispatches that LiveKit would not remove, and when that was tried last."""
    state: RoomState | None = None


@dataclass(frozen=True, slots=True)
class RemoveParticipant:
    identity: str
    kind: ConflictKind
    agent_id: str = ""

    @property
    def key(self) -> str:
        return self.identity


@dataclass(frozen=True, slots=True)
class DeleteDispatch:
    dispatch_id: str
    kind: ConflictKind
    agent_id: str = ""

    @property
    def key(self) -> str:
        return self.dispatch_id


@dataclass(frozen=True, slots=True)
class CreateDispatch:
    target: Target


@dataclass(frozen=True, slots=True)
class RevokeClaim:
    """The holder does not come back: it loses the room, is told to leave, and killed if it does not."""

    job_id: str


Action = RemoveParticipant | DeleteDispatch | CreateDispatch | RevokeClaim


@dataclass(frozen=True, slots=True)
class Recovery:
    cause: RecoveryCause
    seconds: float
    agent_id: str


@dataclass(frozen=True, slots=True)
class Decision:
    state: RoomState
    reason: str
    memory: RoomMemory
    ours: bool = True
    actions: tuple[Action, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    look_at: float | None = None
    recovery: Recovery | None = None
    arrived: str = ""
    """The awaited dispatch that has now brought its agent."""


def after_dispatch(memory: RoomMemory, dispatch_id: str | None, now: float) -> RoomMemory:
    """Memory after a dispatch was made, or tried in vain (None)."""
    attempts = memory.attempts + 1
    memory = replace(memory, attempts=attempts, next_attempt_at=now + delay(RETRY, attempts))
    if dispatch_id is None:
        return memory
    return replace(memory, awaited=dispatch_id, seen={**memory.seen, dispatch_id: now})


def after_failure(memory: RoomMemory, action: Action, now: float) -> RoomMemory:
    """Memory after LiveKit has refused, or not answered, to remove something."""
    if (
        not isinstance(action, RemoveParticipant | DeleteDispatch)
        or action.kind is not ConflictKind.GHOST_AGENT
    ):
        return memory
    return replace(memory, stuck={**memory.stuck, action.key: now})
