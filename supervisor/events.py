"""The one vocabulary of what happened.

Whoever acts publishes one event with the outcome; metrics, log lines, history and the status page are
subscribers.  An event class is a frozen dataclass; its name in snake case is its name everywhere
(``conflict_resolved``).  Room names and participant identities appear only in fields named ``room``,
``identity`` and ``holder``, so that a subscriber can hide them.
"""

from __future__ import annotations

import functools
import re
import traceback
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import IntEnum, StrEnum
from typing import ClassVar

from supervisor.core.conflicts import ConflictKind as ConflictKind
from supervisor.core.conflicts import Resolution as Resolution
from supervisor.core.model import ClaimOutcome as ClaimOutcome
from supervisor.core.model import RecoveryCause as RecoveryCause
from supervisor.core.model import RoomState as RoomState


class Level(IntEnum):
    """How much a reader should care; the numbers are those of :mod:`logging`."""

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40


class RestartReason(StrEnum):
    EXIT = "exit"
    SIGNAL = "signal"
    OOM = "oom"
    HUNG = "hung"
    STARTUP_TIMEOUT = "startup_timeout"
    MEMORY_LIMIT = "memory_limit"
    LIVEKIT_LOST = "livekit_lost"
    CONFIG = "config"
    COMMAND = "command"


class DispatchOutcome(StrEnum):
    CREATED = "created"
    JOINED = "joined"
    LOST = "lost"
    DELETED = "deleted"
    FAILED = "failed"


class WebhookOutcome(StrEnum):
    ACCEPTED = "accepted"
    REPEATED = "repeated"
    UNSIGNED = "unsigned"
    MALFORMED = "malformed"
    STALE = "stale"
    OVERSIZED = "oversized"


class Loop(StrEnum):
    WORKERS = "workers"
    ROOMS = "rooms"
    SCAN = "scan"


class LoopOutcome(StrEnum):
    OK = "ok"
    REQUEUED = "requeued"
    FAILED = "failed"


