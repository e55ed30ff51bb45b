"""The guard of one worker: its connection to the daemon, and what it knows of the worker.

One rule: it reports facts and asks; whether a job is taken is decided in :mod:`agent_guard.requests` alone.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field

import livekit.agents
from livekit.agents import AgentServer
from livekit.agents.job import RunningJobInfo

from agent_guard import log
from agent_guard.heartbeat import beat
from agent_guard.messages import (
    Abandon,
    Answer,
    Drain,
    Failed,
    Goodbye,
    Heartbeat,
    Jobs,
    Registered,
    Report,
    Request,
    Resume,
    RunningJob,
    ToGuard,
    Unregistered,
    Welcome,
    WorkerHello,
)
from agent_guard.settings import GuardSettings
from agent_guard.transport import Connection

ANSWER_TIMEOUT = 0.3
OPEN_TIMEOUT = 0.3
JOBS_AT_ONCE = 50
"""In one message, which must stay below the longest line."""
REGISTER_PATIENCE = 1.0
"""A worker that LiveKit has not registered this long after its start says so."""


@dataclass
class Options:
    """What the script chose for its worker, as far as the daemon wants to know."""

    executor: str = "process"
    max_load: float | None = None


class WorkerGuard:
    def __init__(self, server: AgentServer, settings: GuardSettings, options: Options) -> None:
        self.settings = settings
        self.instance = settings.instance
        self.draining = False
        self.rooms_in_hand: dict[str, str] = {}
        """Job ID to room, from our yes until the job is launched or has failed."""
        self._server = server
        self._options = options
        self._interval = settings.heartbeat_interval
        self._started = False
        self._registered: Registered | None = None
        self._lost: str | None = None
        self._ids = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Answer | None]] = {}
        self._tasks: list[asyncio.Future[None]] = []
        self._connection = Connection(
            settings.socket, hello=self._hello, on_message=self._received, on_lost=self._daemon_gone
        )

    # --- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        self._server.on("worker_registered", self._on_registered)
        await self._connection.open(OPEN_TIMEOUT)
        self._tasks.append(asyncio.ensure_future(beat(lambda: self._interval, self._send_heartbeat)))

    async def stop(self, livekit_lost: bool, failure: Exception | None) -> None:
        """The worker has ended: because LiveKit stayed away, by another failure, or in good order."""
        for task in self._tasks:
            task.cancel()
        self._daemon_gone()
        if failure is not None and not livekit_lost:
            self._connection.send(Failed(reason=f"the worker failed: {failure}"))
        reason = "livekit_lost" if livekit_lost else "failed" if failure is not None else "stopped"
        await self._connection.close(Goodbye(reason=reason))

    # --- the worker's connection to LiveKit ---------------------------------------------------

    def _on_registered(self, worker_id: str, _info: object) -> None:
        self._lost = None
        self._registered = Registered(
            worker_id=worker_id,
            agent_name=self._server._agent_name,
            http_port=self._server.worker_info.http_port,
        )
        self._connection.send(self._registered)

    def livekit_lost(self, error: str) -> None:
        self._registered, self._lost = None, error
        self._connection.send(Unregistered(error=error))

    @property
    def is_livekit_lost(self) -> bool:
        """Without a connection to LiveKit, which it has tried to get."""
        return self._started and self._registered is None

    def server_started(self) -> None:
        """Its own start is over, which may take long and is no loss; from here on it tries to register."""
        self._started = True
        self._tasks.append(asyncio.ensure_future(self._say_when_unregistered()))

    async def _say_when_unregistered(self) -> None:
        await asyncio.sleep(REGISTER_PATIENCE)
        if self._registered is None and self._lost is None:
            self.livekit_lost("LiveKit has not registered the worker yet")

    # --- asking -------------------------------------------------------------------------------

    async def ask(self, request: JobDescription) -> Answer | None:
        """The daemon's answer, or None when it is away or slow."""
        number = next(self._ids)
        answer: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        if not self._connection.send(request.message(number)):
            return None
        self._asked[number] = answer
        try:
            await asyncio.wait({answer}, timeout=ANSWER_TIMEOUT)
        finally:
            del self._asked[number]
        return answer.result() if answer.done() else None

    def abandon(self, job_id: str, reason: str) -> None:
        self._connection.send(Abandon(job_id=job_id, reason=reason))

    def report(self, report: str, detail: str, job: JobDescription) -> None:
        self._connection.report(Report(report=report, detail=detail, room=job.room, job_id=job.job_id))

    def has_job_for(self, room: str) -> bool:
        """A job of this worker for that room, connected to it or not."""
        return room in self.rooms_in_hand.values() or any(job.job.room.name == room for job in self._jobs())

    # --- the daemon ---------------------------------------------------------------------------

    def _hello(self) -> WorkerHello:
        from agent_guard import __version__

        return WorkerHello(
            agent_id=self.settings.agent_id,
            guard=__version__,
            agents=livekit.agents.__version__,
            executor=self._options.executor,
            max_load=self._options.max_load,
        )

    def _received(self, message: ToGuard) -> None:
        if isinstance(message, Answer):
            answer = self._asked.get(message.id)
            if answer is not None and not answer.done():
                answer.set_result(message)
        elif isinstance(message, Welcome):
            self._welcomed(message)
        elif isinstance(message, Drain):
            self.draining = True
        elif isinstance(message, Resume):
            self.draining = False

    def _welcomed(self, welcome: Welcome) -> None:
        self.instance = welcome.instance or self.instance
        self._interval = welcome.heartbeat_interval or self._interval
        # A new daemon knows nothing of a drain that the last one began; it says so again if it wants one.
        self.draining = False
        log.logger.debug(log.CONNECTED)
        running = self._running()
        for start in range(0, len(running), JOBS_AT_ONCE):
            self._connection.send(Jobs(jobs=tuple(running[start : start + JOBS_AT_ONCE])))
        if self._registered is not None:
            self._connection.send(self._registered)
        elif self._lost is not None:
            self._connection.send(Unregistered(error=self._lost))

    def _daemon_gone(self) -> None:
        for answer in self._asked.values():
            if not answer.done():
                answer.set_result(None)

    def _send_heartbeat(self, late: float) -> None:
        # A beat that raises is a worker that hangs: not every version need have it.
        draining = getattr(self._server, "draining", False) is True
        self._connection.send(Heartbeat(jobs=len(self._jobs()), late=late, draining=draining))

    def _running(self) -> list[RunningJob]:
        """In processes of their own.  Jobs speak for themselves; one that hangs does not."""
        found = []
        for info in self._jobs():
            executor = self._server._proc_pool.get_by_job_id(info.job.id)
            pid = getattr(executor, "pid", None)
            if isinstance(pid, int):
                job, identity = info.job, info.accept_arguments.identity
                found.append(RunningJob(job.id, job.room.name, job.dispatch_id, identity, pid))
        return found

    def _jobs(self) -> list[RunningJobInfo]:
        return self._server.active_jobs if self._started else []


@dataclass(frozen=True)
class JobDescription:
    """A job request, as far as a decision needs it."""

    job_id: str
    room: str
    room_sid: str
    dispatch_id: str
    agent_name: str
    identity: str
    received_at: float = field(default_factory=time.monotonic)

    def message(self, number: int) -> Request:
        return Request(
            id=number,
            room=self.room,
            room_sid=self.room_sid,
            job_id=self.job_id,
            dispatch_id=self.dispatch_id,
            agent_name=self.agent_name,
            identity=self.identity,
        )

    def extra(self, **more: object) -> dict[str, object]:
        """Keys for a log line."""
        return {"room": self.room, "job_id": self.job_id, "dispatch_id": self.dispatch_id, **more}
