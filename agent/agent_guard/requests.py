"""The first layer: whether this worker takes the job that LiveKit offers.

One rule: the script's own ``on_request`` decides first; a yes of the script becomes a yes to LiveKit only
when the daemon grants the room, or, with the daemon away, when a look shows that no agent is there.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from livekit.agents import JobRequest

from agent_guard import log
from agent_guard.look import LookFailed, agents_in
from agent_guard.messages import Answer
from agent_guard.worker import JobDescription, WorkerGuard

ATTRIBUTE_AGENT_ID = "supervisor.agent_id"
ATTRIBUTE_INSTANCE = "supervisor.instance"


class GuardedJobRequest(JobRequest):
    """The request as the script sees it: ``accept()`` asks first, and may become a rejection."""

    def __init__(self, original: JobRequest, guard: WorkerGuard) -> None:
        self.__dict__.update(original.__dict__)
        self._original = original
        self._guard = guard

    async def accept(
        self, *, identity: str = "", attributes: dict[str, str] | None = None, **rest: Any
    ) -> None:
        identity = identity or f"agent-{self.id}"
        job = _describe(self._original, identity)
        if not await self._may_accept(job):
            return
        merged = {
            **(attributes or {}),
            ATTRIBUTE_AGENT_ID: self._guard.settings.agent_id,
            ATTRIBUTE_INSTANCE: self._guard.instance,
        }
        try:
            await self._original.accept(identity=identity, attributes=merged, **rest)
        except BaseException as error:  # cancelled, too: the claim must not wait for its expiry
            self._guard.abandon(job.job_id, type(error).__name__)
            raise
        finally:
            self._guard.rooms_in_hand.pop(job.job_id, None)

    async def _may_accept(self, job: JobDescription) -> bool:
        """Decided, logged, and rejected if it is a no.  After a yes the room is in hand."""
        if self._guard.draining:
            return await self._reject(job, "draining", terminate=False)
        taken = self._guard.has_job_for(job.room)
        self._guard.rooms_in_hand[job.job_id] = job.room
        allowed, answer = False, None
        try:
            answer = await self._guard.ask(job)
            if answer is None:
                allowed = await self._look(job, taken)
            else:
                allowed = await self._take(job, answer)
        finally:
            if not allowed:
                self._guard.rooms_in_hand.pop(job.job_id, None)
                if answer is None:
                    # It follows the request, so that a grant which is still to come is given back, too.
                    self._guard.abandon(job.job_id, "not answered in time")
        return allowed

    async def _take(self, job: JobDescription, answer: Answer) -> bool:
        if answer.outcome == "granted":
            log.logger.info(log.ROOM_ASSIGNED, extra=job.extra(epoch=answer.epoch, by="supervisor"))
            return True
        if answer.outcome == "held":
            log.logger.info(log.DUPLICATE_REJECTED, extra=job.extra(holder=answer.holder, by="supervisor"))
            await self._original.reject(terminate=answer.terminate)
            return False
        return await self._reject(job, answer.outcome, terminate=False)

    async def _look(self, job: JobDescription, taken: bool) -> bool:
        log.logger.warning(log.DAEMON_AWAY, extra=job.extra())
        self._guard.report("daemon_away", "", job)
        if taken:
            log.logger.info(log.DUPLICATE_REJECTED, extra=job.extra(holder="this worker", by="guard"))
            await self._original.reject(terminate=False)
            return False
        try:
            agents = await agents_in(job.room)
        except LookFailed as failure:
            log.logger.warning(log.LOOK_FAILED, extra=job.extra(error=str(failure)))
            self._guard.report("look_failed", str(failure), job)
            return await self._reject(job, "look_failed", terminate=False)
        if agents:
            log.logger.info(log.DUPLICATE_REJECTED, extra=job.extra(holder=agents[0], by="guard"))
            await self._original.reject(terminate=False)
            return False
        log.logger.info(log.ROOM_ASSIGNED, extra=job.extra(epoch=None, by="guard"))
        return True

    async def _reject(self, job: JobDescription, reason: str, *, terminate: bool) -> bool:
        log.logger.info(log.REQUEST_REJECTED, extra=job.extra(reason=reason))
        await self._original.reject(terminate=terminate)
        return False


class GuardedRequests:
    """Stands where the script's ``on_request`` stood."""

    def __init__(self, guard: WorkerGuard, on_request: Callable[[JobRequest], Any] | None) -> None:
        self._guard = guard
        self._on_request = on_request

    async def __call__(self, request: JobRequest) -> None:
        log.logger.info(log.REQUEST_RECEIVED, extra=_describe(request, "").extra())
        guarded = GuardedJobRequest(request, self._guard)
        if self._on_request is None:
            await guarded.accept()
            return
        result = self._on_request(guarded)
        if inspect.isawaitable(result):
            await result


def _describe(request: JobRequest, identity: str) -> JobDescription:
    job = request.job
    return JobDescription(
        job_id=job.id,
        room=job.room.name,
        room_sid=job.room.sid,
        dispatch_id=job.dispatch_id,
        agent_name=job.agent_name,
        identity=identity,
    )
