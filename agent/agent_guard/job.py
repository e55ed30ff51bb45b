"""The guard of one job: its connection to the daemon is its claim on the room.

One rule: a job that the daemon tells to leave, leaves, by itself and within 2 s; a job never leaves
because the daemon is away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import livekit.agents
from livekit import rtc
from livekit.agents import JobContext, JobExecutorType

from agent_guard import log
from agent_guard.heartbeat import beat
from agent_guard.hooks import run_reset_hooks
from agent_guard.look import ON_BEHALF
from agent_guard.messages import (
    Census,
    Drain,
    Goodbye,
    Heartbeat,
    JobHello,
    Joined,
    Leave,
    Report,
    Reset,
    ToGuard,
    Welcome,
)
from agent_guard.presence import HumanState, Presence
from agent_guard.sessions import Sessions, closed
from agent_guard.settings import GuardSettings
from agent_guard.subscriptions import Subscriptions
from agent_guard.transport import Connection

WELCOME_TIMEOUT = 0.3
DISCONNECT_AFTER = 0.5
"""A session may take as long to close in good order; then the room is left under it."""
EXIT_AFTER = 1.9
LEFT_BY_ITSELF = 0.5
"""Seconds in which LiveKit runs a job's shutdown callbacks after it has left the room."""
MUTE_AFTER = 10.0
"""Seconds after which no other session is to be expected for one whose models failed."""
OWN_WAY = 40.0
"""The same where the script listens for the end of its session: it may ring somebody else, which LiveKit lets
take 32 s."""
SESSIONS_TRACK = "roomio_audio"
"""The name that LiveKit gives it by default."""
SESSION_FAILED = "the session failed"
"""The daemon knows these words (docs/protocol.md)."""
EXIT_CODE = 70

_HUMAN_KINDS = frozenset(
    getattr(rtc.ParticipantKind, name)
    for name in ("PARTICIPANT_KIND_STANDARD", "PARTICIPANT_KIND_SIP", "PARTICIPANT_KIND_CONNECTOR")
    if hasattr(rtc.ParticipantKind, name)
)
_DISCONNECTED: dict[object, str] = {value: name for name, value in rtc.DisconnectReason.items()}


class GuardedEntrypoint:
    """Stands where the script's entry function stood; picklable whenever that one is."""

    def __init__(self, entrypoint: Callable[[JobContext], Awaitable[None]]) -> None:
        self._entrypoint = entrypoint
        self.__name__ = getattr(entrypoint, "__name__", "entrypoint")
        self.__qualname__ = getattr(entrypoint, "__qualname__", "entrypoint")

    async def __call__(self, ctx: JobContext) -> None:
        if ctx.is_fake_job():
            await self._entrypoint(ctx)
            return
        guard = JobGuard(ctx, GuardSettings.from_environ(os.environ))
        if not await guard.start():
            return
        try:
            await self._entrypoint(ctx)
        except Exception:
            guard.script_failed()
            raise


