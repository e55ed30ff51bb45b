"""The JSON documents of ``--json``, ``/api/*`` and the control socket, version 1, as types.

One rule: this module only names what the documents hold; they are shown as they came.
"""

from __future__ import annotations

from typing import NotRequired, TypedDict

VERSION = 1


class Daemon(TypedDict):
    version: str
    pid: int
    since: str
    mode: str
    """``production`` or ``development``."""


class LiveKit(TypedDict):
    url: str
    up: bool
    error: str | None


class Agent(TypedDict):
    id: str
    name: str | None
    want: str
    state: str
    reason: str | None
    pid: int | None
    since: str | None
    ready: bool
    restarts: int
    jobs: int
    memory_bytes: int


class Problem(TypedDict):
    severity: str
    """``error``, ``warning`` or ``info``; the latter is not wrong."""
    agent_id: str | None
    room: str | None
    message: str
    fix: str | None


class Status(TypedDict):
    version: int
    daemon: Daemon
    livekit: LiveKit
    agents: list[Agent]
    rooms: dict[str, int]
    problems: list[Problem]


class RoomAgent(TypedDict):
    identity: str
    agent_id: str | None
    holder: bool


class Claim(TypedDict):
    agent_id: str
    job_id: str
    epoch: int


class Room(TypedDict):
    name: str
    sid: str
    state: str
    reason: str | None
    humans: int
    agents: list[RoomAgent]
    claim: Claim | None


class Rooms(TypedDict):
    version: int
    rooms: list[Room]


class Conflict(TypedDict):
    time: str
    kind: str
    resolution: str
    room: NotRequired[str | None]
    agent_id: NotRequired[str | None]
    seconds: float


class Conflicts(TypedDict):
    version: int
    conflicts: list[Conflict]
