"""The words that the parts of the model share: who meets the server, and what they say to each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from supervisor.core.model import Dispatch, ParticipantKind


class Why(StrEnum):
    """Why a client is not in its room any more."""

    LEFT = "left"
    REMOVED = "removed"
    ROOM_CLOSED = "room_closed"
    DUPLICATE_IDENTITY = "duplicate_identity"
    TIMED_OUT = "timed_out"
    SERVER_GONE = "server_gone"


class Client(Protocol):
    """Whoever may be in a room."""

    @property
    def identity(self) -> str: ...
    @property
    def kind(self) -> ParticipantKind: ...
    @property
    def attributes(self) -> Mapping[str, str]: ...
    @property
    def alive(self) -> bool:
        """Its process lives; a dead one learns of nothing."""
        ...

    @property
    def makes_sound(self) -> bool:
        """A human in the room would hear it, were its track there."""
        ...

    def put_out(self, why: Why) -> None: ...
    def look_around(self, humans: int, agents: int) -> None:
        """Somebody came or went."""
        ...


class Verdict(StrEnum):
    """A worker's answer to the offer of a job."""

    ACCEPT = "accept"
    REJECT = "reject"
    """``terminate=True``: the job is over, with success."""
    PASS = "pass"
    """``terminate=False``: the next worker is asked."""


@dataclass(frozen=True, slots=True)
class Offer:
    job_id: str
    dispatch_id: str
    agent_name: str
    room: str
    room_sid: str
    metadata: str


class WorkerEnd(Protocol):
    """A registered worker, as the server sees it."""

    @property
    def name(self) -> str: ...
    @property
    def available(self) -> bool: ...
    def offer(self, offer: Offer, answer: Callable[[Verdict], None]) -> None: ...
    def assign(self, offer: Offer) -> None: ...
    def terminate(self, job_id: str) -> None: ...
    def server_gone(self) -> None: ...


class DispatchState(StrEnum):
    LAUNCHING = "launching"
    LOST = "lost"
    """Nobody took it; it stays listed, and nothing comes of it."""
    REJECTED = "rejected"
    ASSIGNED = "assigned"
    DELETED = "deleted"


@dataclass(slots=True)
class ModelDispatch:
    id: str
    agent_name: str
    room: str
    metadata: str
    created_at_ms: int
    state: DispatchState = DispatchState.LAUNCHING
    job_ids: list[str] = field(default_factory=list)
    worker: WorkerEnd | None = None
    listed_from: float = 0.0
    """When its jobs, which are there at once, are listed."""

    def read(self, now: float) -> Dispatch:
        job_ids = tuple(self.job_ids) if now >= self.listed_from else ()
        return Dispatch(self.id, self.agent_name, self.room, job_ids, self.metadata, self.created_at_ms)
