"""What to do about one room: ``plan(facts, policy, memory, now)`` answers from facts alone.

The rules, in the order in which they are applied:

* what is not known leads to no action;
* a participant whose process is known to be dead is a ghost and goes;
* of several agents exactly one stays (:func:`supervisor.core.conflicts.winner`), and it is never a human,
  an avatar or the last agent that goes;
* a human without an agent gets one by one dispatch at a time, whose coming is verified.

A decision is acted on one write at a time, each after a fresh read, so ``actions`` is in order of urgency
and a later look sees what the earlier write has done.
"""

from __future__ import annotations

from dataclasses import replace

from supervisor.core.conflicts import Conflict, ConflictKind
from supervisor.core.model import Dispatch, RecoveryCause, RoomState, Unknown
from supervisor.core.room import Action, Decision, DeleteDispatch, Recovery, RoomFacts, RoomMemory, RoomPolicy
from supervisor.core.room_look import Look, look_at_room
from supervisor.core.room_silence import next_step, note_silence
from supervisor.core.room_surplus import plan_dispatches, plan_extra_agents, plan_ghosts

LIVEKIT_RESTART_BLAMED = 60.0
"""Seconds after LiveKit came back in which a silent room is blamed on that."""
STAYED = 10.0
"""Seconds that an agent has been there, after which its end is no reason to be slower with the next."""


def plan(facts: RoomFacts, policy: RoomPolicy, memory: RoomMemory, now: float) -> Decision:
    if isinstance(facts.participants, Unknown):
        return _unknown(facts.participants.reason, memory)
    if isinstance(facts.dispatches, Unknown):
        return _unknown(facts.dispatches.reason, memory)
    look = look_at_room(facts, facts.participants, facts.dispatches, policy, memory, now)
    if not look.ours:
        return Decision(RoomState.HEALTHY, "not ours", RoomMemory(dead=look.memory.dead), ours=False)
    return _decide(look, policy, now)


def _unknown(reason: str, memory: RoomMemory) -> Decision:
    # What nobody could see does not count as time in which the holder stayed away.
    return Decision(RoomState.UNKNOWN, reason, replace(memory, state=RoomState.UNKNOWN, absent_since=None))


def _decide(look: Look, policy: RoomPolicy, now: float) -> Decision:
    ghosts, again, ghost_conflicts, tries = plan_ghosts(look, now)
    extra = plan_extra_agents(look, policy, now)
    stale = plan_dispatches(look, now)
    memory = replace(look.memory, suspects={**extra.suspects, **stale.suspects})
    conflicts = (*ghost_conflicts, *extra.conflicts, *stale.conflicts)
    urgent = (*ghosts, *extra.actions, *stale.actions)
    looks = [*tries, *extra.looks, *stale.looks]
    if look.agents:
        return _with_agent(look, policy, memory, now, (*urgent, *again), conflicts, looks)
    if not look.humans:
        return _empty(look, memory, (*urgent, *again), conflicts, looks)
    if look.held_by_ignored:
        return Decision(RoomState.HEALTHY, "its agent is one of rooms.ignore_agents", memory)
    return _missing(look, policy, memory, now, urgent, again, conflicts, looks)


def _with_agent(
    look: Look,
    policy: RoomPolicy,
    memory: RoomMemory,
    now: float,
    actions: tuple[Action, ...],
    conflicts: tuple[Conflict, ...],
    looks: list[float],
) -> Decision:
    recovery = None
    arrived = ""
    since = memory.silent_since
    agent_id = look.agent_id_of(look.agents[0])
    if since is not None and (memory.had_agent or memory.cause or now >= since + policy.missing_grace):
        cause = memory.cause or _blame(look, now)
        recovery = Recovery(cause, max(0.0, now - since), agent_id)
    if memory.awaited and any(_came(look, d) for d in look.dispatches if d.id == memory.awaited):
        arrived, memory = memory.awaited, replace(memory, awaited="")
    memory = replace(
        memory,
        silent_since=None,
        cause=None,
        absent_since=None,
        had_agent=True,
        agent_at=now,
        agent_since=now if memory.agent_since is None else memory.agent_since,
    )
    if not look.humans:
        state, reason = RoomState.EMPTY, "an agent, and no human"
    elif conflicts:
        state, reason = RoomState.CONFLICT, _tell(conflicts)
    else:
        state, reason = RoomState.HEALTHY, ""
    return Decision(
        state,
        reason,
        replace(memory, state=state),
        actions=actions,
        conflicts=conflicts,
        look_at=min(looks, default=None),
        recovery=recovery,
        arrived=arrived,
    )


def _came(look: Look, dispatch: Dispatch) -> bool:
    claim = look.facts.claim
    if claim is not None and claim.dispatch_id == dispatch.id:
        return True
    return any(a.identity in dispatch.identities for a in look.agents)


def _empty(
    look: Look,
    memory: RoomMemory,
    actions: tuple[Action, ...],
    conflicts: tuple[Conflict, ...],
    looks: list[float],
) -> Decision:
    memory = replace(
        memory,
        silent_since=None,
        cause=None,
        absent_since=None,
        agent_since=None,
        attempts=0,
        next_attempt_at=0.0,
        state=RoomState.EMPTY,
    )
    return Decision(
        RoomState.EMPTY,
        "nobody is there",
        memory,
        actions=actions,
        conflicts=conflicts,
        look_at=min(looks, default=None),
    )


def _missing(
    look: Look,
    policy: RoomPolicy,
    memory: RoomMemory,
    now: float,
    actions: tuple[Action, ...],
    again: tuple[Action, ...],
    conflicts: tuple[Conflict, ...],
    looks: list[float],
) -> Decision:
    """A human is there and no agent is."""
    failed = bool(memory.dead) and memory.dead[-1].failed
    if memory.agent_since is not None and now - memory.agent_since >= STAYED and not failed:
        memory = replace(memory, attempts=0, next_attempt_at=0.0)
    memory = note_silence(look, replace(memory, agent_since=None), now)
    step = next_step(look, policy, memory, now)
    memory = step.memory
    grace_over = (now if memory.silent_since is None else memory.silent_since) + policy.missing_grace
    standing = list(conflicts)
    if memory.cause is not None or now >= grace_over:
        agent_id = look.target.agent_id if look.target is not None else ""
        standing.append(Conflict(ConflictKind.MISSING_AGENT, "", agent_id))
    else:
        looks.append(grace_over)
    for action in step.actions:
        if isinstance(action, DeleteDispatch) and action.kind is ConflictKind.LOST_DISPATCH:
            standing.append(Conflict(action.kind, action.dispatch_id, action.agent_id))
    if step.look_at is not None:
        looks.append(step.look_at)
    # One dispatch at a time: nothing is created while something is still to be removed.  What is known to be
    # dead cannot be heard, though, and where LiveKit does not remove it nobody has to wait for that.
    do = actions or step.actions or again
    return Decision(
        RoomState.MISSING_AGENT,
        step.reason,
        replace(memory, state=RoomState.MISSING_AGENT),
        actions=do,
        conflicts=tuple(standing),
        look_at=min(looks, default=None),
    )


def _blame(look: Look, now: float) -> RecoveryCause:
    if look.facts.livekit_since and now - look.facts.livekit_since < LIVEKIT_RESTART_BLAMED:
        return RecoveryCause.LIVEKIT_RESTART
    return RecoveryCause.OTHER


def _tell(conflicts: tuple[Conflict, ...]) -> str:
    kinds = sorted({c.kind.value.replace("_", " ") for c in conflicts})
    return ", ".join(kinds)
