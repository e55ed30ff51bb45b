"""One look at a room, sorted out: who is there, who is dead, and which agent it is to have.

One rule: whoever is on a list may have left a moment ago, and who is not may be there; what we know ourselves
of a job outweighs the list.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from supervisor.core.model import AgentView, DeadJob, Dispatch, Participant
from supervisor.core.patterns import is_ignored, matches_any
from supervisor.core.room import RoomFacts, RoomMemory, RoomPolicy, Target

DEAD_REMEMBERED = 60.0
"""Seconds that a dead job is remembered: ghosts last 21 s, and a stale read may list one once more."""
HAND_OVER = 1.0
"""Seconds that the dispatch of another agent may come before the end of the first, which makes room."""
REFUSAL_REMEMBERED = 5.0
"""Seconds for which it is known who was refused: looks, and what there is to be removed, may take some."""
LISTED_AFTER = 2.0
"""Seconds for which a stale list may show an agent that has left."""


@dataclass(frozen=True, slots=True)
class Look:
    """What it has found."""

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

    def agent_id_of(self, participant: Participant) -> str:
        """The configured agent that accounts for this participant, or nothing."""
        claim = self.facts.claim
        if claim is not None and participant.identity == claim.identity:
            return claim.agent_id
        ids = {agent.id for agent in self.facts.agents}
        if participant.agent_id in ids:
            return participant.agent_id or ""
        return self.id_of_name(participant.agent_name)

    def id_of_name(self, name: str) -> str:
        if self.target is not None and self.target.agent_name == name and self.target.agent_id:
            return self.target.agent_id
        return next((agent.id for agent in self.facts.agents if agent.name == name), "")

    def is_holders(self, dispatch: Dispatch) -> bool:
        claim = self.facts.claim
        return claim is not None and (dispatch.id == claim.dispatch_id or claim.job_id in dispatch.job_ids)

    def dead_of(self, dispatch: Dispatch) -> DeadJob | None:
        """The dead job that this dispatch was for; nothing more will come of it.

        A job is listed with its dispatch only 5 s after it was launched, so what the job told counts, too.
        """
        return _dead_of(self.memory.dead, dispatch)


def look_at_room(
    facts: RoomFacts,
    participants: tuple[Participant, ...],
    dispatches: tuple[Dispatch, ...],
    policy: RoomPolicy,
    memory: RoomMemory,
    now: float,
) -> Look:
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
    memory = replace(memory, turned_away=_turned_away(facts, dispatches, memory, now))
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
    return Look(facts, memory, ours, humans, agents, ghosts, dispatches, target, held_by_ignored)


def _dead_of(dead: tuple[DeadJob, ...], dispatch: Dispatch) -> DeadJob | None:
    told = next((d for d in dead if d.dispatch_id == dispatch.id), None)
    if told is not None or not dispatch.job_ids:
        return told
    by_job = {d.job_id: d for d in dead}
    return by_job[dispatch.job_ids[-1]] if all(job in by_job for job in dispatch.job_ids) else None


def _ignores(policy: RoomPolicy, *names: str | None) -> bool:
    return is_ignored(names, policy.ignore_agents)


def _is_held_by_ignored(facts: RoomFacts, policy: RoomPolicy) -> bool:
    if facts.claim is None:
        return False
    name = next((a.name for a in facts.agents if a.id == facts.claim.agent_id), None)
    return _ignores(policy, name, facts.claim.identity)


def _target(facts: RoomFacts, dispatches: tuple[Dispatch, ...], memory: RoomMemory) -> Target | None:
    """The agent this room is to have; None: the room is not ours.

    A live holder is never displaced; else the application's own dispatch chooses; else :func:`_heir`; else
    what was asked for before; else the first configured agent that serves such rooms.  A dispatch without a
    name and without a job is what LiveKit gives every room by itself: it asks for nobody unless an unnamed
    agent is configured.
    """
    by_name = _by_name(facts)
    by_id = {agent.id: agent for agent in facts.agents}
    if facts.claim is not None and facts.claim.agent_id in by_id:
        holder = by_id[facts.claim.agent_id]
        metadata = next((d.metadata for d in dispatches if d.id == facts.claim.dispatch_id), None)
        if metadata is None and memory.target is not None and memory.target.agent_id == holder.id:
            metadata = memory.target.metadata
        return Target(holder.name or "", holder.id, metadata or "")
    heir = _heir(memory)
    asked = sorted(
        (
            d
            for d in dispatches
            if d.agent_name in by_name
            and d.id not in memory.refused
            and (heir is None or _dead_of(memory.dead, d) is None)
        ),
        key=lambda d: (d.created_at_ms, d.id),
    )
    if asked:
        return Target(asked[0].agent_name, by_name[asked[0].agent_name].id, asked[0].metadata)
    if heir is not None and heir.agent_id in by_id:
        return heir
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


def _turned_away(
    facts: RoomFacts, dispatches: tuple[Dispatch, ...], memory: RoomMemory, now: float
) -> tuple[Target, float] | None:
    """Who was refused last.  A hand-over whose second half overtakes the first is meant all the same."""
    if memory.turned_away is None and not memory.refused:
        return None
    by_name = _by_name(facts)
    known = [] if memory.turned_away is None else [memory.turned_away]
    known += [
        (Target(d.agent_name, by_name[d.agent_name].id, d.metadata), memory.seen.get(d.id, now))
        for d in dispatches
        if d.id in memory.refused and d.agent_name in by_name
    ]
    news = [(target, at) for target, at in known if now - at < REFUSAL_REMEMBERED]
    return max(news, key=lambda one: one[1], default=None)


def _heir(memory: RoomMemory) -> Target | None:
    """Another agent, that was refused a moment before the first one ended in good order."""
    if memory.turned_away is None:
        return None
    target, at = memory.turned_away
    ends = (d for d in memory.dead if d.left and d.cause is None and d.agent_id != target.agent_id)
    return target if any(abs(d.died_at - at) < HAND_OVER for d in ends) else None


def _by_name(facts: RoomFacts) -> dict[str, AgentView]:
    found: dict[str, AgentView] = {}
    for agent in facts.agents:
        if agent.name is not None and (agent.name not in found or _better(agent, found[agent.name])):
            found[agent.name] = agent
    return found


def _better(agent: AgentView, other: AgentView) -> bool:
    """Of two agents of one name: the one that can take a room now; the first configured else."""
    return (agent.ready and not agent.full) and not (other.ready and not other.full)
