"""The script's ``AgentSession`` objects, kept for a human who comes back.

One rule: LiveKit closes a session at once when its human leaves; here that close is put off until the
grace is over, then made with the same reason, or dropped when a human is there to go on with.
"""

from __future__ import annotations

import asyncio
import functools
import weakref
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from livekit import rtc
from livekit.agents import Agent, AgentSession, CloseEvent, CloseReason, get_job_context
from livekit.agents.llm import ChatContext

from agent_guard import log

INTERRUPT_TIMEOUT = 1.0
CLOSE_TIMEOUT = 10.0


@dataclass
class _Kept:
    session: AgentSession[Any]
    opening: ChatContext
    """What its agent knew before the first word."""
    put_off: Callable[[], None] | None = None
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    failed: bool = False
    """LiveKit closed it because its models failed, or it did not start."""
    listened_to: bool = False
    """The script has a handler for its errors or its end; one that is for once is gone when it is called."""

    @property
    def running(self) -> bool:
        return not self.closed.is_set()


class Sessions:
    """Those of one job.  ``humans`` tells who is in the room, the longest there first; ``waits``, whether the
    job waits for one to come back: nobody would ever make a close that was put off for anybody else;
    ``on_failed`` is told of one whose models have failed, or that could not begin, and whether the script
    listens for such an end.
    """

    def __init__(
        self,
        room: rtc.Room,
        humans: Callable[[], Sequence[str]],
        waits: Callable[[], bool],
        on_failed: Callable[[bool], None],
    ) -> None:
        self._humans = humans
        self._waits = waits
        self._on_failed = on_failed
        self._kept: list[_Kept] = []
        _patch()
        _jobs[room] = self

    @property
    def all_closed(self) -> bool:
        """There were some, and none is left to go on with."""
        return bool(self._kept) and not self.any_running

    @property
    def failed(self) -> bool:
        """None is left to go on with, and not because the script wanted that."""
        return self.all_closed and self._kept[-1].failed

    @property
    def any_running(self) -> bool:
        return any(kept.running for kept in self._kept)

    def started(self, session: AgentSession[Any], agent: Agent) -> None:
        kept = _Kept(session, agent.chat_ctx.copy(), listened_to=_listens(session))
        self._kept = [k for k in self._kept if k.session is not session] + [kept]

        def on_close(event: CloseEvent) -> None:
            session.off("close", on_close)
            if event.reason is CloseReason.ERROR:
                self._has_failed(kept)
            kept.closed.set()

        session.on("close", on_close)  # not once, which would look like the script's (_is_the_scripts)

    def not_started(self, session: AgentSession[Any]) -> None:
        for kept in self._kept:
            if kept.session is session and kept.running:
                self._has_failed(kept)
                kept.closed.set()

    def _has_failed(self, kept: _Kept) -> None:
        kept.failed = True
        self._on_failed(kept.listened_to or _listens(kept.session))

    def put_off(self, session: AgentSession[Any], close: Callable[[], None]) -> bool:
        """The session's human has left.  True: it stays open for now."""
        kept = next((k for k in self._kept if k.session is session), None)
        if kept is None or not self._waits():
            return False
        humans = self._humans()
        if humans:
            _link(session, humans[0])
        else:
            kept.put_off = close
        return True

    def resume(self, identity: str) -> None:
        """A human is back: no close is due any more, and every running session whose own human is not
        there is theirs.
        """
        humans = self._humans()
        for kept in self._kept:
            kept.put_off = None
            if kept.running:
                own = _linked(kept.session)
                _link(kept.session, own if own in humans else identity)

    async def reset(self) -> None:
        for kept in self._kept:
            if kept.running:
                await _reset(kept)

    def close_now(self) -> list[asyncio.Event]:
        """Make the closes that were put off; each event is set when its session has closed."""
        due = [(kept, kept.put_off) for kept in self._kept if kept.put_off is not None and kept.running]
        for kept, close in due:
            kept.put_off = None
            close()
        return [kept.closed for kept, _ in due]


