"""The messages of guard protocol version 1, as types (docs/protocol.md).

One rule: a message from the daemon is taken only when every field that is read has its type; unknown
fields and unknown messages are passed over, so that both may be added without a new version.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import ClassVar, Union

VERSION = 1

_MAX_FLOAT = sys.float_info.max


class MessageError(Exception):
    """A message of a known type with a field that cannot be right."""


# --- guard to daemon ------------------------------------------------------------------------------


@dataclass(frozen=True)
class WorkerHello:
    type: ClassVar[str] = "hello"
    agent_id: str
    guard: str
    agents: str
    executor: str
    max_load: float | None
    role: str = "worker"
    v: int = VERSION


@dataclass(frozen=True)
class JobHello:
    type: ClassVar[str] = "hello"
    agent_id: str
    guard: str
    agents: str
    executor: str
    room: str
    job_id: str
    dispatch_id: str
    identity: str
    epoch: int | None
    joined: bool
    over: bool = False
    """It has lost its room for good; what the script does at its end may take minutes."""
    role: str = "job"
    v: int = VERSION


@dataclass(frozen=True)
class Registered:
    type: ClassVar[str] = "registered"
    worker_id: str
    agent_name: str
    http_port: int


@dataclass(frozen=True)
class Unregistered:
    type: ClassVar[str] = "unregistered"
    error: str


@dataclass(frozen=True)
class Request:
    type: ClassVar[str] = "request"
    id: int
    room: str
    room_sid: str
    job_id: str
    dispatch_id: str
    agent_name: str
    identity: str


@dataclass(frozen=True)
class RunningJob:
    job_id: str
    room: str
    dispatch_id: str
    identity: str
    pid: int


@dataclass(frozen=True)
class Jobs:
    type: ClassVar[str] = "jobs"
    jobs: tuple[RunningJob, ...]


@dataclass(frozen=True)
class Abandon:
    type: ClassVar[str] = "abandon"
    job_id: str
    reason: str


@dataclass(frozen=True)
class Heartbeat:
    type: ClassVar[str] = "heartbeat"
    jobs: int
    late: float
    draining: bool = False
    """LiveKit's own drain has begun, as it does on SIGTERM, whoever sent that."""


@dataclass(frozen=True)
class Joined:
    type: ClassVar[str] = "joined"
    identity: str
    sid: str


@dataclass(frozen=True)
class Census:
    type: ClassVar[str] = "census"
    agents: tuple[str, ...]
    humans: int


@dataclass(frozen=True)
class Report:
    type: ClassVar[str] = "report"
    report: str
    detail: str = ""
    identity: str = ""
    room: str = ""
    job_id: str = ""


@dataclass(frozen=True)
class Failed:
    type: ClassVar[str] = "failed"
    reason: str


@dataclass(frozen=True)
class Goodbye:
    type: ClassVar[str] = "goodbye"
    reason: str


Hello = Union[WorkerHello, JobHello]  # noqa: UP007
ToDaemon = Union[  # noqa: UP007
    Hello,
    Registered,
    Unregistered,
    Request,
    Jobs,
    Abandon,
    Heartbeat,
    Joined,
    Census,
    Report,
    Failed,
    Goodbye,
]


MAX_TEXT = 1024
"""Characters that the daemon takes in one field; reasons made of other programs' errors may be longer."""


def to_wire(message: ToDaemon) -> dict[str, object]:
    fields = {k: v[:MAX_TEXT] if isinstance(v, str) else v for k, v in asdict(message).items()}
    return {"type": message.type, **fields}


# --- daemon to guard ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Welcome:
    type: ClassVar[str] = "welcome"
    instance: str = ""
    heartbeat_interval: float | None = None
    human_return_grace: float | None = None
    epoch: int | None = None
    hold: bool = True


@dataclass(frozen=True)
class Refused:
    type: ClassVar[str] = "refused"
    reason: str = ""


@dataclass(frozen=True)
class Answer:
    type: ClassVar[str] = "answer"
    id: int
    outcome: str
    terminate: bool = False
    epoch: int | None = None
    holder: str = ""


@dataclass(frozen=True)
class Drain:
    type: ClassVar[str] = "drain"
    timeout: float | None = None


@dataclass(frozen=True)
class Resume:
    type: ClassVar[str] = "resume"


@dataclass(frozen=True)
class Leave:
    type: ClassVar[str] = "leave"
    reason: str = ""
    epoch: int | None = None


@dataclass(frozen=True)
class Reset:
    type: ClassVar[str] = "reset"


ToGuard = Union[Welcome, Refused, Answer, Drain, Resume, Leave, Reset]  # noqa: UP007


def parse(wire: Mapping[str, object]) -> ToGuard | None:
    """The message, or None for a type that this version does not know."""
    kind = wire.get("type")
    if not isinstance(kind, str):
        raise MessageError("no type")
    read = _Reader(wire, kind)
    if kind == "welcome":
        return _welcome(read)
    if kind == "refused":
        return Refused(reason=read.text("reason"))
    if kind == "answer":
        return Answer(
            id=read.required_integer("id"),
            outcome=read.text("outcome"),
            terminate=read.flag("terminate", False),
            epoch=read.integer("epoch"),
            holder=read.text("holder"),
        )
    if kind == "drain":
        return Drain(timeout=read.number("timeout"))
    if kind == "resume":
        return Resume()
    if kind == "leave":
        return Leave(reason=read.text("reason"), epoch=read.integer("epoch"))
    if kind == "reset":
        return Reset()
    return None


def _welcome(read: _Reader) -> Welcome:
    heartbeat = read.wire.get("heartbeat")
    beats = _Reader(heartbeat, "welcome.heartbeat") if isinstance(heartbeat, dict) else None
    return Welcome(
        instance=read.text("instance"),
        heartbeat_interval=beats.number("interval") if beats else None,
        human_return_grace=read.number("human_return_grace"),
        epoch=read.integer("epoch"),
        hold=read.flag("hold", True),
    )


@dataclass(frozen=True)
class _Reader:
    wire: Mapping[str, object]
    kind: str = field(default="")

    def text(self, name: str) -> str:
        value = self.wire.get(name)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise self._wrong(name, "text")
        return value

    def flag(self, name: str, default: bool) -> bool:
        value = self.wire.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self._wrong(name, "true or false")
        return value

    def integer(self, name: str) -> int | None:
        value = self.wire.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(name, "an integer")
        return value

    def required_integer(self, name: str) -> int:
        value = self.integer(name)
        if value is None:
            raise self._wrong(name, "an integer")
        return value

    def number(self, name: str) -> float | None:
        value = self.wire.get(name)
        if value is None:
            return None
        # NaN fails every comparison, and a whole number may be larger than any that a clock takes.
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= _MAX_FLOAT:
            raise self._wrong(name, "a number that is not negative")
        return float(value)

    def _wrong(self, name: str, what: str) -> MessageError:
        return MessageError(f"{self.kind}: {name} must be {what}")
