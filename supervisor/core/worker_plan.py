"""What to do about one worker: ``plan(view, now)`` answers from facts alone.

The rule: a process is only ever started when none is there, and only ever ended by way of an
:class:`Ending`, which drains first where that was asked for, then signals, then kills the whole tree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from supervisor.core.backoff import BackoffPolicy, delay

CRASH_LOOP_FAILURES = 5
"""Deaths in a row, each before ``stable_after``, from which on the worker counts as looping."""


class EndReason(StrEnum):
    """Why a process is to end.  All but STOPPED are also the reason of the restart that follows."""

    STOPPED = "stopped"
    HUNG = "hung"
    STARTUP_TIMEOUT = "startup_timeout"
    MEMORY_LIMIT = "memory_limit"
    CONFIG = "config"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class WorkerPolicy:
    """One agent's settings that decide; seconds and bytes."""

    backoff: BackoffPolicy
    stable_after: float
    startup_timeout: float
    heartbeat_timeout: float
    drain: float
    kill: float
    memory_limit: int = 0
    guarded: bool = True


@dataclass(frozen=True, slots=True)
class Ending:
    """The process that runs now is on its way out."""

    reason: EndReason
    since: float
    drain_until: float | None = None
    """Rooms with a human may go on until then; None: no drain."""
    signalled_at: float | None = None
    killed_at: float | None = None
    told_by_others: bool = False
    """Somebody else has sent it SIGTERM, and it drains by itself: a second one would cut its jobs' ends."""


@dataclass(frozen=True, slots=True)
class WorkerView:
    """Everything a decision about one worker is made from."""

    wanted: bool
    policy: WorkerPolicy
    alive: bool
    started_at: float = 0.0
    """Monotonic; of an adopted worker, when it was adopted; never before LiveKit was back."""
    livekit_up: bool = True
    """While it is away nobody can register: a start has no deadline."""
    registered_once: bool = False
    last_heartbeat: float | None = None
    """None until the guard has connected."""
    unhealthy_since: float | None = None
    """Since when its own health endpoint has said no while it was registered."""
    busy_rooms: int = 0
    """Rooms of this worker with a human in them."""
    drains_on_sigterm: bool = False
    """It has no guard, so nobody knows of its rooms: SIGTERM is its drain, and it ends when that is over."""
    config_changed: bool = False
    memory_bytes: int = 0
    ending: Ending | None = None
    next_start_at: float = 0.0
    waits_for_livekit: bool = False
    """It gave up because LiveKit was away: no start before LiveKit is back."""


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start a process."""


@dataclass(frozen=True, slots=True)
class Drain:
    """Begin an ending that drains: the guard takes no more rooms."""

    ending: Ending


@dataclass(frozen=True, slots=True)
class Terminate:
    """SIGTERM to the worker; its jobs are told to leave."""

    ending: Ending


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL to the whole tree."""

    ending: Ending


Action = Spawn | Drain | Terminate | Kill


@dataclass(frozen=True, slots=True)
class Plan:
    actions: tuple[Action, ...] = ()
    look_at: float | None = None
    """When to look again if nothing happens; None: only when something does."""


def plan(view: WorkerView, now: float) -> Plan:
    if not view.alive:
        return _plan_start(view, now)
    if view.ending is not None:
        return _plan_ending(view, view.ending, now)
    reason = _reason_to_end(view, now)
    if reason is not None:
        return _plan_ending(view, begin_ending(view.policy, reason, now), now)
    if view.unhealthy_since is not None and now >= view.unhealthy_since + view.policy.heartbeat_timeout:
        # It answers, so its calls may end first; only one that is silent has nothing to lose.
        return _plan_ending(view, begin_ending(view.policy, EndReason.HUNG, now, drain=True), now)
    return Plan(look_at=_next_deadline(view))