class JobGuard:
    def __init__(self, ctx: JobContext, settings: GuardSettings) -> None:
        self._ctx = ctx
        self._room = ctx.room
        self._settings = settings
        self._identity = ctx.token_claims().identity
        self._executor = ctx.proc.executor_type
        self._interval = settings.heartbeat_interval
        self._epoch: int | None = None
        self._joined = False
        self._leaving = False
        self._over = False
        self._census: Census | None = None
        self._tasks: set[asyncio.Future[Any]] = set()
        self._presence = Presence(
            settings.human_return_grace, self._human_gone, self._human_returned, self._nobody_returned
        )
        self._sessions = Sessions(ctx.room, self._humans, lambda: self._presence.waits, self._session_failed)
        self._mute_watch: asyncio.Task[None] | None = None
        self._subscriptions = Subscriptions(ctx.room)
        self._connection = Connection(
            settings.socket, hello=self._hello, on_message=self._received, on_lost=lambda: None
        )

    # --- life ---------------------------------------------------------------------------------

    async def start(self) -> bool:
        """Before the script's first line.  False: the room is not ours, and the script must not run."""
        self._room.on("connection_state_changed", self._on_connection_state)
        self._room.on("participant_connected", self._on_participants)
        self._room.on("participant_disconnected", self._on_participants)
        self._room.on("participant_attributes_changed", self._on_attributes)
        self._room.on("disconnected", self._on_disconnected)
        self._ctx.add_shutdown_callback(self._on_shutdown)
        await self._connection.open(WELCOME_TIMEOUT)
        self._spawn(beat(lambda: self._interval, self._send_heartbeat))
        if self._leaving:
            return False
        log.logger.info(log.NEW_SESSION, extra=self._extra())
        self._report("session_created")
        return True

    async def _on_shutdown(self, reason: str) -> None:
        """LiveKit runs it after the room was left."""
        self._release(reason)

    def _release(self, reason: str) -> None:
        """The room is given back.  The connection stays up to the end of the process, for a daemon that comes
        meanwhile: a job that its worker lists, and that says nothing, would count as hung.
        """
        if self._over:
            return
        self._over = True
        self._presence.end()
        self._subscriptions.close()
        log.logger.info(log.ROOM_RELEASED, extra=self._extra(reason=reason))
        for task in self._tasks:
            task.cancel()
        self._connection.send(Goodbye(reason=reason))

    def script_failed(self) -> None:
        """Its entry function raised.  Newer LiveKits end the job then, older ones leave it in the room."""
        if self._sessions.any_running or self._leaving or self._over:
            return
        self._report("script_failed")
        # LiveKit first, with its own reason.
        asyncio.get_running_loop().call_later(LEFT_BY_ITSELF, self._end_if_speechless)

    def _end_if_speechless(self) -> None:
        """Where a session runs, or the script publishes itself, there may be a call all the same."""
        if not self._sessions.any_running and not self._own_tracks():
            self._end_job("the script failed")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- leaving ------------------------------------------------------------------------------

    def _leave(self, reason: str) -> None:
        if self._leaving or self._over:
            return
        self._leaving = True
        log.logger.warning(log.LEAVING, extra=self._extra(reason=reason))
        self._report("leaving", reason)
        last_resort = asyncio.get_running_loop().call_later(EXIT_AFTER, self._exit)
        self._end_job(reason, last_resort.cancel)

    def _end_job(self, reason: str, on_left: Callable[[], None] = lambda: None) -> None:
        """The script ends in good order, which may take minutes; the room is left before that."""
        if self._over:
            return
        self._ctx.shutdown(reason)
        # Not one of the tasks that end with the release: it is what makes the release happen.
        self._leaver = asyncio.ensure_future(self._see_that_it_leaves(reason, on_left))

    async def _see_that_it_leaves(self, reason: str, on_left: Callable[[], None]) -> None:
        await asyncio.sleep(DISCONNECT_AFTER)
        if self._room.isconnected():
            await self._room.disconnect()
        on_left()
        self._release(reason)

    def _exit(self) -> None:
        log.logger.error(log.DID_NOT_LEAVE, extra=self._extra())
        if self._executor is JobExecutorType.PROCESS:
            # The log's way leads through a thread and the worker, and would end with us.
            with contextlib.suppress(OSError):
                os.write(2, f"agent_guard: {log.DID_NOT_LEAVE}, job {self._ctx.job.id} ends\n".encode())
            os._exit(EXIT_CODE)

    # --- the room -----------------------------------------------------------------------------

    def _on_connection_state(self, _state: object) -> None:
        if not self._sees():
            self._presence.blind()
            return
        if self._leaving:
            self._spawn(self._room.disconnect())
            return
        self._joined = True
        self._connection.send(Joined(identity=self._identity, sid=self._room.local_participant.sid))
        self._look_around(again=True)

    def _on_participants(self, _participant: object) -> None:
        # After everybody else's handlers, LiveKit's own among them, have seen the same event.
        asyncio.get_running_loop().call_soon(self._look_around)

    def _on_attributes(self, _changed: object, _participant: object) -> None:
        asyncio.get_running_loop().call_soon(self._look_around)

    def _on_disconnected(self, reason: object) -> None:
        """For good; what the script does at its end may take minutes, in which the room is not ours."""
        self._presence.end()
        self._sessions.close_now()
        why = _DISCONNECTED.get(reason, "").lower().replace("_", " ")
        # Who leaves by itself mostly ends, and says in a moment with what reason.
        wait = LEFT_BY_ITSELF if reason == rtc.DisconnectReason.CLIENT_INITIATED else 0.0
        asyncio.get_running_loop().call_later(wait, self._release, f"left the room: {why or reason}")

    def _sees(self) -> bool:
        """While it reconnects, a room calls itself connected and everybody in it gone."""
        return self._room.connection_state == rtc.ConnectionState.CONN_CONNECTED

    def _look_around(self, again: bool = False) -> None:
        if self._over or not self._sees():
            return
        humans = self._humans()
        census = Census(agents=tuple(self._agents()), humans=len(humans))
        if again or census != self._census:
            if self._census is None or census.agents != self._census.agents:
                self._validate(census.agents)
            self._census = census
            self._connection.send(census)
        self._presence.seen(humans)

    def _validate(self, agents: tuple[str, ...]) -> None:
        if len(agents) == 1:
            log.logger.info(log.SINGLE_AGENT, extra=self._extra())
            self._report("single_agent_validated")
        else:
            log.logger.warning(log.MORE_AGENTS, extra=self._extra(agents=list(agents)))

    def _agents(self) -> list[str]:
        others = (
            p.identity
            for p in self._room.remote_participants.values()
            if p.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT and ON_BEHALF not in p.attributes
        )
        return sorted([self._identity, *others])

    def _humans(self) -> list[str]:
        return [p.identity for p in self._room.remote_participants.values() if p.kind in _HUMAN_KINDS]

    def _own_tracks(self) -> frozenset[str]:
        """Names of what the script publishes beside its sessions; names, since a full reconnection publishes
        the same under new IDs.  A session's track outlives it, and comes even if its start was cut off.
        """
        if not self._joined:
            return frozenset()
        published = self._room.local_participant.track_publications.values()
        return frozenset(track.name for track in published) - {SESSIONS_TRACK}

    # --- the human ----------------------------------------------------------------------------

    def _human_gone(self) -> None:
        log.logger.info(log.HUMAN_GONE, extra=self._extra(seconds=self._presence.grace))
        self._report("human_gone")

    def _human_returned(self, identity: str, was_lost: bool) -> None:
        self._report("human_returned", identity=identity)
        if self._sessions.all_closed:
            # The script has ended its session itself: only a new job can serve this human.
            self._end_job("the session is closed")
            return
        log.logger.info(log.REUSING_SESSION, extra=self._extra(human=identity))
        self._sessions.resume(identity)
        self._subscriptions.take_over(identity)
        self._report("session_reused", identity=identity)
        if not was_lost:
            self._spawn(self._reset())

    def _nobody_returned(self) -> None:
        log.logger.info(log.GRACE_OVER, extra=self._extra())
        self._report("grace_over")
        self._spawn(self._end("no human came back"))

    def _session_failed(self, listened_to: bool) -> None:
        if self._leaving or self._over:
            return
        log.logger.warning(log.SESSION_FAILED, extra=self._extra())
        self._report("session_failed")
        if self._mute_watch is None or self._mute_watch.done():
            wait = OWN_WAY if listened_to else MUTE_AFTER
            self._mute_watch = self._spawn(self._end_if_mute(wait, self._own_tracks()))

    async def _end_if_mute(self, wait: float, published: frozenset[str]) -> None:
        """LiveKit leaves the agent of a failed session in the room, for good and without a voice.  Another
        job may find the models working again; a script that speaks by other means, on a track that it has
        published since, is left alone.
        """
        while True:
            await asyncio.sleep(wait)
            if not self._sessions.failed or not self._own_tracks() <= published:
                return
            if self._sees() and self._humans():
                self._end_job(SESSION_FAILED)
                return

    async def _end(self, reason: str) -> None:
        await closed(self._sessions.close_now())
        self._end_job(reason)

    async def _reset(self) -> None:
        log.logger.info(log.RESETTING_STATE, extra=self._extra())
        await self._sessions.reset()
        await run_reset_hooks(self._ctx)
        self._report("state_reset")

    # --- the daemon ---------------------------------------------------------------------------

    def _hello(self) -> JobHello:
        from agent_guard import __version__

        job = self._ctx.job
        return JobHello(
            agent_id=self._settings.agent_id,
            guard=__version__,
            agents=livekit.agents.__version__,
            executor=self._executor.value,
            room=job.room.name,
            job_id=job.id,
            dispatch_id=job.dispatch_id,
            identity=self._identity,
            epoch=self._epoch,
            joined=self._joined,
            over=self._over,
        )

    def _received(self, message: ToGuard) -> None:
        if isinstance(message, Welcome):
            self._welcomed(message)
        elif isinstance(message, Leave):
            if message.epoch is None or self._epoch is None or message.epoch >= self._epoch:
                self._leave(message.reason or "told to leave")
        elif isinstance(message, Drain):
            self._presence.drain()
        elif isinstance(message, Reset):
            self._spawn(self._reset())

    def _welcomed(self, welcome: Welcome) -> None:
        if self._over:
            return
        self._interval = welcome.heartbeat_interval or self._interval
        if welcome.human_return_grace is not None:
            self._presence.grace = welcome.human_return_grace
        if not welcome.hold:
            self._leave("the room is held by another job")
            return
        self._epoch = welcome.epoch
        if self._joined and self._sees():  # between the hello and this, perhaps
            self._connection.send(Joined(identity=self._identity, sid=self._room.local_participant.sid))
        if self._census is not None:
            self._connection.send(self._census)

    def _send_heartbeat(self, late: float) -> None:
        self._connection.send(Heartbeat(jobs=1, late=late))

    def _report(self, report: str, detail: str = "", *, identity: str = "") -> None:
        job = self._ctx.job
        self._connection.report(
            Report(report=report, detail=detail, identity=identity, room=job.room.name, job_id=job.id)
        )

    def _extra(self, **more: object) -> dict[str, object]:
        """Keys for a log line."""
        return {"room": self._ctx.job.room.name, "job_id": self._ctx.job.id, **more}


__all__ = ["GuardedEntrypoint", "HumanState", "JobGuard"]
