"""A model of one LiveKit server: its rooms, who is in them, and their dispatches.

One rule: it does what the real server was seen to do, also where that is unfortunate; the contract tests
ask both the same questions.  It knows sessions, not processes: a client whose process is dead stays
listed until it times out.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from supervisor.core.model import DEFAULT_IDENTITY_PREFIX, Participant, ParticipantKind
from tests.simulation import model_facts as facts
from tests.simulation.model_launcher import Launcher
from tests.simulation.model_ports import Client, DispatchState, ModelDispatch, Offer, Why, WorkerEnd


@dataclass(slots=True)
class Session:
    client: Client
    participant: Participant
    timers: list[asyncio.TimerHandle] = field(default_factory=list)

    def cancel(self) -> None:
        for timer in self.timers:
            timer.cancel()


@dataclass(slots=True)
class ModelRoom:
    name: str
    sid: str
    agents: tuple[str, ...]
    """Names of the agents that it dispatches when it is made."""
    created_at: float
    served: bool = True
    """False: the store has it, and the node that had it is gone."""
    sessions: dict[str, Session] = field(default_factory=dict)
    dispatches: dict[str, ModelDispatch] = field(default_factory=dict)
    human_was_here: bool = False
    last_left_at: float | None = None
    closing: asyncio.TimerHandle | None = None
    history: deque[tuple[float, tuple[Participant, ...]]] = field(default_factory=lambda: deque(maxlen=50))

    def participants(self) -> tuple[Participant, ...]:
        return tuple(session.participant for session in self.sessions.values())

    def participants_at(self, when: float) -> tuple[Participant, ...]:
        """As a reader who lags behind sees it."""
        older = [seen for at, seen in self.history if at <= when]
        return older[-1] if older else ()

    def audible(self) -> tuple[str, ...]:
        """The agents that a human in this room hears: not what is listed, what lives."""
        return tuple(
            s.participant.identity
            for s in self.sessions.values()
            if s.participant.is_agent and s.participant.has_track and s.client.alive and s.client.makes_sound
        )

    def humans(self) -> int:
        """Those who are there to hear something."""
        return sum(s.participant.is_human and s.client.alive for s in self.sessions.values())


_DEPENDENT = frozenset({ParticipantKind.AGENT, ParticipantKind.EGRESS})


class ModelServer:
    """Every method happens at once; what takes time is set going."""

    def __init__(
        self, rng: random.Random, wall: Callable[[], float], webhook: Callable[[str, str, str], None]
    ) -> None:
        self.up = True
        self.rooms: dict[str, ModelRoom] = {}
        self.departure_timeout = facts.DEPARTURE_TIMEOUT
        self.steps = 0
        """Changes of any room so far."""
        self._rng = rng
        self._wall = wall
        self._webhook = webhook
        self._launcher = Launcher(rng)
        self._watchers: list[Callable[[str], None]] = []
        self._numbers = itertools.count(1)
        self._loop = asyncio.get_running_loop()

    def watch(self, on_change: Callable[[str], None]) -> None:
        """Tell the name of every room that has changed."""
        self._watchers.append(on_change)

    # --- clients ---

    def join(self, client: Client, room_name: str, agents: tuple[str, ...] = ()) -> bool:
        """False: the server is not there.  ``agents`` counts only where the room is made by this."""
        if not self.up:
            return False
        room = self._room(room_name, agents)
        previous = room.sessions.get(client.identity)
        if previous is not None:
            self._drop(room, previous, Why.DUPLICATE_IDENTITY)
        joined_at_ms = int(self._wall() * 1000)
        participant = Participant(
            client.identity, self._id("PA"), client.kind, joined_at_ms, False, dict(client.attributes)
        )
        session = Session(client, participant)
        room.sessions[client.identity] = session
        room.human_was_here |= client.kind not in _DEPENDENT
        self._webhook("participant_joined", room_name, room.sid)
        seconds = self._rng.uniform(*facts.TRACK_SECONDS)
        session.timers.append(self._loop.call_later(seconds, self._publish, room, session))
        self._changed(room)
        return True

    def leave(self, client: Client, room_name: str) -> None:
        """The client says goodbye."""
        found = self._session_of(client, room_name)
        if found is not None:
            self._drop(*found, Why.LEFT)

    def vanish(self, client: Client, room_name: str) -> None:
        """The client's process is dead, or its network; the server notices when ICE times out."""
        found = self._session_of(client, room_name)
        if found is not None:
            room, session = found
            timer = self._loop.call_later(facts.GHOST_SECONDS, self._drop, room, session, Why.TIMED_OUT)
            session.timers.append(timer)
            self.touch(room_name)

    def touch(self, room_name: str) -> None:
        """Something about a client has changed that the server does not list: it fell silent."""
        room = self.rooms.get(room_name)
        if room is not None:
            self._changed(room)

    # --- what the API does ---

    def remove(self, room_name: str, identity: str) -> bool:
        room = self.rooms.get(room_name)
        session = room.sessions.get(identity) if room is not None else None
        if room is None or session is None:
            return False
        self._drop(room, session, Why.REMOVED)
        return True

    def create_dispatch(self, room_name: str, agent_name: str, metadata: str = "") -> ModelDispatch:
        """One more each time; a missing room is made first, with its default dispatch."""
        room = self._room(room_name, ())
        dispatch = self._add_dispatch(room, agent_name, metadata)
        self._changed(room)
        return dispatch

    def delete_dispatch(self, room_name: str, dispatch_id: str) -> bool:
        room = self.rooms.get(room_name)
        dispatch = room.dispatches.pop(dispatch_id, None) if room is not None else None
        if room is None or dispatch is None:
            return False
        assigned = dispatch.state is DispatchState.ASSIGNED
        dispatch.state = DispatchState.DELETED
        if assigned:
            self._launcher.terminate(dispatch, self._put_out_job)
        self._changed(room)
        return True

    # --- the server's own life ---

    def crash(self, *, forget: bool = True) -> None:
        """SIGKILL.  With Redis behind it (``forget`` false) rooms outlive their node, sessions do not."""
        self.up = False
        rooms = list(self.rooms.values())
        self.rooms = {} if forget else self.rooms
        for room in rooms:
            self._abandon(room)
        self._launcher.crash()

    def start(self) -> None:
        self.up = True

    def register(self, worker: WorkerEnd) -> bool:
        if self.up:
            self._launcher.register(worker)
        return self.up

    def unregister(self, worker: WorkerEnd) -> None:
        self._launcher.unregister(worker)

    # --- rooms ---

    def _room(self, name: str, agents: tuple[str, ...]) -> ModelRoom:
        room = self.rooms.get(name)
        if room is None:
            # Without agents of its own a room asks for the unnamed one.
            room = ModelRoom(name, self._id("RM"), agents or ("",), self._loop.time())
            self.rooms[name] = room
        elif room.served:
            return room
        room.served = True
        room.human_was_here = False
        room.last_left_at = None
        self._webhook("room_started", name, room.sid)
        for agent in room.agents:
            self._add_dispatch(room, agent, "")
        self._close_later(room)
        return room

    def _close_later(self, room: ModelRoom) -> None:
        if room.closing is not None:
            room.closing.cancel()
        due = self._due(room) + self._rng.uniform(0.0, facts.ROOM_PURGE_INTERVAL)
        room.closing = self._loop.call_at(due, self._close_if_empty, room)

    def _due(self, room: ModelRoom) -> float:
        if room.human_was_here and room.last_left_at is not None:
            return room.last_left_at + self.departure_timeout
        return room.created_at + facts.EMPTY_TIMEOUT

    def _close_if_empty(self, room: ModelRoom) -> None:
        room.closing = None
        if any(s.participant.kind not in _DEPENDENT for s in room.sessions.values()):
            return  # whoever leaves sets it going again
        if self._loop.time() < self._due(room):
            self._close_later(room)
            return
        del self.rooms[room.name]
        self._webhook("room_finished", room.name, room.sid)
        self._end(room, Why.ROOM_CLOSED)

    def _abandon(self, room: ModelRoom) -> None:
        room.served = False
        if room.closing is not None:
            room.closing.cancel()
            room.closing = None
        self._end(room, Why.SERVER_GONE)

    def _end(self, room: ModelRoom, why: Why) -> None:
        sessions = list(room.sessions.values())
        room.sessions.clear()
        room.dispatches.clear()
        for session in sessions:
            session.cancel()
            if session.client.alive:
                session.client.put_out(why)
        self._changed(room)

    # --- sessions ---

    def _session_of(self, client: Client, room_name: str) -> tuple[ModelRoom, Session] | None:
        room = self.rooms.get(room_name)
        session = room.sessions.get(client.identity) if room is not None else None
        return (room, session) if room and session and session.client is client else None

    def _publish(self, room: ModelRoom, session: Session) -> None:
        session.participant = replace(session.participant, has_track=True)
        self._webhook("track_published", room.name, room.sid)
        self._changed(room)

    def _drop(self, room: ModelRoom, session: Session, why: Why) -> None:
        if room.sessions.get(session.participant.identity) is not session:
            return
        del room.sessions[session.participant.identity]
        session.cancel()
        room.last_left_at = self._loop.time()  # an agent's leaving counts, too
        self._close_later(room)
        self._webhook("participant_left", room.name, room.sid)
        if session.client.alive and why is not Why.LEFT:
            session.client.put_out(why)
        self._changed(room)

    def _changed(self, room: ModelRoom) -> None:
        self.steps += 1
        seen = room.participants()
        room.history.append((self._loop.time(), seen))
        humans = sum(p.is_human for p in seen)
        agents = sum(p.is_agent for p in seen)
        for session in list(room.sessions.values()):
            if session.client.alive:
                session.client.look_around(humans, agents)
        for watcher in self._watchers:
            watcher(room.name)

    def _put_out_job(self, room_name: str, job_id: str) -> None:
        room = self.rooms.get(room_name)
        session = room.sessions.get(DEFAULT_IDENTITY_PREFIX + job_id) if room is not None else None
        if room is not None and session is not None:
            self._drop(room, session, Why.REMOVED)

    # --- dispatches ---

    def _add_dispatch(self, room: ModelRoom, agent_name: str, metadata: str) -> ModelDispatch:
        dispatch = ModelDispatch(self._id("AD"), agent_name, room.name, metadata, int(self._wall() * 1000))
        room.dispatches[dispatch.id] = dispatch
        offer = Offer(self._id("AJ"), dispatch.id, agent_name, room.name, room.sid, metadata)
        self._launcher.launch(dispatch, offer, self._put_out_job)
        return dispatch

    def _id(self, prefix: str) -> str:
        return f"{prefix}_{next(self._numbers)}"