_BOUNDARY = re.compile(r"(?<!^)(?=[A-Z])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened.  ``level`` may be raised by one occurrence over its class's default."""

    level: ClassVar[Level] = Level.INFO
    message: ClassVar[str] = ""
    """The constant text of its log line; everything else is a key."""

    @classmethod
    def name(cls) -> str:
        return _snake(cls.__name__)

    def data(self) -> dict[str, object]:
        """The fields as plain values, without those that are None or empty text."""
        found: dict[str, object] = {}
        for name in _field_names(type(self)):  # a plain loop: it runs several times for each event
            value = getattr(self, name)
            if value is not None and value != "":
                found[name] = value.value if isinstance(value, StrEnum) else value
        return found


@functools.cache  # asked several times for each event, thousands of which may be published in a second
def _snake(name: str) -> str:
    return _BOUNDARY.sub("_", name.replace("LiveKit", "Livekit")).lower()


_FIELD_NAMES: dict[type[Event], tuple[str, ...]] = {}


def _field_names(event: type[Event]) -> tuple[str, ...]:
    if event not in _FIELD_NAMES:
        _FIELD_NAMES[event] = tuple(f.name for f in fields(event))
    return _FIELD_NAMES[event]


# --- the daemon -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStarted(Event):
    message = "supervisor started"
    version: str
    pid: int
    mode: str
    """``production`` or ``development``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStopping(Event):
    message = "supervisor stopping"
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStopped(Event):
    message = "supervisor stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopLate(Event):
    level = Level.WARNING
    message = "event loop was late, deadlines are suspended"
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigReloaded(Event):
    message = "configuration reloaded"
    outcome: str
    """``ok`` or ``failed``."""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalError(Event):
    level = Level.ERROR
    message = "unexpected error, will be tried again"
    where: str
    error: str
    traceback: str = ""

    @classmethod
    def of(cls, where: str, error: BaseException) -> InternalError:
        text = "".join(traceback.format_exception(error))
        return cls(where=where, error=f"{type(error).__name__}: {error}", traceback=text)


# --- workers --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpawned(Event):
    message = "worker started"
    agent_id: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpawnFailed(Event):
    level = Level.ERROR
    message = "worker could not be started"
    agent_id: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerAdopted(Event):
    message = "running worker adopted"
    agent_id: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReady(Event):
    message = "worker registered with LiveKit"
    agent_id: str
    pid: int
    worker_id: str = ""
    seconds: float | None = None
    """From start to ready; None for an adopted worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRegistrationLost(Event):
    level = Level.WARNING
    message = "worker lost its registration with LiveKit"
    agent_id: str
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerUnhealthy(Event):
    level = Level.WARNING
    message = "worker's own health endpoint complains"
    agent_id: str
    pid: int
    complaint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSignalled(Event):
    message = "worker signalled"
    agent_id: str
    pid: int
    signal: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerExited(Event):
    level = Level.WARNING
    message = "worker exited"
    agent_id: str
    pid: int
    reason: RestartReason
    exit_code: int | None = None
    signal: str = ""
    last_output: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStopped(Event):
    """It ended because it was to end, and none is to follow."""

    message = "worker stopped"
    agent_id: str
    pid: int
    exit_code: int | None = None
    signal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRestarted(Event):
    """Counted when the replacement has been started."""

    message = "worker restarted"
    agent_id: str
    reason: RestartReason


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStateChanged(Event):
    level = Level.DEBUG
    message = "worker state changed"
    agent_id: str
    old: str
    new: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainFinished(Event):
    message = "drain finished"
    agent_id: str
    outcome: str
    """``completed``, ``timeout`` or ``interrupted``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RogueFound(Event):
    level = Level.WARNING
    message = "rogue process found"
    agent_id: str
    pid: int
    action: str
    """``terminated``, ``reported`` or ``failed``."""
    reason: str = ""


# --- claims and rooms -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimDecided(Event):
    """A job request was answered.  ``duplicate rejected`` is the message of a held one."""

    message = "job request answered"
    agent_id: str
    room: str
    job_id: str
    outcome: ClaimOutcome
    holder: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomAssigned(Event):
    message = "room assigned"
    agent_id: str
    room: str
    job_id: str
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomReleased(Event):
    message = "room released"
    agent_id: str
    room: str
    job_id: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDied(Event):
    level = Level.WARNING
    message = "job died"
    agent_id: str
    room: str
    job_id: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardReport(Event):
    """What a guard tells of its job: session created, reused, reset; single agent validated."""

    message = "guard report"
    agent_id: str
    room: str = ""
    job_id: str = ""
    report: str
    identity: str = ""
    """Of the human that it is about, if it is about one."""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardPeerRefused(Event):
    level = Level.WARNING
    message = "guard connection refused"
    pid: int
    reason: str
    agent_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomStateChanged(Event):
    level = Level.DEBUG
    message = "room state changed"
    room: str
    old: str
    new: str
    """A RoomState, or ``gone``."""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConflictDetected(Event):
    level = Level.WARNING
    message = "conflict detected"
    kind: ConflictKind
    agent_id: str = ""
    room: str = ""
    identity: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConflictResolved(Event):
    message = "conflict resolved"
    kind: ConflictKind
    resolution: Resolution
    seconds: float
    agent_id: str = ""
    room: str = ""
    identity: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ParticipantRemoved(Event):
    message = "participant removed"
    room: str
    identity: str
    reason: str
    outcome: str
    """A RequestOutcome."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DispatchChanged(Event):
    message = "dispatch"
    agent_id: str
    room: str
    outcome: DispatchOutcome
    dispatch_id: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomRecovered(Event):
    message = "room has its agent again"
    room: str
    agent_id: str
    cause: RecoveryCause
    seconds: float


# --- LiveKit, webhooks, loops, store --------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitUp(Event):
    message = "LiveKit reached"
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitDown(Event):
    level = Level.ERROR
    message = "LiveKit not reached"
    url: str
    error: str


WEBHOOK_EVENTS = (
    "room_started",
    "room_finished",
    "participant_joined",
    "participant_left",
    "participant_connection_aborted",
    "track_published",
    "track_unpublished",
    "egress_started",
    "egress_updated",
    "egress_ended",
    "ingress_started",
    "ingress_ended",
)
"""LiveKit's names of events."""
OTHER_EVENT = "other"
"""For a name that is not among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveKitRequest(Event):
    level = Level.DEBUG
    message = "LiveKit request"
    method: str
    """Snake case: ``list_rooms``, ``list_participants``, …"""
    outcome: str
    seconds: float
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookReceived(Event):
    level = Level.DEBUG
    message = "webhook received"
    event: str
    """One of :data:`WEBHOOK_EVENTS`, else :data:`OTHER_EVENT`."""
    outcome: WebhookOutcome
    dropped: int = 0
    """LiveKit's ``num_dropped``: events lost before this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled(Event):
    level = Level.DEBUG
    message = "reconciled"
    loop: Loop
    outcome: LoopOutcome
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFailed(Event):
    level = Level.ERROR
    message = "the state could not be kept"
    operation: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketRestored(Event):
    level = Level.WARNING
    message = "a socket had been removed and is there again: let nothing clean paths.runtime"
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SocketMissing(Event):
    """New workers and commands do not find us; who is connected stays so."""

    level = Level.ERROR
    message = "a socket has been removed and cannot be made again"
    error: str


Subscriber = Callable[[Event], None]


class EventBus:
    """Hands each event to every subscriber, in order of subscription, at once.

    Subscribers must not block.  One that raises is a defect and is not caught: it would otherwise
    silently stop counting.
    """

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> None:
        self._subscribers.append(subscriber)

    def publish(self, event: Event) -> None:
        for subscriber in self._subscribers:
            subscriber(event)
