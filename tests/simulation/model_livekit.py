"""The model's server API: :class:`supervisor.core.ports.LiveKit` with latency, stale reads and faults.

One rule: it answers what :class:`supervisor.livekit.api.LiveKitClient` answers in the same situation.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from supervisor.core.model import Dispatch, Participant, ParticipantKind, Room, Unknown
from supervisor.core.ports import Done, Failed, RequestOutcome
from supervisor.events import EventBus, LiveKitRequest
from tests.simulation import model_facts as facts
from tests.simulation.model_faults import ApiFaults, Fault
from tests.simulation.model_rooms import ModelRoom, ModelServer

T = TypeVar("T")

_NOT_FOUND = Failed(RequestOutcome.NOT_FOUND, "status 404, not_found")
_NO_ROOM = Failed(RequestOutcome.NOT_FOUND, "no such room")
_NO_RESPONSE = Failed(RequestOutcome.UNAVAILABLE, "status 503, unavailable: no response from servers")
_REFUSED = Failed(RequestOutcome.UNAVAILABLE, "connection refused")
_UNAUTHORIZED = Failed(RequestOutcome.UNAUTHORIZED, "status 401")
_ERROR = Failed(RequestOutcome.ERROR, "status 500, internal")


@dataclass(frozen=True, slots=True)
class Removal:
    """A participant that was removed through the API, and what was lost with it."""

    at: float
    room: str
    identity: str
    kind: ParticipantKind
    is_avatar: bool
    was_audible: bool
    others_audible: tuple[str, ...]
    humans: int
    others_listed: int = 0
    """Agents beside it, ghosts and silent ones included: all that anybody can know."""


@dataclass(frozen=True, slots=True)
class Write:
    """A write that was asked for; ``outcome`` is what the caller was told, ``done`` what happened."""

    at: float
    method: str
    room: str
    subject: str
    outcome: RequestOutcome
    done: bool


class ModelLiveKit:
    def __init__(
        self,
        server: ModelServer,
        rng: random.Random,
        faults: ApiFaults | None = None,
        bus: EventBus | None = None,
        timeout: float = 5.0,
    ) -> None:
        self.faults = faults or ApiFaults()
        self.removals: list[Removal] = []
        self.writes: list[Write] = []
        self._server = server
        self._rng = rng
        self._bus = bus or EventBus()
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()

    # --- reads ---

    async def list_rooms(self) -> tuple[Room, ...] | Unknown:
        answer = await self._call(
            "list_rooms", "", lambda: tuple(map(self._list_room, self._server.rooms.values()))
        )
        return _unknown(answer) if isinstance(answer, Failed) else answer

    async def list_participants(self, room: str) -> tuple[Participant, ...] | Unknown:
        answer = await self._call_in_room("list_participants", room, self._read)
        return _none_or_unknown(answer) if isinstance(answer, Failed) else answer

    async def list_dispatches(self, room: str) -> tuple[Dispatch, ...] | Unknown:
        def read(found: ModelRoom) -> tuple[Dispatch, ...]:
            return tuple(dispatch.read(self._loop.time()) for dispatch in found.dispatches.values())

        answer = await self._call_in_room("list_dispatches", room, read)
        return _none_or_unknown(answer) if isinstance(answer, Failed) else answer

    # --- writes ---

    async def remove_participant(self, room: str, identity: str) -> Done | Failed:
        done = False
        asked = self._loop.time()

        def remove() -> Done | Failed:
            nonlocal done
            done = self._remove(room, identity, asked)
            return Done() if done else _NOT_FOUND

        answer = _done(await self._call("remove_participant", room, remove))
        self._note("remove_participant", room, identity, answer.outcome, done)
        return answer

    async def create_dispatch(self, room: str, agent_name: str, metadata: str) -> Dispatch | Failed:
        made: list[Dispatch] = []

        def create() -> Dispatch:
            dispatch = self._server.create_dispatch(room, agent_name, metadata)
            made.append(dispatch.read(self._loop.time()))
            return made[0]

        answer = await self._call("create_dispatch", room, create)
        outcome = answer.outcome if isinstance(answer, Failed) else RequestOutcome.OK
        self._note("create_dispatch", room, made[0].id if made else "", outcome, bool(made))
        return answer

    async def delete_dispatch(self, room: str, dispatch_id: str) -> Done | Failed:
        done = False

        def delete(found: ModelRoom) -> Done | Failed:
            nonlocal done
            done = self._server.delete_dispatch(room, dispatch_id)
            return Done() if done else _NOT_FOUND

        answer = _done(await self._call_in_room("delete_dispatch", room, delete))
        self._note("delete_dispatch", room, dispatch_id, answer.outcome, done)
        return answer

    # --- what they do ---

    def _list_room(self, room: ModelRoom) -> Room:
        lag = self._rng.uniform(0.0, facts.NUM_PARTICIPANTS_LAG)
        seen = room.participants_at(self._loop.time() - lag)
        number = sum(p.kind is not ParticipantKind.AGENT for p in seen)
        return Room(room.name, room.sid, number, int(self._server.departure_timeout))

    def _read(self, room: ModelRoom) -> tuple[Participant, ...]:
        if self._rng.random() < self.faults.stale:
            return room.participants_at(self._loop.time() - self._rng.uniform(0.0, facts.STALE_SECONDS))
        return room.participants()

    def _remove(self, room_name: str, identity: str, asked: float) -> bool:
        room = self._server.rooms.get(room_name)
        if room is None or identity not in room.sessions:
            return False
        participant, audible = room.sessions[identity].participant, room.audible()
        others = tuple(other for other in audible if other != identity)
        listed = (*room.participants(), *room.participants_at(asked))
        self.removals.append(
            Removal(
                self._loop.time(),
                room_name,
                identity,
                participant.kind,
                participant.is_avatar,
                identity in audible,
                others,
                room.humans(),
                len({p.identity for p in listed if p.is_agent and p.identity != identity}),
            )
        )
        return self._server.remove(room_name, identity)

    def _note(self, method: str, room: str, subject: str, outcome: RequestOutcome, done: bool) -> None:
        self.writes.append(Write(self._loop.time(), method, room, subject, outcome, done))

    # --- how a call goes ---

    async def _call_in_room(
        self, method: str, room: str, do: Callable[[ModelRoom], T | Failed]
    ) -> T | Failed:
        """A call that only the node of the room can answer."""

        def find() -> T | Failed:
            found = self._server.rooms.get(room)
            if found is None:
                return _NO_ROOM
            return do(found) if found.served else _NO_RESPONSE

        return await self._call(method, room, find)

    async def _call(self, method: str, room: str, do: Callable[[], T | Failed]) -> T | Failed:
        started = self._loop.time()
        try:
            async with asyncio.timeout(self._timeout):
                answer = await self._attempt(method, room, do)
        except TimeoutError:
            answer = Failed(RequestOutcome.TIMEOUT, f"no answer within {self._timeout:g} s")
        failed = answer if isinstance(answer, Failed) else None
        self._bus.publish(
            LiveKitRequest(
                method=method,
                outcome=failed.outcome if failed else RequestOutcome.OK,
                seconds=self._loop.time() - started,
                error=failed.message if failed else "",
            )
        )
        return answer

    async def _attempt(self, method: str, room: str, do: Callable[[], T | Failed]) -> T | Failed:
        fault = self.faults.pick(method, room, self._loop.time(), self._rng)
        refusal = await self._suffer(fault)
        if refusal is not None:
            return refusal
        await asyncio.sleep(self._rng.uniform(*facts.CALL_SECONDS))
        if not self._server.up:
            return _REFUSED
        answer = do()
        if fault is Fault.ANSWER_LOST:
            await asyncio.sleep(self._timeout)
        elif answer is _NO_ROOM:
            await asyncio.sleep(facts.MISSING_ROOM_SECONDS)
        elif answer is _NO_RESPONSE:
            await asyncio.sleep(facts.NO_RESPONSE_SECONDS)
        return answer

    async def _suffer(self, fault: Fault | None) -> Failed | None:
        match fault:
            case Fault.TIMEOUT:
                await asyncio.sleep(self._timeout)
            case Fault.REFUSED:
                return _REFUSED
            case Fault.UNAVAILABLE:
                await asyncio.sleep(facts.NO_RESPONSE_SECONDS)
                return _NO_RESPONSE
            case Fault.UNAUTHORIZED:
                return _UNAUTHORIZED
            case Fault.ERROR:
                return _ERROR
            case Fault.SLOW:
                await asyncio.sleep(self._rng.uniform(0.0, self._timeout))
        return None


def _unknown(failed: Failed) -> Unknown:
    return Unknown(f"{failed.outcome}: {failed.message}")


def _none_or_unknown(failed: Failed) -> tuple[()] | Unknown:
    return () if failed.outcome is RequestOutcome.NOT_FOUND else _unknown(failed)


def _done(answer: Done | Failed) -> Done | Failed:
    if isinstance(answer, Failed) and answer.outcome is RequestOutcome.NOT_FOUND:
        return Done(answer.outcome)
    return answer