def begin_ending(policy: WorkerPolicy, reason: EndReason, now: float, *, drain: bool | None = None) -> Ending:
    """An ending from now on.  By default those drain that are nobody's emergency."""
    if drain is None:
        drain = reason in (EndReason.MEMORY_LIMIT, EndReason.CONFIG)
    return Ending(reason, since=now, drain_until=now + policy.drain if drain else None)


def drains_by_itself(ending: Ending, now: float) -> bool:
    """SIGTERM was sent, and there is time left for what SIGTERM begins in a program without a guard."""
    if ending.signalled_at is None or ending.killed_at is not None or ending.drain_until is None:
        return False
    return now < ending.drain_until


def _plan_start(view: WorkerView, now: float) -> Plan:
    if not view.wanted or view.waits_for_livekit:
        return Plan()
    if now < view.next_start_at:
        return Plan(look_at=view.next_start_at)
    return Plan((Spawn(),))


def _reason_to_end(view: WorkerView, now: float) -> EndReason | None:
    if not view.wanted:
        return EndReason.STOPPED
    if view.config_changed:
        return EndReason.CONFIG
    policy = view.policy
    if _is_to_register(view) and now >= view.started_at + policy.startup_timeout:
        return EndReason.STARTUP_TIMEOUT
    if view.last_heartbeat is not None and now >= view.last_heartbeat + policy.heartbeat_timeout:
        return EndReason.HUNG
    if policy.memory_limit and view.memory_bytes > policy.memory_limit:
        return EndReason.MEMORY_LIMIT
    return None


def _is_to_register(view: WorkerView) -> bool:
    return view.policy.guarded and view.livekit_up and not view.registered_once


def _next_deadline(view: WorkerView) -> float | None:
    deadlines = []
    if _is_to_register(view):
        deadlines.append(view.started_at + view.policy.startup_timeout)
    if view.last_heartbeat is not None:
        deadlines.append(view.last_heartbeat + view.policy.heartbeat_timeout)
    if view.unhealthy_since is not None:
        deadlines.append(view.unhealthy_since + view.policy.heartbeat_timeout)
    return min(deadlines, default=None)


def _plan_ending(view: WorkerView, ending: Ending, now: float) -> Plan:
    drain_until = ending.drain_until
    if ending.signalled_at is None and drain_until is not None and view.busy_rooms and now < drain_until:
        begun = () if view.ending is not None else (Drain(ending),)
        return Plan(begun, look_at=drain_until)
    if ending.signalled_at is None:
        signalled = replace(ending, signalled_at=now)
        by_itself = view.drains_on_sigterm and drains_by_itself(signalled, now)
        return Plan((Terminate(signalled),), look_at=drain_until if by_itself else now + view.policy.kill)
    if view.drains_on_sigterm and drains_by_itself(ending, now):
        return Plan(look_at=drain_until)
    kill_at = (ending.killed_at or ending.signalled_at) + view.policy.kill
    if now < kill_at:
        return Plan(look_at=kill_at)
    return Plan((Kill(replace(ending, killed_at=now)),), look_at=now + view.policy.kill)


@dataclass(frozen=True, slots=True)
class Restart:
    """When the next start may be, after a death; and how many deaths in a row that makes."""

    failures: int
    next_start_at: float
    looping: bool
    waits_for_livekit: bool = False


def after_exit(
    policy: WorkerPolicy,
    *,
    failures: int,
    uptime: float,
    now: float,
    randomness: float,
    wanted_end: bool,
    livekit_lost: bool,
) -> Restart:
    """What follows from the death of a worker that is still wanted.

    An end that we asked for is no failure and is followed by a start at once, as is the first death
    after ``stable_after``.  A worker that gave up because LiveKit was away waits for LiveKit.
    """
    if wanted_end:
        return Restart(0, now, looping=False)
    if livekit_lost:
        return Restart(failures, now, looping=False, waits_for_livekit=True)
    if uptime >= policy.stable_after:
        return Restart(0, now, looping=False)
    failures += 1
    wait = delay(policy.backoff, failures, randomness)
    return Restart(failures, now + wait, looping=failures >= CRASH_LOOP_FAILURES)
