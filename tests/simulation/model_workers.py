"""Workers and their jobs: guarded ones, that ask before they take a room, and others.

One rule: what a guard may know and say is in :class:`Guard`; the rest happens whether or not anyone is told.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Protocol

from supervisor.core.model import (
    ATTRIBUTE_AGENT_ID,
    ATTRIBUTE_AGENT_NAME,
    DEFAULT_IDENTITY_PREFIX,
    ParticipantKind,
)
from tests.simulation import model_facts as facts
from tests.simulation.model_guests import reconnect
from tests.simulation.model_ports import Offer, Verdict, Why
from tests.simulation.model_processes import ModelProcess, ModelProcesses
from tests.simulation.model_rooms import ModelServer


class Guard(Protocol):
    """The daemon's end of the connections of one worker and its jobs."""

    def registered(self, worker: ModelWorker) -> None: ...
    def unregistered(self, worker: ModelWorker) -> None: ...
    def worker_lost(self, worker: ModelWorker) -> None:
        """End of file on the worker's connection."""
        ...

    def request(self, worker: ModelWorker, offer: Offer, identity: str) -> Verdict: ...
    def hello(self, job: ModelJob) -> bool:
        """The job's process speaks up; False: it has lost its room and leaves."""
        ...

    def joined(self, job: ModelJob) -> None: ...
    def census(self, job: ModelJob, humans: int, agents: int) -> None: ...
    def goodbye(self, job: ModelJob, reason: str) -> None: ...
    def job_lost(self, job: ModelJob) -> None:
        """End of file on the job's connection, without a goodbye."""
        ...


class DaemonAway:
    """A :class:`Guard` while there is no daemon: it looks at the room itself, and talks to nobody."""

    def __init__(self, server: ModelServer) -> None:
        self._server = server

    def registered(self, worker: ModelWorker) -> None: ...
    def unregistered(self, worker: ModelWorker) -> None: ...
    def worker_lost(self, worker: ModelWorker) -> None: ...
    def request(self, worker: ModelWorker, offer: Offer, identity: str) -> Verdict:
        room = self._server.rooms.get(offer.room)
        there = room is not None and any(p.is_agent for p in room.participants())
        mine = any(job.room == offer.room for job in worker.jobs.values())
        return Verdict.PASS if there or mine or not self._server.up else Verdict.ACCEPT

    def hello(self, job: ModelJob) -> bool:
        return True

    def joined(self, job: ModelJob) -> None: ...
    def census(self, job: ModelJob, humans: int, agents: int) -> None: ...
    def goodbye(self, job: ModelJob, reason: str) -> None: ...
    def job_lost(self, job: ModelJob) -> None: ...


