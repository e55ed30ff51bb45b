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

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from supervisor.core.backoff import BackoffPolicy, delay
from supervisor.core.conflicts import Conflict, ConflictKind, winner
from supervisor.core.model import (
    AgentView,
    Claim,
    ClaimState,
    DeadJob,
    Dispatch,
    Participant,
    RecoveryCause,
    RoomState,
    Unknown,
)

SECOND_LOOK = 0.3
"""Seconds between the two looks at an extra agent that no claim decides about."""
FRESH = 1.0
"""Seconds that a list may take and yet decide, without a claim, who has to go: who stays may have left."""
TRACK_SECONDS = 2.0
"""Seconds that the agent that stays may take to publish a track, while the other already speaks."""
SETTLE = 0.5
"""Seconds that a worker has been ready, after which an older dispatch without a job is known to be lost."""
DEAD_REMEMBERED = 60.0
"""Seconds that a dead job is remembered: ghosts last 21 s, and a stale read may list one once more."""
LISTED_AFTER = 2.0
"""Seconds for which a stale list may show an agent that has left."""
LIVEKIT_RESTART_BLAMED = 60.0
"""Seconds after LiveKit came back in which a silent room is blamed on that."""
STAYED = 10.0
"""Seconds that an agent has been there, after which its end is no reason to be slower with the next."""
JOBS_LISTED = 6.0
"""Seconds after which a dispatch that was taken lists its job; LiveKit refreshes that every 5 s."""
TRY_AGAIN = 5.0
"""Seconds between attempts to remove what is known to be dead, and cannot be removed."""
RETRY = BackoffPolicy(initial=1.0, factor=2.0, max=30.0)
"""Between dispatches that brought no agent."""


@dataclass(frozen=True, slots=True)
class RoomPolicy:
    """Settings that decide; seconds."""

    missing_grace: float = 2.0
    join_timeout: float = 15.0
    reconnect_grace: float = 5.0
    ignore_agents: tuple[str, ...] = ()
    instance: str = ""
    """Our own ``supervisor.instance``."""


@dataclass(frozen=True, slots=True)
class RoomFacts:
    """All that was read, and what we hold ourselves."""

    name: str
    participants: tuple[Participant, ...] | Unknown
    dispatches: tuple[Dispatch, ...] | Unknown
    claim: Claim | None
    agents: tuple[AgentView, ...]
    livekit_since: float = 0.0
    """When LiveKit was last found to be there again after having been away."""
    age: float = 0.0
    """Seconds since the lists were asked for: what they say may be as old."""


@dataclass(frozen=True, slots=True)
class Target:
    """Which agent the room is to have; ``metadata`` is what the application gave its dispatch."""

    agent_name: str
    agent_id: str
    metadata: str = ""


@dataclass(frozen=True, slots=True)
class RoomMemory:
    """What earlier looks at the room have left: nothing here could be read anew."""

    target: Target | None = None
    seen: Mapping[str, float] = field(default_factory=dict)
    """Dispatch ID to when it was first seen."""
    refused: frozenset[str] = frozenset()
    """Dispatches whose job was refused since the room is held."""
    dead: tuple[DeadJob, ...] = ()
    suspects: Mapping[str, float] = field(default_factory=dict)
    """Extra agents and dispatches that no claim decides about, and since when."""
    listed: Mapping[str, float] = field(default_factory=dict)
    """SID of each agent to since when it has been listed."""
    vanished: Mapping[str, float] = field(default_factory=dict)
    """SID of each agent that was listed for longer than a list may lag, then was not: when.  SIDs never come
    back, so a list that has it again is an old one."""
    silent_since: float | None = None
    """Since when a human has been without a live agent."""
    cause: RecoveryCause | None = None
    """Why, where that is known; then nothing is waited for."""
    absent_since: float | None = None
    """Since when the claim's holder has been missing while a human was there."""
    had_agent: bool = False
    agent_at: float = 0.0
    """When a live agent was last seen; deaths before that are no reason for a silence after it."""
    agent_since: float | None = None
    """Since when there has been one; None while there is none."""
    attempts: int = 0
    """Dispatches made since there was an agent."""
    next_attempt_at: float = 0.0
    awaited: str = ""
    """Our own dispatch that has not brought its agent yet."""
    stuck: Mapping[str, float] = field(default_factory=dict)
    """Ghosts and their dispatches that LiveKit would not remove, and when that was tried last."""
    state: RoomState | None = None


