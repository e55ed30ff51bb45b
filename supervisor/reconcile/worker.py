"""What is wanted and what is known of one supervised process.

One rule: want and fact are separate fields, and nothing here decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from supervisor.core.ports import ExitStatus, ProcessHandle, ProcessSpec
from supervisor.core.worker_plan import Ending, WorkerPolicy
from supervisor.core.worker_state import WorkerState
from supervisor.events import RestartReason


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """One configured agent, as far as reconciling it needs to know."""

    id: str
    name: str | None
    """LiveKit's agent name; None: the script's own, known when it has registered."""
    rooms: tuple[str, ...] | None
    """Room-name patterns; None: all rooms when it turns out to be unnamed, else none."""
    max_rooms: int
    policy: WorkerPolicy
    process: ProcessSpec
    is_agent: bool = True
    """False for a helper of our own that is supervised alike: the development server."""


class WorkerLink(Protocol):
    """A worker's guard connection, as far as one can speak through it."""

    def drain(self, timeout: float) -> None: ...

    def resume(self) -> None: ...


@dataclass(slots=True)
class Worker:
    """Want and fact about one agent's process."""

    spec: AgentSpec
    wanted: bool
    state: WorkerState = WorkerState.STOPPED
    since: float = 0.0
    """Monotonic time of the last change of state."""
    reason: str = ""
    handle: ProcessHandle | None = None
    exit: ExitStatus | None = None
    started_at: float = 0.0
    ran_before: float = 0.0
    """Seconds that it had run when it was adopted."""
    link: WorkerLink | None = None
    registered: bool = False
    registered_once: bool = False
    ready_since: float | None = None
    last_heartbeat: float | None = None
    reported_name: str | None = None
    http_port: int = 0
    """Of its own health endpoint, on loopback; 0: not known."""
    unhealthy_since: float | None = None
    spoken: bool = False
    """Its guard has said since we have it whether it is registered, and before that which jobs it has."""
    ending: Ending | None = None
    drains_on_sigterm: bool = False
    """Its process was configured as one without a guard."""
    failures: int = 0
    next_start_at: float = 0.0
    waits_for_livekit: bool = False
    restart_reason: RestartReason | None = None
    """Of the last death, until the replacement has been started."""
    restarts: int = 0
    memory_bytes: int = 0
    gave_up_on_livekit: bool = False
    """The guard said so before it went."""
    failure: str = ""
    """What the guard, or the spawn, said before it failed."""
    over_limit: bool = False
    """It has more rooms than it may have, and that has been told."""
    cleared: bool = False
    """Nothing is left of an earlier process, as far as we know."""
    forgotten: bool = False
    """No longer configured: gone as soon as its process is."""

    @property
    def name(self) -> str | None:
        return self.spec.name if self.spec.name is not None else self.reported_name

    @property
    def rooms(self) -> tuple[str, ...]:
        if self.spec.rooms is not None:
            return self.spec.rooms
        return ("*",) if self.name == "" else ()

    @property
    def answers(self) -> bool:
        """As far as anyone knows: a dying worker hangs up before the kernel says that it is dead."""
        return self.exit is None and (self.link is not None or not self.spec.policy.guarded)

    @property
    def draining(self) -> bool:
        return self.state in (WorkerState.DRAINING, WorkerState.STOPPING)

    @property
    def is_changed(self) -> bool:
        """What runs was started by another configuration."""
        running = self.handle.command_hash if self.handle is not None else ""
        return bool(running) and running != self.spec.process.command_hash

    def attach(self, handle: ProcessHandle, now: float) -> None:
        """A process is there, of which nothing has been heard yet."""
        self.handle, self.exit, self.ending = handle, None, None
        self.started_at = now
        # Of one that is not configured, the policy cannot say: it may be of any kind.
        self.drains_on_sigterm = not self.spec.policy.guarded and not self.forgotten
        self.ran_before = handle.age if handle.adopted else 0.0
        self.registered = self.registered_once = self.gave_up_on_livekit = self.spoken = False
        self.failure = ""
        self.ready_since = self.last_heartbeat = self.link = self.unhealthy_since = None
        self.http_port = 0

    def detach(self) -> None:
        """It is gone; what it did last is still told."""
        self.handle = self.exit = self.ending = self.link = None
        self.memory_bytes = 0
        self.registered, self.ready_since, self.last_heartbeat = False, None, None
