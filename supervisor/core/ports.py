"""What decisions need from the outside, as protocols: the reconcilers know no adapter by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from supervisor.core.model import Claim, Dispatch, Participant, Room, Unknown


class RequestOutcome(StrEnum):
    """How a call to LiveKit ended; a metric label."""

    OK = "ok"
    TIMEOUT = "timeout"
    UNAUTHORIZED = "unauthorized"
    NOT_FOUND = "not_found"
    UNAVAILABLE = "unavailable"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Done:
    """A write that LiveKit accepted, or found already done (``not_found``)."""

    outcome: RequestOutcome = RequestOutcome.OK


@dataclass(frozen=True, slots=True)
class Failed:
    """A write of which nobody knows whether it happened, or that was refused."""

    outcome: RequestOutcome
    message: str


class LiveKit(Protocol):
    """LiveKit's server API.  Every call has a time-out and raises nothing but cancellation.

    A room that does not exist has no participants and no dispatches: ``()``, a fact, not a failure.
    A call that timed out, was refused or answered 5xx is :class:`Unknown` or :class:`Failed`.
    """

    async def list_rooms(self) -> tuple[Room, ...] | Unknown: ...

    async def list_participants(self, room: str) -> tuple[Participant, ...] | Unknown: ...

    async def list_dispatches(self, room: str) -> tuple[Dispatch, ...] | Unknown: ...

    async def remove_participant(self, room: str, identity: str) -> Done | Failed: ...

    async def create_dispatch(self, room: str, agent_name: str, metadata: str) -> Dispatch | Failed: ...

    async def delete_dispatch(self, room: str, dispatch_id: str) -> Done | Failed: ...


class ClaimStore(Protocol):
    """Where claims outlive the daemon.  A cache: a write that fails is reported, never raised."""

    async def load_claims(self) -> Sequence[StoredClaim]: ...

    def save_claim(self, claim: StoredClaim) -> None:
        """Queue a write; returns at once."""

    def delete_claim(self, room: str) -> None:
        """Queue a delete; returns at once."""

    async def load_epoch(self) -> int:
        """The highest epoch of any claim that was ever saved, deleted ones included; 0 at first."""
        ...

    async def load_intents(self) -> Sequence[StoredIntent]: ...

    def save_intent(self, intent: StoredIntent) -> None:
        """Queue a write; returns at once.  Await :meth:`flush` before acting on what it protects."""

    def delete_intent(self, room: str) -> None:
        """Queue a delete; returns at once."""

    async def flush(self) -> bool:
        """Until everything queued so far is kept; False when it is not (failed, or too slow)."""
        ...


@dataclass(frozen=True, slots=True)
class StoredIntent:
    """Which agent was asked for in a room, kept while its dispatch is deleted and made again."""

    room: str
    agent_id: str
    metadata: str = ""


@dataclass(frozen=True, slots=True)
class StoredClaim:
    """A claim as it is kept; its times are of a clock that does not survive a restart, and mean nothing."""

    claim: Claim
    job_create_time: float
    """Of the job process, as :meth:`ProcessWatch.create_time` tells it."""


# --- processes ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """How one supervised process is started.  ``id`` names its lock, pidfile and log."""

    id: str
    argv: tuple[str, ...]
    cwd: str
    env: tuple[tuple[str, str], ...]
    """The whole environment, not an addition to the daemon's."""
    log_path: str
    """Standard output and error go here, appended; never a pipe to the daemon."""
    marks: tuple[tuple[str, str], ...] = ()
    """Those variables of ``env`` that mark every process of its tree, also re-parented ones."""
    command_hash: str = ""
    """Changes when the configuration of the process changes; kept in the pidfile."""


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended.  Both None: it is gone, and the kernel would not say how (adopted)."""

    code: int | None = None
    signal: int | None = None


class SpawnFailed(Exception):
    """The process could not be started; the message says why and is meant for the operator."""


class ProcessHandle(Protocol):
    """A running supervised process, started or adopted by this daemon."""

    @property
    def pid(self) -> int: ...

    @property
    def create_time(self) -> float:
        """Unix seconds, as psutil tells it."""
        ...

    @property
    def age(self) -> float:
        """Seconds since it was started, whoever started it."""
        ...

    @property
    def adopted(self) -> bool: ...

    @property
    def command_hash(self) -> str:
        """As in the pidfile; of an adopted process, what it was started with; ``""`` if unknown."""
        ...

    @property
    def lacking(self) -> str:
        """What it has to do without (a log, a pidfile), and why; ``""`` when all is well."""
        ...

    def signal(self, number: int) -> bool:
        """Signal the process itself through its pidfd; False when it is gone already.

        What descends from it at this moment counts as its tree from now on, whatever becomes of it.
        """
        ...

    async def wait(self) -> ExitStatus:
        """Until the process has exited; may be awaited by several and again."""
        ...

    async def kill_tree(self) -> tuple[int, ...]:
        """SIGKILL the process and everything that ever came from it; the pids that would not die."""
        ...


class ProcessHost(Protocol):
    """Starts, finds and ends supervised processes: never two at once for an ID."""

    def spawn(self, spec: ProcessSpec) -> ProcessHandle:
        """Start it while holding its lock.  Raises :class:`SpawnFailed`, also when the lock is held."""
        ...

    def adopt(self, spec: ProcessSpec) -> ProcessHandle | None:
        """The running worker of ``spec.id``, if one is found."""
        ...

    async def clear_leftovers(self, spec: ProcessSpec) -> tuple[int, ...]:
        """End what is left of a dead process's tree, lock holders included; the pids ended."""
        ...


# --- guards ---------------------------------------------------------------------------------------


class BadMessage(Exception):
    """A guard's message lacks a field, or has one of another type: its connection is closed."""


class GuardPeer(Protocol):
    """One guard connection, as those see it who answer it."""

    @property
    def pid(self) -> int:
        """Of the process at the other end, from the kernel."""
        ...

    def send(self, message: Mapping[str, object]) -> None:
        """Queue a message; returns at once.  A peer that does not read is cut off."""
        ...

    def close(self) -> None: ...


class GuardSession(Protocol):
    """What becomes of the messages of one accepted connection."""

    def receive(self, message: Mapping[str, object]) -> None: ...

    def closed(self) -> None:
        """End of file, or the connection was cut off."""
        ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a guard's ``hello`` was not accepted."""

    reason: str
    agent_id: str = ""
    """In whose name it came, where that is known."""


class GuardService(Protocol):
    """Answers guards.  Everything is decided in memory, without an await."""

    def hello(self, peer: GuardPeer, message: Mapping[str, object]) -> GuardSession | Refusal:
        """The first message of a connection; on success ``welcome`` has been sent."""
        ...


class ProcessWatch(Protocol):
    """Knows when a process that is no child of ours has died."""

    def create_time(self, pid: int) -> float | None:
        """Seconds from the machine's boot to its start, which no setting of the clock moves; with the pid, an
        identity.  None when there is no such process (a zombie is none)."""
        ...

    def watch(self, pid: int, on_exit: Callable[[], None]) -> Callable[[], None]:
        """Call ``on_exit`` once when the process has died, soon if it is dead already.

        Returns a function that ends the watch.
        """
        ...

    def kill(self, pid: int, create_time: float) -> bool:
        """SIGKILL exactly that process; False when it is gone or is another one by now."""
        ...

    def in_tree(self, pid: int, root_pid: int, marks: tuple[tuple[str, str], ...]) -> bool:
        """Whether ``pid`` descends from ``root_pid``, or carries all ``marks`` in its environment."""
        ...