def _listens(session: AgentSession[Any]) -> bool:
    """Whether the script itself has a handler for the session's errors or its end; if unknown, it may."""
    handlers: dict[str, Collection[Callable[..., object]]] | None = getattr(session, "_events", None)
    if handlers is None:
        return True
    return any(
        _is_the_scripts(handler) for event in ("close", "error") for handler in handlers.get(event, ())
    )


def _is_the_scripts(handler: Callable[..., object]) -> bool:
    module = getattr(handler, "__module__", None) or ""
    # Whoever listens once is wrapped there.
    return not module.startswith(("livekit.", "agent_guard.")) or module == "livekit.rtc.event_emitter"


async def closed(events: Sequence[asyncio.Event]) -> None:
    """Wait for sessions to close, but not for ever: a script's close handler may hang."""
    if events:
        waiting = [asyncio.ensure_future(event.wait()) for event in events]
        _, late = await asyncio.wait(waiting, timeout=CLOSE_TIMEOUT)
        for task in late:
            task.cancel()


def _link(session: AgentSession[Any], identity: str) -> None:
    try:
        session.room_io.set_participant(identity)
    except RuntimeError:
        return  # started without a room: its input and output are the script's own


def _linked(session: AgentSession[Any]) -> str:
    try:
        participant = session.room_io.linked_participant
    except RuntimeError:
        return ""
    return participant.identity if participant is not None else ""


async def _reset(kept: _Kept) -> None:
    """Each step by itself: what fails in one must not leave the next human with what the last one said."""
    session = kept.session

    async def interrupt() -> None:
        await asyncio.wait({session.interrupt(force=True)}, timeout=INTERRUPT_TIMEOUT)

    async def forget_turn() -> None:
        session.clear_user_turn()

    async def forget_history() -> None:
        session.history.items.clear()

    async def forget_context() -> None:
        await session.current_agent.update_chat_ctx(kept.opening.copy())

    for step in (interrupt, forget_turn, forget_history, forget_context):
        try:
            await step()
        except Exception:  # a model plugin's code runs in here; a session that did not forget still answers
            log.logger.exception(log.RESET_FAILED)


# --- where LiveKit calls us -----------------------------------------------------------------------

_jobs: weakref.WeakKeyDictionary[rtc.Room, Sessions] = weakref.WeakKeyDictionary()
_patched = False


def _patch() -> None:
    """Once per process that runs jobs."""
    global _patched
    if _patched:
        return
    _patched = True
    start, close_soon = AgentSession.start, AgentSession._close_soon

    @functools.wraps(start)
    async def guarded_start(self: AgentSession[Any], agent: Agent, *args: Any, **kwargs: Any) -> Any:
        sessions = _sessions_of_this_job()
        if sessions is not None:
            sessions.started(self, agent)
        try:
            return await start(self, agent, *args, **kwargs)
        except BaseException:  # cancelled, too: it was given too little time
            if sessions is not None:
                sessions.not_started(self)
            raise

    @functools.wraps(close_soon)
    def guarded_close_soon(self: AgentSession[Any], *, reason: CloseReason, **rest: Any) -> None:
        def close() -> None:
            close_soon(self, reason=reason, **rest)

        if reason is CloseReason.PARTICIPANT_DISCONNECTED:
            sessions = _sessions_of(self)
            if sessions is not None and sessions.put_off(self, close):
                return
        close()

    setattr(AgentSession, "start", guarded_start)  # noqa: B010 - a method is replaced
    setattr(AgentSession, "_close_soon", guarded_close_soon)  # noqa: B010


def _sessions_of_this_job() -> Sessions | None:
    try:
        return _jobs.get(get_job_context().room)
    except RuntimeError:
        return None


def _sessions_of(session: AgentSession[Any]) -> Sessions | None:
    try:
        return _jobs.get(session.room_io.room)
    except RuntimeError:
        return None
