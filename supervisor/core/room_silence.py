"""A human without an agent: since when, why, and the one next thing to do about it.

One rule: never two dispatches at a time, and none while somebody may still come of what was done before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from supervisor.core.conflicts import ConflictKind
from supervisor.core.model import Claim, ClaimState, Dispatch, RecoveryCause, RoomState
from supervisor.core.room import Action, CreateDispatch, DeleteDispatch, RevokeClaim, RoomMemory, RoomPolicy
from supervisor.core.room_look import Look
from supervisor.core.room_surplus import SECOND_LOOK

SETTLE = 0.5
"""Seconds that a worker has been ready, after which an older dispatch without a job is known to be lost."""


def note_silence(look: Look, memory: RoomMemory, now: float) -> RoomMemory:
    since = memory.silent_since
    cause = memory.cause
    newcomer = memory.state is RoomState.EMPTY
    dead = memory.dead if memory.had_agent or look.ghosts else ()
    deaths = [(d.died_at, d.cause) for d in dead if d.cause and d.died_at >= memory.agent_at]
    if cause is None and deaths:
        died_at, death = max(deaths)
        cause = RecoveryCause(death.value)
        if not newcomer:
            since = died_at if since is None else min(since, died_at)
    elif cause is None and newcomer and memory.dead:
        # The agent was here and has ended; LiveKit dispatches to a room that is there already for nobody.
        cause = RecoveryCause.OTHER
    return replace(memory, silent_since=now if since is None else since, cause=cause)


@dataclass(frozen=True, slots=True)
class _Step:
    memory: RoomMemory
    reason: str
    actions: tuple[Action, ...] = ()
    look_at: float | None = None


def next_step(look: Look, policy: RoomPolicy, memory: RoomMemory, now: float) -> _Step:
    """The one next thing to do, or to wait for, so that the human gets an agent."""
    if look.facts.claim is not None:
        return _await_holder(look.facts.claim, policy, memory, now)
    memory = replace(memory, absent_since=None)
    target = look.target
    if target is None:
        return _Step(memory, "no agent is configured for this room")
    agent = next((a for a in look.facts.agents if a.id == target.agent_id), None)
    dispatched = [
        d
        for d in look.dispatches
        if d.agent_name == target.agent_name and d.id not in memory.refused and look.dead_of(d) is None
    ]
    lost = [d for d in dispatched if now >= _lost_at(look, d, policy, memory, now)]
    if lost:
        cause = memory.cause or RecoveryCause.LOST_DISPATCH
        deletions = tuple(DeleteDispatch(d.id, ConflictKind.LOST_DISPATCH, target.agent_id) for d in lost)
        return _Step(replace(memory, cause=cause), "a dispatch was lost", deletions)
    if dispatched:
        look_at = min(_lost_at(look, d, policy, memory, now) for d in dispatched)
        return _Step(memory, "dispatched, waiting for the agent to join", look_at=look_at)
    if agent is None or not agent.ready:
        why = agent.reason if agent is not None else "not configured"
        return _Step(memory, f"agent {target.agent_id} is not ready: {why}")
    if agent.full:
        return _Step(memory, f"agent {target.agent_id} has as many rooms as it may have")
    wait_until = memory.next_attempt_at
    if memory.cause is None and memory.silent_since is not None:
        wait_until = max(wait_until, memory.silent_since + policy.missing_grace)
    if now < wait_until:
        return _Step(memory, "waiting before the next dispatch", look_at=wait_until)
    return _Step(memory, "dispatching", (CreateDispatch(target),))


def _await_holder(claim: Claim, policy: RoomPolicy, memory: RoomMemory, now: float) -> _Step:
    absent_since = now if memory.absent_since is None else memory.absent_since
    memory = replace(memory, absent_since=absent_since)
    if claim.state is ClaimState.PENDING:
        # The claim table ends it when it is due, and wakes the room.
        look_at = claim.expires_at if claim.expires_at > now else now + SECOND_LOOK
        return _Step(memory, "a job has been granted the room and starts", look_at=look_at)
    grace = policy.reconnect_grace if claim.joined else policy.join_timeout
    if now < absent_since + grace:
        return _Step(memory, "its agent is connecting", look_at=absent_since + grace)
    return _Step(memory, "its agent did not come back", (RevokeClaim(claim.job_id),))


def _lost_at(look: Look, dispatch: Dispatch, policy: RoomPolicy, memory: RoomMemory, now: float) -> float:
    """When no agent will come of it any more: it has had its time, or was made for no worker.

    One that has brought its agent may bring it back, within the grace that an agent of its own would have.
    """
    seen = memory.seen.get(dispatch.id, now)
    at = seen + policy.join_timeout
    if memory.agent_at >= seen:
        silent_since = now if memory.silent_since is None else memory.silent_since
        at = max(at, silent_since + policy.missing_grace)
    for_no_worker = _for_no_worker_at(look, dispatch, seen)
    return at if for_no_worker is None else min(at, for_no_worker)


def _for_no_worker_at(look: Look, dispatch: Dispatch, seen: float) -> float | None:
    """When it is sure that no worker was there to take it; None: one may have been.

    LiveKit launches a dispatch's job once, when it is made; one without a job that is older than the
    registration of every worker of that name is not tried again.
    """
    if dispatch.job_ids:
        return None
    ready = [a.ready_since for a in look.facts.agents if a.name == dispatch.agent_name and a.ready]
    later = [since for since in ready if since is not None and since > seen]
    return max(later) + SETTLE if later and len(later) == len(ready) else None
