"""The room reconciler: read a room, ask :mod:`supervisor.core.room_plan`, do one thing, look again.

The rule: every write follows a read and its decision directly, with nothing in between; and a room of
which anything could not be read is left alone and read again, where it keeps no other waiting.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from supervisor.core.conflicts import ConflictKind, Resolution
from supervisor.core.model import AgentView, Claim, DeadJob, Dispatch, Participant, RoomState, Unknown
from supervisor.core.patterns import matches_any
from supervisor.core.ports import ClaimStore, Failed, LiveKit, RequestOutcome, StoredIntent
from supervisor.core.room import (
    Action,
    CreateDispatch,
    Decision,
    DeleteDispatch,
    RemoveParticipant,
    RevokeClaim,
    RoomFacts,
    RoomMemory,
    RoomPolicy,
    Target,
    after_dispatch,
    after_failure,
)
from supervisor.core.room_plan import LIVEKIT_RESTART_BLAMED, plan
from supervisor.events import (
    DispatchChanged,
    DispatchOutcome,
    EventBus,
    Loop,
    ParticipantRemoved,
    RoomRecovered,
    RoomStateChanged,
)
from supervisor.reconcile.claimbook import ClaimBook
from supervisor.reconcile.glance import Glance, is_quiet
from supervisor.reconcile.queue import Late, Reconciler, Requeue
from supervisor.reconcile.standing import StandingConflicts

T = TypeVar("T")

MAX_STEPS = 50
"""Writes in one visit to a room; more wait for the next visit, so that no room starves the others."""
CONFIRM_SECONDS = 1.5
"""After a conflict that vanished by itself; ``ListParticipants`` may lag behind by about a second."""
CONCURRENCY = 64
PROMPT_SECONDS = 1.0
"""Within which a room that a node serves has answered.  LiveKit looks for 3 s for the node of a room whose
node is dead; with Redis behind it such rooms are listed for ever."""
SIDS_REMEMBERED = 4
_NOBODY_MOVED = frozenset(
    {"track_published", "track_unpublished", "egress_started", "egress_updated", "egress_ended"}
)
"""Webhook events, some of which come as often as people do."""


class Workers(Protocol):
    """What rooms need to know of workers."""

    def views(self) -> tuple[AgentView, ...]: ...

    def wake_soon(self, agent_id: str) -> None: ...


@dataclass(frozen=True, slots=True)
class RoomView:
    """What the operator is shown of a room, as of the last look."""

    name: str
    sid: str
    state: RoomState
    reason: str
    humans: int
    agents: tuple[tuple[str, str | None], ...]
    """Identity and agent ID of each agent participant."""


@dataclass(slots=True)
class _Room:
    memory: RoomMemory = field(default_factory=RoomMemory)
    view: RoomView | None = None
    ours: bool = False
    intent_saved: bool = False
    confirm: bool = False
    """A conflict has vanished by itself: perhaps the list was only stale, so look once more."""
    glance: Glance = field(default_factory=Glance)
    past: tuple[str, ...] = ()
    """SIDs of rooms of this name that are over: a late word of them is no news."""


class RoomReconciler:
    """All rooms of one LiveKit server."""

    def __init__(
        self,
        livekit: LiveKit,
        book: ClaimBook,
        workers: Workers,
        store: ClaimStore,
        bus: EventBus,
        clock: Callable[[], float],
        *,
        policy: RoomPolicy,
        ignore: tuple[str, ...],
        enforce: bool,
        random: Callable[[], float],
        livekit_since: Callable[[], float],
    ) -> None:
        self._livekit = livekit
        self._book = book
        self._workers = workers
        self._store = store
        self._bus = bus
        self._clock = clock
        self._random = random
        self._livekit_since = livekit_since
        self._rooms: dict[str, _Room] = {}
        self._sids: dict[str, str] = {}
        self._found_full: dict[str, set[str]] = {}
        """Agents that had as many rooms as they may, and the rooms that wait for them."""
        self._woken: set[str] = set()
        """Something happened there, so a glance will not do."""
        self._counts: Counter[RoomState] = Counter()
        self._conflicts = StandingConflicts(bus, clock)
        self.policy = policy
        self.ignore = ignore
        self.enforce = enforce
        self._reconciler = Reconciler(
            Loop.ROOMS, self._reconcile, bus, clock, concurrency=CONCURRENCY, random=random
        )
        book.listen(self)

    @property
    def waiting(self) -> int:
        """Keys that nobody has taken yet: for the watchdog."""
        return self._reconciler.queue.waiting

    async def run(self) -> None:
        """Until cancelled."""
        await self._reconciler.run()

    # --- what wakes a room ---

    def wake(self, room: str) -> None:
        """Look at this room soon."""
        if not matches_any(room, self.ignore):
            self._woken.add(room)
            self._reconciler.queue.add(room)

    def notice(self, event: str, room: str, sid: str = "") -> None:
        """A webhook came: of nobody's coming or going a glance tells enough.

        It comes from the node that serves the room, which therefore answers: its turn is first.  Of a room
        that is over nobody answers soon, and many may end at once.
        """
        if matches_any(room, self.ignore):
            return
        self._note_sid(room, sid)
        if event not in _NOBODY_MOVED:
            self._woken.add(room)
        over = event == "room_finished"
        if over:
            self._reconciler.queue.set_late(room, True)
        self._reconciler.queue.add(room, first=not over)

    def _note_sid(self, name: str, sid: str) -> None:
        """Of an earlier room of the same name only its dead are remembered: whoever was asked for there was
        asked for by others.  A restart of LiveKit makes every room anew, and means the same one."""
        room, known = self._rooms.get(name), self._sids.get(name, "")
        if not sid or sid == known or (room is not None and sid in room.past):
            return
        self._sids[name] = sid
        if not known or room is None:
            return
        room.past = (*room.past, known)[-SIDS_REMEMBERED:]
        self._woken.add(name)
        since = self._livekit_since()
        restarted = since > 0 and self._clock() - since < LIVEKIT_RESTART_BLAMED
        if restarted or self._book.table.get(name) is not None:
            return
        room.memory = RoomMemory(dead=room.memory.dead)
        if room.intent_saved:
            self._store.delete_intent(name)
            room.intent_saved = False

    def wake_all(self) -> None:
        """Also what is to be ignored by now, and so to be forgotten."""
        for name in self._rooms:
            self._woken.add(name)
            self._reconciler.queue.add(name)

    def wake_agent(self, agent_id: str) -> None:
        """An agent has become ready, or has gone: look at the rooms that wait for it, or had it."""
        for name, room in self._rooms.items():
            target = room.memory.target
            waits = room.view is not None and room.view.state is RoomState.MISSING_AGENT
            if waits or (target is not None and target.agent_id == agent_id):
                self.wake(name)

    def slot_freed(self, agent_id: str) -> None:
        """It has a room less: those that found it full may have it now, and its drain may be over."""
        self._workers.wake_soon(agent_id)
        for name in self._found_full.pop(agent_id, ()):
            self.wake(name)

    def note_death(self, dead: DeadJob) -> None:
        if matches_any(dead.room, self.ignore):
            return  # nobody would ever look at it, or forget it
        room = self._rooms.setdefault(dead.room, _Room())
        room.memory = replace(room.memory, dead=(*room.memory.dead, dead))
        self.wake(dead.room)

    def note_refused(self, room: str, dispatch_id: str) -> None:
        if dispatch_id and not matches_any(room, self.ignore):
            known = self._rooms.setdefault(room, _Room())
            known.memory = replace(known.memory, refused=known.memory.refused | {dispatch_id})
        self.wake(room)

    async def restore(self) -> None:
        """Take over which agents had been asked for in rooms, before the daemon was restarted."""
        for intent in await self._store.load_intents():
            room = self._rooms.setdefault(intent.room, _Room())
            target = Target("", intent.agent_id, intent.metadata)
            room.memory = replace(room.memory, target=target)
            room.intent_saved = True

    async def resync(self, spread: float) -> None:
        """Find what webhooks have lost: look at every room that may need it, within ``spread`` seconds."""
        rooms = await self._livekit.list_rooms()
        if isinstance(rooms, Unknown):
            self.wake_all()
            return
        before, listed = set(self._sids), {room.name: room.sid for room in rooms}
        new = listed.keys() - before if before else ()
        for name, sid in listed.items():
            self._note_sid(name, sid)
        # a glance at a room that is gone would find nothing new
        self._woken.update(name for name in before if name in self._rooms and name not in listed)
        self._sids = {name: self._sids.get(name, sid) for name, sid in listed.items()}
        claimed = {claim.room for claim in self._book.table.all()}
        names = [room.name for room in rooms if room.num_participants or room.name not in self._rooms]
        names = list(dict.fromkeys([*names, *self._rooms, *claimed]))
        names = [name for name in names if not matches_any(name, self.ignore)]
        now = self._clock()
        for number, name in enumerate(names):
            if name in new:  # made since the last list, so a node serves it
                self._reconciler.queue.add(name, first=True)
            else:
                self._reconciler.queue.add_at(name, now + spread * number / len(names))

    # --- what is shown ---

    def views(self) -> tuple[tuple[RoomView, Claim | None], ...]:
        """All rooms of ours, and the claims on them."""
        shown = [r.view for r in self._rooms.values() if r.view is not None and r.ours]
        return tuple(
            (replace(view, sid=self._sids.get(view.name, view.sid)), self._book.table.get(view.name))
            for view in sorted(shown, key=lambda v: v.name)
        )

    def counts(self) -> dict[RoomState, int]:
        return {state: self._counts[state] for state in RoomState}

    def unresolved(self) -> dict[ConflictKind, int]:
        return self._conflicts.unresolved()

    # --- one room ---

    async def _reconcile(self, name: str) -> float | None:
        if matches_any(name, self.ignore):
            self._forget(name, "ignored")
            return None
        self._reconciler.queue.forget(name)
        woken = name in self._woken
        self._woken.discard(name)
        if not woken and await self._is_still_quiet(name):
            return None
        decision = None
        for _ in range(MAX_STEPS):
            decision = await self._decide(name)
            if decision is None:
                return None
            if not decision.actions or not self.enforce:
                return self._next_look(name, decision)
            if not await self._apply(name, decision.actions[0]):
                self._remember_failure(name, decision.actions[0])
                raise Requeue
        return self._clock()

    def _remember_failure(self, name: str, action: Action) -> None:
        room = self._rooms.get(name)
        if room is not None:
            room.memory = after_failure(room.memory, action, self._clock())

    def _next_look(self, name: str, decision: Decision) -> float | None:
        room = self._rooms[name]
        if not room.confirm:
            return decision.look_at
        room.confirm = False
        room.glance.dispatches = None
        soon = self._clock() + CONFIRM_SECONDS
        return soon if decision.look_at is None else min(soon, decision.look_at)

    async def _is_still_quiet(self, name: str) -> bool:
        room = self._rooms.get(name)
        if room is None or not room.glance.may_do or self._reconciler.queue.is_late(name):
            return False
        participants = await self._promptly(name, self._livekit.list_participants(name))
        if self._rooms.get(name) is not room:
            return False
        claim = self._book.table.get(name)
        if room.glance.is_unchanged(participants, claim):
            return True
        dispatches = room.glance.take(participants, claim)
        if dispatches is None:
            return False
        now = self._clock()
        decision = plan(self._facts(name, participants, dispatches), self.policy, room.memory, now)
        if not is_quiet(decision):
            return False
        room.memory = decision.memory
        self._record(name, room, decision, participants)
        return True

    def _facts(
        self,
        name: str,
        participants: tuple[Participant, ...] | Unknown,
        dispatches: tuple[Dispatch, ...] | Unknown,
        age: float = 0.0,
    ) -> RoomFacts:
        return RoomFacts(
            name=name,
            participants=participants,
            dispatches=dispatches,
            claim=self._book.table.get(name),
            agents=self._workers.views(),
            livekit_since=self._livekit_since(),
            age=age,
        )

    async def _decide(self, name: str) -> Decision | None:
        """Read and decide; None: the room is gone, or none of ours."""
        asked = self._clock()
        participants, dispatches = await self._read(name)
        now = self._clock()
        room = self._rooms.setdefault(name, _Room())
        facts = self._facts(name, participants, dispatches, age=now - asked)
        if facts.participants == () and facts.dispatches == () and self._over(room, facts, now):
            self._forget(name, "gone")
            return None
        decision = plan(facts, self.policy, room.memory, now)
        if not decision.ours:
            self._forget(name, "not ours")
            return None
        room.memory = decision.memory
        room.glance.note(participants, dispatches, facts.claim, decision)
        if decision.state is not RoomState.UNKNOWN or room.ours or self._serves(name):
            self._record(name, room, decision, participants)
        if decision.state is RoomState.UNKNOWN:
            raise Requeue
        return decision

    async def _read(
        self, name: str
    ) -> tuple[tuple[Participant, ...] | Unknown, tuple[Dispatch, ...] | Unknown]:
        """Both at once, where an answer is to be expected."""
        livekit, queue = self._livekit, self._reconciler.queue
        if not queue.is_late(name):
            reads = asyncio.gather(livekit.list_participants(name), livekit.list_dispatches(name))
            return await self._promptly(name, reads)
        asked = self._clock()
        participants = await livekit.list_participants(name)
        if isinstance(participants, Unknown):
            return participants, participants
        queue.set_late(name, self._clock() - asked > PROMPT_SECONDS)
        return participants, await livekit.list_dispatches(name)

    async def _promptly(self, name: str, answer: Awaitable[T]) -> T:
        """The answer, if it comes soon; else the room is asked again among those that are late."""
        try:
            async with asyncio.timeout(PROMPT_SECONDS):
                return await answer
        except TimeoutError:
            raise Late from None

    def _serves(self, name: str) -> bool:
        """Whether rooms of that name are ours, as long as no dispatch says otherwise."""
        return any(matches_any(name, agent.rooms) for agent in self._workers.views())

    @staticmethod
    def _over(room: _Room, facts: RoomFacts, now: float) -> bool:
        """An empty, unlisted room is over, unless a job holds it and may be on its way back."""
        died = any(d.cause is not None and now - d.died_at < 1.0 for d in room.memory.dead)
        return facts.claim is None and not died

    def _forget(self, name: str, why: str) -> None:
        room = self._rooms.pop(name, None)
        self._reconciler.queue.forget(name)
        self._reconciler.queue.set_late(name, False)
        if room is None:
            return
        self._conflicts.forget(name)
        if room.intent_saved:
            self._store.delete_intent(name)
        if room.view is not None and room.ours:
            self._counts[room.view.state] -= 1
            self._bus.publish(RoomStateChanged(room=name, old=room.view.state, new="gone", reason=why))

    def _record(
        self,
        name: str,
        room: _Room,
        decision: Decision,
        participants: tuple[Participant, ...] | Unknown,
    ) -> None:
        self._show(name, room, decision, participants)
        target = decision.memory.target
        if decision.state is RoomState.MISSING_AGENT and target is not None:
            self._note_full(name, target.agent_id)
        if decision.state is not RoomState.UNKNOWN:
            room.confirm |= self._conflicts.record(name, decision, enforce=self.enforce)
        if decision.arrived:
            self._dispatch_event(name, decision.memory.target, DispatchOutcome.JOINED, decision.arrived)
        if decision.recovery is not None:
            self._bus.publish(
                RoomRecovered(
                    room=name,
                    agent_id=decision.recovery.agent_id,
                    cause=decision.recovery.cause,
                    seconds=decision.recovery.seconds,
                )
            )
        if room.intent_saved and decision.state in (RoomState.HEALTHY, RoomState.EMPTY):
            self._store.delete_intent(name)
            room.intent_saved = False

    def _note_full(self, name: str, agent_id: str) -> None:
        if any(agent.id == agent_id and agent.full for agent in self._workers.views()):
            self._found_full.setdefault(agent_id, set()).add(name)

    def _show(
        self,
        name: str,
        room: _Room,
        decision: Decision,
        participants: tuple[Participant, ...] | Unknown,
    ) -> None:
        old = room.view.state if room.view is not None and room.ours else None
        if isinstance(participants, Unknown):
            humans, agents = (room.view.humans, room.view.agents) if room.view else (0, ())
        else:
            humans = sum(p.is_human for p in participants)
            agents = tuple((p.identity, p.agent_id) for p in participants if p.is_agent)
        room.ours = True
        room.view = RoomView(name, self._sids.get(name, ""), decision.state, decision.reason, humans, agents)
        if old is not decision.state:
            if old is not None:
                self._counts[old] -= 1
            self._counts[decision.state] += 1
            self._bus.publish(
                RoomStateChanged(room=name, old=old or "", new=decision.state, reason=decision.reason)
            )

    # --- actions ---

    async def _apply(self, name: str, action: Action) -> bool:
        """Do it; False: it failed, and nobody knows how far."""
        match action:
            case RemoveParticipant():
                return await self._remove(name, action)
            case DeleteDispatch():
                return await self._delete(name, action)
            case CreateDispatch():
                return await self._create(name, action.target)
            case RevokeClaim():
                self._book.revoke(name, action.job_id, "it did not come back")
                return True

    async def _remove(self, name: str, action: RemoveParticipant) -> bool:
        result = await self._livekit.remove_participant(name, action.identity)
        failed = isinstance(result, Failed)
        self._bus.publish(
            ParticipantRemoved(
                room=name, identity=action.identity, reason=action.kind, outcome=result.outcome
            )
        )
        self._conflicts.note(
            name, action.kind, action.identity, Resolution.FAILED if failed else Resolution.EVICTED
        )
        if failed:
            return False
        if result.outcome is RequestOutcome.NOT_FOUND:
            await asyncio.sleep(0.02)  # the list was older than the fact: give it time to catch up
        return True

    async def _delete(self, name: str, action: DeleteDispatch) -> bool:
        room = self._rooms.setdefault(name, _Room())
        await self._keep_intent(name, room)
        result = await self._livekit.delete_dispatch(name, action.dispatch_id)
        failed = isinstance(result, Failed)
        lost = action.kind is ConflictKind.LOST_DISPATCH
        target = Target("", action.agent_id)
        if lost:
            self._dispatch_event(name, target, DispatchOutcome.LOST, action.dispatch_id)
        done = Resolution.REDISPATCHED if lost else Resolution.TERMINATED
        self._conflicts.note(name, action.kind, action.dispatch_id, Resolution.FAILED if failed else done)
        if isinstance(result, Failed):
            self._dispatch_event(name, target, DispatchOutcome.FAILED, action.dispatch_id, result.message)
        else:
            self._dispatch_event(name, target, DispatchOutcome.DELETED, action.dispatch_id)
        return not failed

    async def _create(self, name: str, target: Target) -> bool:
        result = await self._livekit.create_dispatch(name, target.agent_name, target.metadata)
        room = self._rooms.setdefault(name, _Room())
        if isinstance(result, Failed):
            room.memory = after_dispatch(room.memory, None, self._clock())
            self._dispatch_event(name, target, DispatchOutcome.FAILED, "", result.message)
            self._conflicts.note(name, ConflictKind.MISSING_AGENT, "", Resolution.FAILED)
            return False
        room.memory = after_dispatch(room.memory, result.id, self._clock())
        self._dispatch_event(name, target, DispatchOutcome.CREATED, result.id)
        self._conflicts.note(name, ConflictKind.MISSING_AGENT, "", Resolution.REDISPATCHED)
        return True

    async def _keep_intent(self, name: str, room: _Room) -> None:
        """Deleting a dispatch deletes what was asked for: remember it where a crash cannot reach.

        A store that fails, which it publishes, costs that safety and not the caller's agent: we go on.
        """
        target = room.memory.target
        if target is not None and not room.intent_saved:
            self._store.save_intent(StoredIntent(name, target.agent_id, target.metadata))
            room.intent_saved = True
            await self._store.flush()

    def _dispatch_event(
        self, name: str, target: Target | None, outcome: DispatchOutcome, dispatch_id: str, error: str = ""
    ) -> None:
        self._bus.publish(
            DispatchChanged(
                agent_id=target.agent_id if target is not None else "",
                room=name,
                outcome=outcome,
                dispatch_id=dispatch_id,
                error=error,
            )
        )