class ModelWorker:
    """One agent's worker process, started and killed over and over."""

    def __init__(
        self,
        server: ModelServer,
        processes: ModelProcesses,
        rng: random.Random,
        agent_id: str,
        name: str,
        guard: Guard | None,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        self.server = server
        self.processes = processes
        self.rng = rng
        self.agent_id = agent_id
        self.name = name
        self.guard = guard
        guarded = {ATTRIBUTE_AGENT_ID: agent_id} if guard is not None else {}
        self.attributes = {ATTRIBUTE_AGENT_NAME: name, **guarded, **(attributes or {})}
        self.jobs: dict[str, ModelJob] = {}
        self.registered = False
        self.draining = False
        self.silent = False
        """Registered, and does not answer any more."""
        self.answer_seconds = facts.ANSWER_SECONDS
        self.human_return_grace = 15.0
        self.failing_jobs = 0
        """How many of the next jobs die before they are in their room."""
        self.process: ModelProcess | None = None
        self._pending: list[Callable[[Verdict], None]] = []
        self._life = 0

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.alive

    @property
    def available(self) -> bool:
        return self.registered

    # --- its life ---

    def start(self, seconds: float | None = None) -> None:
        """Spawn it; it registers after ``seconds``."""
        if self.alive:
            raise AssertionError(f"a second process for {self.agent_id}")
        self._life += 1
        self.draining = self.silent = False
        self.process = self.processes.spawn(self._died)
        delay = self.rng.uniform(*facts.WORKER_START_SECONDS) if seconds is None else seconds
        asyncio.get_running_loop().call_later(delay, self._register, self._life, 1)

    def kill(self, *, told: bool = True) -> None:
        """SIGKILL: its jobs end with it, their participants stay listed."""
        process, jobs = self.process, list(self.jobs.values())
        if process is None or not process.alive:
            return
        for job in jobs:
            job.kill(told=told)
        process.die(told=told)
        if told and self.guard is not None:
            self.guard.worker_lost(self)

    def _died(self) -> None:
        for job in list(self.jobs.values()):
            job.kill()
        self._unregister()

    def _register(self, life: int, number: int) -> None:
        if life != self._life or not self.alive:
            return
        if self.server.register(self):
            self.registered = True
            if self.guard is not None:
                self.guard.registered(self)
        elif number <= facts.WORKER_TRIES:
            delay = facts.worker_delay(number)
            asyncio.get_running_loop().call_later(delay, self._register, life, number + 1)
        else:
            self.kill()  # its run() fails, and the process exits

    def _unregister(self) -> None:
        self.registered = False
        self.server.unregister(self)
        pending, self._pending = self._pending, []
        for answer in pending:
            answer(Verdict.PASS)

    def meet(self, guard: Guard) -> None:
        """The daemon has come, or gone: everybody speaks up who lives and is not frozen."""
        self.guard = guard
        if self.registered:
            guard.registered(self)
        for job in [job for job in self.jobs.values() if not job.frozen]:
            if not guard.hello(job):
                job.leave("the room is another's")
            elif job.present:
                guard.joined(job)

    # --- what the server says to it ---

    def server_gone(self) -> None:
        self.registered = False
        self._pending.clear()
        if self.guard is not None:
            self.guard.unregistered(self)
        self._register(self._life, 0)

    def offer(self, offer: Offer, answer: Callable[[Verdict], None]) -> None:
        self._pending.append(answer)
        if not self.silent:
            delay = self.rng.uniform(*self.answer_seconds)
            asyncio.get_running_loop().call_later(delay, self._answer, self._life, offer, answer)

    def _answer(self, life: int, offer: Offer, answer: Callable[[Verdict], None]) -> None:
        if life != self._life or answer not in self._pending:
            return
        self._pending.remove(answer)
        answer(self._judge(offer))

    def _judge(self, offer: Offer) -> Verdict:
        if self.draining:
            return Verdict.PASS
        if self.guard is None:
            return Verdict.ACCEPT
        return self.guard.request(self, offer, DEFAULT_IDENTITY_PREFIX + offer.job_id)

    def assign(self, offer: Offer) -> None:
        if self.alive:
            self.jobs[offer.job_id] = ModelJob(self, offer)

    def terminate(self, job_id: str) -> None:
        job = self.jobs.get(job_id)
        if job is not None:
            job.leave("terminated by LiveKit")


class ModelJob:
    """One room's session: a process that joins, talks, and leaves."""

    kind = ParticipantKind.AGENT

    def __init__(self, worker: ModelWorker, offer: Offer) -> None:
        self.worker = worker
        self.id = offer.job_id
        self.room = offer.room
        self.dispatch_id = offer.dispatch_id
        self.identity = DEFAULT_IDENTITY_PREFIX + offer.job_id
        self.attributes = worker.attributes
        self.process = worker.processes.spawn(self._died, worker.process)
        self.present = False
        self.frozen = False
        """Its Python loop stands still: present, and silent, and deaf to the daemon."""
        self.session_closed = False
        """Its human has left, and nobody defers the end of the session: present, and silent."""
        self.comes_back = True
        self.humans = 0
        self._ending = False
        self._grace: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._after(facts.JOB_START_SECONDS, self._begin)

    @property
    def guard(self) -> Guard | None:
        return self.worker.guard

    @property
    def alive(self) -> bool:
        return self.process.alive

    @property
    def makes_sound(self) -> bool:
        return not self.frozen and not self.session_closed

    # --- how it begins ---

    def _begin(self) -> None:
        if self.worker.failing_jobs > 0:
            self.worker.failing_jobs -= 1
            self.kill()
        elif self.guard is not None and not self.guard.hello(self):
            self.leave("the room is another's")
        else:
            self._after(facts.JOIN_SECONDS, self._join)

    def _join(self) -> None:
        if not self._ending and not self._arrived():
            self.leave("it could not connect")

    def _arrived(self) -> bool:
        if not self.alive or self._ending or self.present:
            return True
        self.present = True
        self.present = self.worker.server.join(self, self.room)
        if self.present and self.guard is not None and not self.frozen:
            self.guard.joined(self)
        return self.present

    # --- what befalls it ---

    def kill(self, *, told: bool = True) -> None:
        """SIGKILL."""
        if not self.alive:
            return
        self.process.die(told=told)
        if told and self.guard is not None:
            self.guard.job_lost(self)

    def freeze(self) -> None:
        self.frozen = True
        self.worker.server.touch(self.room)

    def put_out(self, why: Why) -> None:
        """The server has ended its session."""
        self.present = False
        if self.guard is None:
            self.humans = 0  # that they are not there when it is back is no leaving of theirs
        if why is not Why.SERVER_GONE:
            self.leave(why)
        elif self.comes_back:
            reconnect(self.worker.rng, self._arrived, lambda: self.leave("LiveKit did not come back"))

    def look_around(self, humans: int, agents: int) -> None:
        had, self.humans = self.humans, humans
        if self.frozen:
            return
        if had and not humans:
            self._human_gone()
        elif humans and self._grace is not None:
            self._grace.cancel()
            self._grace = None
        if self.guard is not None:
            self.guard.census(self, humans, agents)

    def _human_gone(self) -> None:
        if self.guard is None:
            self.session_closed = True
        elif self._grace is None:
            grace = self.worker.human_return_grace
            self._grace = self._loop.call_later(grace, self.leave, "the human did not come back")

    # --- how it ends ---

    def leave(self, reason: str) -> None:
        """End, soon; told by the daemon, by the server, or by itself.  A frozen one does not hear it."""
        if not self._ending and not self.frozen and self.alive:
            self._ending = True
            self._after(facts.JOB_END_SECONDS, lambda: self._end(reason))

    def _end(self, reason: str) -> None:
        if self.frozen:
            return
        if self.present:
            self.present = False
            self.worker.server.leave(self, self.room)
        if self.guard is not None:
            self.guard.goodbye(self, reason)
        self.process.die()

    def _died(self) -> None:
        self.worker.jobs.pop(self.id, None)
        if self._grace is not None:
            self._grace.cancel()
        if self.present:
            self.present = False
            self.worker.server.vanish(self, self.room)

    def _after(self, bounds: facts.Bounds, do: Callable[[], None]) -> None:
        self._loop.call_later(self.worker.rng.uniform(*bounds), lambda: do() if self.alive else None)