@dataclass(frozen=True, slots=True)
class RemoveParticipant:
    identity: str
    kind: ConflictKind
    agent_id: str = ""


@dataclass(frozen=True, slots=True)
class DeleteDispatch:
    dispatch_id: str
    kind: ConflictKind
    agent_id: str = ""


@dataclass(frozen=True, slots=True)
class CreateDispatch:
    target: Target


@dataclass(frozen=True, slots=True)
class RevokeClaim:
    """The holder does not come back: it loses the room, is told to leave, and killed if it does not."""

    job_id: str


Action = RemoveParticipant | DeleteDispatch | CreateDispatch | RevokeClaim


@dataclass(frozen=True, slots=True)
class Recovery:
    cause: RecoveryCause
    seconds: float
    agent_id: str


@dataclass(frozen=True, slots=True)
class Decision:
    state: RoomState
    reason: str
    memory: RoomMemory
    ours: bool = True
    actions: tuple[Action, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    look_at: float | None = None
    recovery: Recovery | None = None
    arrived: str = ""
    """The awaited dispatch that has now brought its agent."""


def plan(facts: RoomFacts, policy: RoomPolicy, memory: RoomMemory, now: float) -> Decision:
    if isinstance(facts.participants, Unknown):
        return _unknown(facts.participants.reason, memory)
    if isinstance(facts.dispatches, Unknown):
        return _unknown(facts.dispatches.reason, memory)
    look = _look(facts, facts.participants, facts.dispatches, policy, memory, now)
    if not look.ours:
        return Decision(RoomState.HEALTHY, "not ours", RoomMemory(dead=look.memory.dead), ours=False)
    return _decide(look, policy, now)


def after_dispatch(memory: RoomMemory, dispatch_id: str | None, now: float) -> RoomMemory:
    """Memory after a dispatch was made, or tried in vain (None)."""
    attempts = memory.attempts + 1
    memory = replace(memory, attempts=attempts, next_attempt_at=now + delay(RETRY, attempts))
    if dispatch_id is None:
        return memory
    return replace(memory, awaited=dispatch_id, seen={**memory.seen, dispatch_id: now})


def after_failure(memory: RoomMemory, action: Action, now: float) -> RoomMemory:
    """Memory after LiveKit has refused, or not answered, to remove something."""
    if (
        not isinstance(action, RemoveParticipant | DeleteDispatch)
        or action.kind is not ConflictKind.GHOST_AGENT
    ):
        return memory
    return replace(memory, stuck={**memory.stuck, _key(action): now})


def _key(action: RemoveParticipant | DeleteDispatch) -> str:
    return action.identity if isinstance(action, RemoveParticipant) else action.dispatch_id


def matches_any(text: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)


def is_ignored(names: Iterable[str | None], patterns: tuple[str, ...]) -> bool:
    """``names``: an agent's name and identity, as far as they are known."""
    return any(name and matches_any(name, patterns) for name in names)


# --- what is there --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at a room, sorted out."""

    facts: RoomFacts
    memory: RoomMemory
    ours: bool
    humans: tuple[Participant, ...]
    agents: tuple[Participant, ...]
    """Live as far as anyone knows; ghosts, avatars and ignored ones left out."""
    ghosts: tuple[tuple[Participant, DeadJob], ...]
    dispatches: tuple[Dispatch, ...]
    target: Target | None
    held_by_ignored: bool
    """From before that agent was to be ignored: since then it claims nothing."""

    def doubtful(self, agent: Participant) -> bool:
        """It was gone already, a moment ago; of a claim's holder its job knows better."""
        claim = self.facts.claim
        held = claim is not None and claim.identity == agent.identity
        return agent.sid in self.memory.vanished and not held


def _unknown(reason: str, memory: RoomMemory) -> Decision:
    # What nobody could see does not count as time in which the holder stayed away.
    return Decision(RoomState.UNKNOWN, reason, replace(memory, state=RoomState.UNKNOWN, absent_since=None))


def _look(
    facts: RoomFacts,
    participants: tuple[Participant, ...],
    dispatches: tuple[Dispatch, ...],
    policy: RoomPolicy,
    memory: RoomMemory,
    now: float,
) -> _Look:
    held_by_ignored = False
    if policy.ignore_agents:  # they are not counted, and ask for nobody
        held_by_ignored = _is_held_by_ignored(facts, policy)
        facts = replace(facts, agents=tuple(a for a in facts.agents if not _ignores(policy, a.name)))
        dispatches = tuple(d for d in dispatches if not _ignores(policy, d.agent_name))
    dead = {d.identity: d for d in memory.dead}
    holder = facts.claim.identity if facts.claim is not None else None
    left = {d.identity for d in memory.dead if d.left and now - d.died_at < LISTED_AFTER} - {holder}
    counted = [
        p
        for p in participants
        if p.is_agent and p.identity not in left and not _ignores(policy, p.agent_name, p.identity)
    ]
    ghosts = tuple((p, dead[p.identity]) for p in counted if p.identity in dead and p.identity != holder)
    ghost_identities = {p.identity for p, _ in ghosts}
    agents = tuple(p for p in counted if p.identity not in ghost_identities)
    target = _target(facts, dispatches, memory)
    listed = {d.id for d in dispatches}
    agent_sids = {p.sid: memory.listed.get(p.sid, now) for p in counted}
    vanished = {sid: at for sid, at in memory.vanished.items() if now - at < LISTED_AFTER}
    vanished |= {
        sid: now
        for sid, since in memory.listed.items()
        if sid not in agent_sids and now - since > LISTED_AFTER
    }
    memory = replace(
        memory,
        target=target,
        seen={d.id: memory.seen.get(d.id, now) for d in dispatches},
        refused=memory.refused & listed,
        dead=tuple(
            d for d in memory.dead if d.identity in ghost_identities or now - d.died_at < DEAD_REMEMBERED
        ),
        awaited=memory.awaited if memory.awaited in listed else "",
        listed=agent_sids,
        vanished=vanished,
        stuck={key: at for key, at in memory.stuck.items() if key in ghost_identities or key in listed},
    )
    humans = tuple(p for p in participants if p.is_human)
    ours = target is not None or facts.claim is not None or bool(ghosts)
    return _Look(facts, memory, ours, humans, agents, ghosts, dispatches, target, held_by_ignored)


def _ignores(policy: RoomPolicy, *names: str | None) -> bool:
    return is_ignored(names, policy.ignore_agents)


def _is_held_by_ignored(facts: RoomFacts, policy: RoomPolicy) -> bool:
    if facts.claim is None:
        return False
    name = next((a.name for a in facts.agents if a.id == facts.claim.agent_id), None)
    return _ignores(policy, name, facts.claim.identity)


def _target(facts: RoomFacts, dispatches: tuple[Dispatch, ...], memory: RoomMemory) -> Target | None:
    """The agent this room is to have; None: the room is not ours.

    A live holder is never displaced; else the application's own dispatch chooses, else what was asked for
    before, else the first configured agent that serves such rooms.  A dispatch without a name and without a
    job is what LiveKit gives every room by itself: it asks for nobody unless an unnamed agent is configured.
    """
    by_name: dict[str, AgentView] = {}
    for agent in facts.agents:
        if agent.name is not None and (agent.name not in by_name or _better(agent, by_name[agent.name])):
            by_name[agent.name] = agent
    by_id = {agent.id: agent for agent in facts.agents}
    if facts.claim is not None and facts.claim.agent_id in by_id:
        holder = by_id[facts.claim.agent_id]
        metadata = next((d.metadata for d in dispatches if d.id == facts.claim.dispatch_id), None)
        if metadata is None and memory.target is not None and memory.target.agent_id == holder.id:
            metadata = memory.target.metadata
        return Target(holder.name or "", holder.id, metadata or "")
    asked = sorted(
        (d for d in dispatches if d.agent_name in by_name and d.id not in memory.refused),
        key=lambda d: (d.created_at_ms, d.id),
    )
    if asked:
        return Target(asked[0].agent_name, by_name[asked[0].agent_name].id, asked[0].metadata)
    if memory.target is not None and memory.target.agent_id in by_id:
        name = by_id[memory.target.agent_id].name
        if name is None:
            return memory.target
        return replace(memory.target, agent_name=name, agent_id=by_name[name].id)
    if any(d.agent_name not in by_name and (d.agent_name or d.job_ids) for d in dispatches):
        return None
    for agent in facts.agents:
        if agent.name is not None and matches_any(facts.name, agent.rooms):
            return Target(agent.name, by_name[agent.name].id)
    return None


def _better(agent: AgentView, other: AgentView) -> bool:
    """Of two agents of one name: the one that can take a room now; the first configured else."""
    return (agent.ready and not agent.full) and not (other.ready and not other.full)


# --- what follows ---------------------------------------------------------------------------------


def _decide(look: _Look, policy: RoomPolicy, now: float) -> Decision:
    ghosts, again, ghost_conflicts, tries = _plan_ghosts(look, now)
    extra = _plan_extra_agents(look, policy, now)
    stale = _plan_dispatches(look, now)
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


@dataclass(frozen=True, slots=True)
class _Part:
    actions: tuple[Action, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    looks: tuple[float, ...] = ()
    suspects: Mapping[str, float] = field(default_factory=dict)


def _plan_ghosts(
    look: _Look, now: float
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
        if d.id != holder and (dead := _dead_of(look, d)) is not None
    )
    stuck = look.memory.stuck
    actions: tuple[RemoveParticipant | DeleteDispatch, ...] = (*removals, *deletions)
    fresh = tuple(a for a in actions if _key(a) not in stuck)
    again = tuple(a for a in actions if _key(a) in stuck and now >= stuck[_key(a)] + TRY_AGAIN)
    tries = [stuck[_key(a)] + TRY_AGAIN for a in actions if _key(a) in stuck and a not in again]
    return fresh, again, conflicts, tries


def _dead_of(look: _Look, dispatch: Dispatch) -> DeadJob | None:
    """The dead job that this dispatch was for; nothing more will come of it.

    A job is listed with its dispatch only 5 s after it was launched, so what the job itself told counts, too.
    """
    told = next((d for d in look.memory.dead if d.dispatch_id == dispatch.id), None)
    if told is not None or not dispatch.job_ids:
        return told
    by_job = {d.job_id: d for d in look.memory.dead}
    return by_job[dispatch.job_ids[-1]] if all(job in by_job for job in dispatch.job_ids) else None


def _plan_extra_agents(look: _Look, policy: RoomPolicy, now: float) -> _Part:
    others = tuple(a for a in look.agents if a.instance is not None and a.instance != policy.instance)
    reported = tuple(Conflict(ConflictKind.FOREIGN_AGENT, a.identity) for a in others)
    rivals = tuple(a for a in look.agents if a not in others)
    sure = tuple(a for a in rivals if not look.doubtful(a))
    doubts = [look.memory.vanished[a.sid] + LISTED_AFTER for a in rivals if look.doubtful(a)]
    rivals = sure or rivals  # who may be gone is no reason to remove who is there
    configured = frozenset(a.identity for a in rivals if _agent_id(look, a))
    reported += tuple(
        Conflict(ConflictKind.FOREIGN_AGENT, a.identity) for a in rivals if a.identity not in configured
    )
    if len(rivals) < 2:
        return _Part(conflicts=reported, looks=tuple(doubts))
    claim = look.facts.claim
    stays = winner(rivals, claim, configured)
    decided = claim is not None and claim.state is ClaimState.LIVE and stays.identity == claim.identity
    actions: list[Action] = []
    conflicts: list[Conflict] = list(reported)
    looks: list[float] = list(doubts)
    suspects: dict[str, float] = {}
    for loser in (a for a in rivals if a is not stays):
        agent_id = _agent_id(look, loser)
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
                if loser.identity in _identities(d) and stays.identity not in _identities(d)
            )
        else:
            suspects[loser.identity] = first_seen
            looks.append(max(first_seen + wait, now + SECOND_LOOK) if too_old else first_seen + wait)
    return _Part(tuple(actions), tuple(conflicts), tuple(looks), suspects)


def _plan_dispatches(look: _Look, now: float) -> _Part:
    """Refused dispatches go at once; those beside the holder's, or beside the best, after a second look."""
    actions: list[Action] = []
    conflicts: list[Conflict] = []
    looks: list[float] = []
    suspects: dict[str, float] = {}
    for d in look.dispatches:
        # LiveKit makes several jobs of one dispatch for workers of publishers: the holder is one of them.
        if d.id in look.memory.refused and not _is_holders(look, d):
            actions.append(
                DeleteDispatch(d.id, ConflictKind.DUPLICATE_REQUEST, _id_of_name(look, d.agent_name))
            )
    names = {agent.name for agent in look.facts.agents}
    by_name: dict[str, list[Dispatch]] = {}
    for d in look.dispatches:
        if d.agent_name in names and d.id not in look.memory.refused:
            by_name.setdefault(d.agent_name, []).append(d)
    for name, dispatches in by_name.items():
        known_at = _told_apart_at(look, dispatches, now)
        for d in _superfluous(look, name, dispatches):
            agent_id = _id_of_name(look, name)
            conflicts.append(Conflict(ConflictKind.DUPLICATE_DISPATCH, d.id, agent_id))
            first_seen = look.memory.suspects.get(d.id, now)
            sure_at = max(first_seen + SECOND_LOOK, known_at)
            if now >= sure_at:
                actions.append(DeleteDispatch(d.id, ConflictKind.DUPLICATE_DISPATCH, agent_id))
            else:
                suspects[d.id] = first_seen
                looks.append(sure_at)
    return _Part(tuple(actions), tuple(conflicts), tuple(looks), suspects)


def _is_holders(look: _Look, dispatch: Dispatch) -> bool:
    claim = look.facts.claim
    return claim is not None and (dispatch.id == claim.dispatch_id or claim.job_id in dispatch.job_ids)


def _told_apart_at(look: _Look, dispatches: list[Dispatch], now: float) -> float:
    """When it is known which of them brings the agent that stays: the claim tells, or their jobs."""
    if look.facts.claim is not None or all(d.job_ids for d in dispatches):
        return now
    return max(look.memory.seen.get(d.id, now) for d in dispatches) + JOBS_LISTED


def _superfluous(look: _Look, name: str, dispatches: list[Dispatch]) -> list[Dispatch]:
    """Of those for one agent name, all but the one that has brought, or will bring, the agent that stays.

    The holder's own may be gone, since a restart of LiveKit forgets dispatches: then none of these did.
    """
    claim = look.facts.claim
    names = {agent.id: agent.name for agent in look.facts.agents}
    if claim is not None and claim.joined and names.get(claim.agent_id) == name:
        return [d for d in dispatches if not _is_holders(look, d)]
    if len(dispatches) < 2:
        return []
    present = {a.identity for a in look.agents}
    kept = min(
        dispatches,
        key=lambda d: (
            not _is_holders(look, d),
            not present & _identities(d),
            not d.job_ids,
            d.created_at_ms,
            d.id,
        ),
    )
    return [d for d in dispatches if d is not kept]


def _identities(dispatch: Dispatch) -> frozenset[str]:
    """Participants that a dispatch brings, as long as the script keeps LiveKit's own identities."""
    return frozenset(f"agent-{job}" for job in dispatch.job_ids)


def _agent_id(look: _Look, participant: Participant) -> str:
    """The configured agent that accounts for this participant, or nothing."""
    claim = look.facts.claim
    if claim is not None and participant.identity == claim.identity:
        return claim.agent_id
    ids = {agent.id for agent in look.facts.agents}
    if participant.agent_id in ids:
        return participant.agent_id or ""
    return _id_of_name(look, participant.agent_name)


def _id_of_name(look: _Look, name: str) -> str:
    if look.target is not None and look.target.agent_name == name and look.target.agent_id:
        return look.target.agent_id
    return next((agent.id for agent in look.facts.agents if agent.name == name), "")


def _with_agent(
    look: _Look,
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
    agent_id = _agent_id(look, look.agents[0])
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


def _came(look: _Look, dispatch: Dispatch) -> bool:
    claim = look.facts.claim
    if claim is not None and claim.dispatch_id == dispatch.id:
        return True
    return any(a.identity in _identities(dispatch) for a in look.agents)


def _empty(
    look: _Look,
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
    look: _Look,
    policy: RoomPolicy,
    memory: RoomMemory,
    now: float,
    actions: tuple[Action, ...],
    again: tuple[Action, ...],
    conflicts: tuple[Conflict, ...],
    looks: list[float],
) -> Decision:
    """A human is there and no agent is."""
    if memory.agent_since is not None and now - memory.agent_since >= STAYED:
        memory = replace(memory, attempts=0, next_attempt_at=0.0)
    memory = _note_silence(look, replace(memory, agent_since=None), now)
    step = _next_step(look, policy, memory, now)
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


def _note_silence(look: _Look, memory: RoomMemory, now: float) -> RoomMemory:
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


def _blame(look: _Look, now: float) -> RecoveryCause:
    if look.facts.livekit_since and now - look.facts.livekit_since < LIVEKIT_RESTART_BLAMED:
        return RecoveryCause.LIVEKIT_RESTART
    return RecoveryCause.OTHER


@dataclass(frozen=True, slots=True)
class _Step:
    memory: RoomMemory
    reason: str
    actions: tuple[Action, ...] = ()
    look_at: float | None = None


def _next_step(look: _Look, policy: RoomPolicy, memory: RoomMemory, now: float) -> _Step:
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
        if d.agent_name == target.agent_name and d.id not in memory.refused and _dead_of(look, d) is None
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


def _lost_at(look: _Look, dispatch: Dispatch, policy: RoomPolicy, memory: RoomMemory, now: float) -> float:
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


def _for_no_worker_at(look: _Look, dispatch: Dispatch, seen: float) -> float | None:
    """When it is sure that no worker was there to take it; None: one may have been.

    LiveKit launches a dispatch's job once, when it is made; one without a job that is older than the
    registration of every worker of that name is not tried again.
    """
    if dispatch.job_ids:
        return None
    ready = [a.ready_since for a in look.facts.agents if a.name == dispatch.agent_name and a.ready]
    later = [since for since in ready if since is not None and since > seen]
    return max(later) + SETTLE if later and len(later) == len(ready) else None


def _tell(conflicts: tuple[Conflict, ...]) -> str:
    kinds = sorted({c.kind.value.replace("_", " ") for c in conflicts})
    return ", ".join(kinds)
