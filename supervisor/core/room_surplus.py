"""Who and what has to go from a room: ghosts, agents beyond the one, dispatches that are for nobody.

One rule: only what is known goes at once; where nothing decides, it takes a second look.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from supervisor.core.conflicts import Conflict, ConflictKind, winner
from supervisor.core.model import ClaimState, Dispatch
from supervisor.core.room import Action, DeleteDispatch, RemoveParticipant, RoomPolicy
from supervisor.core.room_look import LISTED_AFTER, Look

SECOND_LOOK = 0.3
"""Seconds between the two looks at an extra agent that no claim decides about."""
FRESH = 1.0
"""Seconds that a list may take and yet decide, without a claim, who has to go: who stays may have left."""
TRACK_SECONDS = 2.0
"""Seconds that the agent that stays may take to publish a track, while the other already speaks."""
JOBS_LISTED = 6.0
"""Seconds after which a dispatch that was taken lists its job; LiveKit refreshes that every 5 s."""
TRY_AGAIN = 5.0
"""Seconds between attempts to remove what is known to be dead, and cannot be removed."""


@dataclass(frozen=True, slots=True)
class Part:
    actions: tuple[Action, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    looks: tuple[float, ...] = ()
    suspects: Mapping[str, float] = field(default_factory=dict)


def plan_ghosts(
    look: Look, now: float
) -> tuple[tuple[Action, ...], tuple[Action, ...], tuple[Conflict, ...], list[float]]:
    """What to remove now; what failed and may be tried again, which nothing has to wait for; and when.

    Remove first, which takes milliseconds; deleting the dispatch would end the job slowly.
    """
    kind = ConflictKind.GHOST_AGENT
    removals = tuple(RemoveParticipant(p.identity, kind, dead.agent_id) for p, dead in look.ghosts)
    conflicts = tuple(Conflict(kind, p.identity, dead.agent_id) for p, dead in look.ghosts)
    holder = look.facts.claim.dispatch_id if look.facts.claim is not None else ""
    deletions = tuple(
        DeleteDispatch(d.id, kind, dead.agent_id)
        for d in look.dispatches
        if d.id != holder and (dead := look.dead_of(d)) is not None
    )
    stuck = look.memory.stuck
    actions: tuple[RemoveParticipant | DeleteDispatch, ...] = (*removals, *deletions)
    fresh = tuple(a for a in actions if a.key not in stuck)
    again = tuple(a for a in actions if a.key in stuck and now >= stuck[a.key] + TRY_AGAIN)
    tries = [stuck[a.key] + TRY_AGAIN for a in actions if a.key in stuck and a not in again]
    return fresh, again, conflicts, tries


def plan_extra_agents(look: Look, policy: RoomPolicy, now: float) -> Part:
    others = tuple(a for a in look.agents if a.instance is not None and a.instance != policy.instance)
    reported = tuple(Conflict(ConflictKind.FOREIGN_AGENT, a.identity) for a in others)
    rivals = tuple(a for a in look.agents if a not in others)
    sure = tuple(a for a in rivals if not look.doubtful(a))
    doubts = [look.memory.vanished[a.sid] + LISTED_AFTER for a in rivals if look.doubtful(a)]
    rivals = sure or rivals  # who may be gone is no reason to remove who is there
    configured = frozenset(a.identity for a in rivals if look.agent_id_of(a))
    reported += tuple(
        Conflict(ConflictKind.FOREIGN_AGENT, a.identity) for a in rivals if a.identity not in configured
    )
    if len(rivals) < 2:
        return Part(conflicts=reported, looks=tuple(doubts))
    claim = look.facts.claim
    stays = winner(rivals, claim, configured)
    decided = claim is not None and claim.state is ClaimState.LIVE and stays.identity == claim.identity
    actions: list[Action] = []
    conflicts: list[Conflict] = list(reported)
    looks: list[float] = list(doubts)
    suspects: dict[str, float] = {}
    for loser in (a for a in rivals if a is not stays):
        agent_id = look.agent_id_of(loser)
        kind = ConflictKind.DUPLICATE_AGENT if agent_id else ConflictKind.FOREIGN_AGENT
        if agent_id:
            conflicts.append(Conflict(kind, loser.identity, agent_id))
        first_seen = look.memory.suspects.get(loser.identity, now)
        wait = 0.0 if decided else SECOND_LOOK
        too_old = not decided and look.facts.age > FRESH
        if loser.has_track and not stays.has_track:
            wait = TRACK_SECONDS
        if now >= first_seen + wait and not too_old:
            actions.append(RemoveParticipant(loser.identity, kind, agent_id))
            actions.extend(
                DeleteDispatch(d.id, kind, agent_id)
                for d in look.dispatches
                if loser.identity in d.identities and stays.identity not in d.identities
            )
        else:
            suspects[loser.identity] = first_seen
            looks.append(max(first_seen + wait, now + SECOND_LOOK) if too_old else first_seen + wait)
    return Part(tuple(actions), tuple(conflicts), tuple(looks), suspects)


def plan_dispatches(look: Look, now: float) -> Part:
    """Refused dispatches go at once; those beside the holder's, or beside the best, after a second look."""
    actions: list[Action] = []
    conflicts: list[Conflict] = []
    looks: list[float] = []
    suspects: dict[str, float] = {}
    for d in look.dispatches:
        # LiveKit makes several jobs of one dispatch for workers of publishers: the holder is one of them.
        if d.id in look.memory.refused and not look.is_holders(d):
            actions.append(
                DeleteDispatch(d.id, ConflictKind.DUPLICATE_REQUEST, look.id_of_name(d.agent_name))
            )
    names = {agent.name for agent in look.facts.agents}
    by_name: dict[str, list[Dispatch]] = {}
    for d in look.dispatches:
        if d.agent_name in names and d.id not in look.memory.refused:
            by_name.setdefault(d.agent_name, []).append(d)
    for name, dispatches in by_name.items():
        known_at = _told_apart_at(look, dispatches, now)
        for d in _superfluous(look, name, dispatches):
            agent_id = look.id_of_name(name)
            conflicts.append(Conflict(ConflictKind.DUPLICATE_DISPATCH, d.id, agent_id))
            first_seen = look.memory.suspects.get(d.id, now)
            sure_at = max(first_seen + SECOND_LOOK, known_at)
            if now >= sure_at:
                actions.append(DeleteDispatch(d.id, ConflictKind.DUPLICATE_DISPATCH, agent_id))
            else:
                suspects[d.id] = first_seen
                looks.append(sure_at)
    return Part(tuple(actions), tuple(conflicts), tuple(looks), suspects)


def _told_apart_at(look: Look, dispatches: list[Dispatch], now: float) -> float:
    """When it is known which of them brings the agent that stays: the claim tells, or their jobs."""
    if look.facts.claim is not None or all(d.job_ids for d in dispatches):
        return now
    return max(look.memory.seen.get(d.id, now) for d in dispatches) + JOBS_LISTED


def _superfluous(look: Look, name: str, dispatches: list[Dispatch]) -> list[Dispatch]:
    """Of those for one agent name, all but the one that has brought, or will bring, the agent that stays.

    The holder's own may be gone, since a restart of LiveKit forgets dispatches: then none of these did.
    """
    claim = look.facts.claim
    names = {agent.id: agent.name for agent in look.facts.agents}
    if claim is not None and claim.joined and names.get(claim.agent_id) == name:
        return [d for d in dispatches if not look.is_holders(d)]
    if len(dispatches) < 2:
        return []
    present = {a.identity for a in look.agents}
    kept = min(
        dispatches,
        key=lambda d: (
            not look.is_holders(d),
            not present & d.identities,
            not d.job_ids,
            d.created_at_ms,
            d.id,
        ),
    )
    return [d for d in dispatches if d is not kept]
