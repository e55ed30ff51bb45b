"""The claims of all rooms, and the jobs that hold them.

The rule: a claim ends when its job has said goodbye or is *known* to be dead; an overdue heartbeat makes a
job suspect, and a suspect is killed first and released when it is dead.  Everything is decided in memory;
the store is written behind and may fail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from supervisor.core.by_agent import ByAgent
from supervisor.core.claims import Answer, ClaimTable, JobArrival, JobRequest
from supervisor.core.conflicts import ConflictKind, Resolution
from supervisor.core.model import Claim, ClaimOutcome, ClaimState, DeadJob, JobDeath
from supervisor.core.ports import ClaimStore, ProcessWatch, StoredClaim
from supervisor.events import (
    ClaimDecided,
    ConflictDetected,
    ConflictResolved,
    EventBus,
    InternalError,
    JobDied,
    RoomAssigned,
    RoomReleased,
)

SESSION_FAILED = "the session failed"
"""A guard's reason for the end of a job that could not speak any more (docs/protocol.md)."""
LEAVE_SECONDS = 2.0
"""How long a job that is told to leave may take before it is killed."""


KILL_AGAIN = 1.0
"""Seconds until a job is tried again that could not be killed."""


class RoomListener(Protocol):
    """Who has to look at a room when its claim changes."""

    enforce: bool
    """False: what is wrong in rooms is told, and nothing touched."""

    def wake(self, room: str) -> None: ...

    def note_death(self, dead: DeadJob) -> None: ...

    def note_refused(self, room: str, dispatch_id: str) -> None: ...

    def slot_freed(self, agent_id: str) -> None: ...


class JobLink(Protocol):
    """The connection of a job, as far as one can speak through it."""

    def leave(self, reason: str, epoch: int) -> None: ...

    def drain(self, timeout: float) -> None: ...


@dataclass(slots=True)
class Job:
    """A job that has connected once, as long as its process may be alive."""

    job_id: str
    room: str
    agent_id: str
    identity: str
    dispatch_id: str
    pid: int
    create_time: float
    in_worker: bool
    """It runs in the worker's own process (thread executor): it cannot be killed by itself."""
    timeout: float
    """Seconds without a heartbeat after which it is suspect."""
    link: JobLink | None = None
    stop_watching: Callable[[], None] | None = None
    humans: int | None = None
    """In its room, as it reports; None until it has."""
    kill_at: float | None = None
    told_by: JobDeath | None = None
    """It has been told to leave because of that, and would not have ended by itself."""
    cause: JobDeath = JobDeath.JOB_DEATH
    suspect_since: float | None = None
    speaks_by: float | None = None
    """Its worker says that it runs, and it has not said anything itself: by then it has, or it hangs."""
    spoken: bool = False
    """It has connected to this daemon; else it is remembered from the last one, or its worker told of it."""
    left_alone: bool = False
    """It holds no room, and nobody judges it: its room, or its agent, is one of those to be ignored."""
    only_told: bool = False
    """It hangs, and was not ended for it, since nothing was to be touched then."""


class ClaimBook:
    """Requests, arrivals, heartbeats and deaths of jobs, applied to the claim table."""

    def __init__(
        self,
        store: ClaimStore,
        watch: ProcessWatch,
        bus: EventBus,
        clock: Callable[[], float],
        *,
        worker_hung: Callable[[str], None],
        worker_pid: Callable[[str], int | None],
    ) -> None:
        self.table = ClaimTable()
        self._store = store
        self._watch = watch
        self._bus = bus
        self._clock = clock
        self._worker_hung = worker_hung
        self._worker_pid = worker_pid
        self._rooms: RoomListener | None = None
        self._jobs: ByAgent[Job] = ByAgent()
        self._started_until = 0.0

    def listen(self, rooms: RoomListener) -> None:
        """Tell ``rooms`` of changes; once, before anything else happens."""
        self._rooms = rooms

    @property
    def rooms(self) -> RoomListener:
        if self._rooms is None:
            raise RuntimeError("ClaimBook.listen() has not been called")
        return self._rooms

    # --- start ---

    async def restore(self, timeout: float) -> None:
        """Take over the store's claims: those of living jobs stand and wait for them to connect again."""
        now = self._clock()
        self._started_until = now + timeout
        self.table.freeze(now + timeout)
        alive: list[Claim] = []
        for stored in await self._store.load_claims():
            claim = stored.claim
            if claim.job_pid == 0:
                alive.append(claim)
            elif self._watch.create_time(claim.job_pid) == stored.job_create_time:
                alive.append(claim)
                self._remember(claim, stored.job_create_time, timeout)
            else:
                self._store.delete_claim(claim.room)
                self.rooms.note_death(_dead(claim, JobDeath.JOB_DEATH, now))
        self.table.load(alive, expires_at=now + timeout, epoch=await self._store.load_epoch())

    def is_starting(self) -> bool:
        return self._clock() < self._started_until

    def _remember(self, claim: Claim, create_time: float, timeout: float) -> None:
        job = Job(
            job_id=claim.job_id,
            room=claim.room,
            agent_id=claim.agent_id,
            identity=claim.identity,
            dispatch_id=claim.dispatch_id,
            pid=claim.job_pid,
            create_time=create_time,
            in_worker=False,
            timeout=timeout,
        )
        self._jobs.put(job.job_id, job)
        job.stop_watching = self._watch.watch(job.pid, lambda: self._died(job))

    # --- job requests ---

    def request(self, request: JobRequest, *, max_rooms: int, draining: bool) -> Answer:
        now = self._clock()
        answer = self.table.request(request, now, max_rooms=max_rooms, draining=draining)
        if answer.outcome is ClaimOutcome.GRANTED and answer.claim is not None:
            self._save(answer.claim, 0.0)
        holder = answer.claim.identity if answer.outcome is ClaimOutcome.HELD and answer.claim else ""
        self._bus.publish(
            ClaimDecided(
                agent_id=request.agent_id,
                room=request.room,
                job_id=request.job_id,
                outcome=answer.outcome,
                holder=holder,
                seconds=self._clock() - now,
            )
        )
        if answer.outcome is ClaimOutcome.HELD:
            self._rejected(request)
        return answer

    def _rejected(self, request: JobRequest) -> None:
        """The one conflict that never stands: it is over in the moment in which it is known."""
        self._bus.publish(
            ConflictResolved(
                kind=ConflictKind.DUPLICATE_REQUEST,
                resolution=Resolution.REJECTED,
                seconds=0.0,
                agent_id=request.agent_id,
                room=request.room,
                identity=request.identity,
            )
        )
        self.rooms.note_refused(request.room, request.dispatch_id)

    def abandon(self, agent_id: str, job_id: str, reason: str) -> None:
        """A job that was granted to this agent will not come."""
        for claim in self.table.of_agent(agent_id):
            if claim.job_id == job_id and claim.state is ClaimState.PENDING:
                self._release(claim, reason)

    # --- jobs ---

    def is_impostor(self, arrival: JobArrival) -> bool:
        """Another process, or one of another agent or room, speaks in the name of a job that lives."""
        known = self._jobs.get(arrival.job_id)
        if known is None or known.speaks_by is not None:
            return False
        if self._watch.create_time(known.pid) != known.create_time:
            self._died(known)
            return False
        return (known.pid, known.agent_id, known.room) != (arrival.pid, arrival.agent_id, arrival.room)

    def arrive(self, arrival: JobArrival, link: JobLink, *, in_worker: bool, timeout: float) -> Claim | None:
        """A job has connected; None: the room is not its own, and it has to leave."""
        create_time = self._watch.create_time(arrival.pid)
        if create_time is None:
            return None
        before = self.table.get(arrival.room)
        claim = self.table.arrive(arrival, self._clock(), timeout)
        job = self._track(arrival, link, create_time, in_worker=in_worker, timeout=timeout)
        if claim is None:
            job.kill_at = self._clock() + LEAVE_SECONDS
            return None
        job.suspect_since, job.left_alone = None, False
        self._save(claim, create_time)
        if before is None or before.job_id != claim.job_id or before.state is ClaimState.PENDING:
            self._bus.publish(
                RoomAssigned(agent_id=claim.agent_id, room=claim.room, job_id=claim.job_id, epoch=claim.epoch)
            )
        self.rooms.wake(claim.room)
        return claim

    def accompany(self, arrival: JobArrival, link: JobLink, *, in_worker: bool, timeout: float) -> None:
        """A job that nobody is to judge has connected: its worker waits for it when it drains, no more."""
        create_time = self._watch.create_time(arrival.pid)
        if create_time is not None:
            job = self._track(arrival, link, create_time, in_worker=in_worker, timeout=timeout)
            job.left_alone = True
            job.suspect_since = None
            claim = self.table.get(arrival.room)
            if claim is not None and claim.job_id == arrival.job_id:  # from before it was to be ignored
                self._release(claim, "it is to be ignored")

    def is_done(self, arrival: JobArrival) -> None:
        """It has lost its room for good, and works on its end: it said so when no daemon was there."""
        self.table.end(arrival.job_id)
        if self._jobs.get(arrival.job_id) is not None:
            self.goodbye(arrival.job_id, "told later")

    def _track(
        self, arrival: JobArrival, link: JobLink, create_time: float, *, in_worker: bool, timeout: float
    ) -> Job:
        known = self._jobs.get(arrival.job_id)
        if known is not None and known.speaks_by is None:
            known.link, known.timeout, known.in_worker, known.spoken = link, timeout, in_worker, True
            return known
        self._forget(arrival.job_id)
        job = self._begin(arrival, create_time, timeout=timeout)
        job.link, job.in_worker, job.spoken = link, in_worker, True
        return job

    def expect(self, arrival: JobArrival, timeout: float) -> None:
        """A job that its worker says is running: it has to speak for itself, or it hangs.

        Without a store nobody else would know of it.  It holds nothing by that: it may be about to end.
        """
        create_time = self._watch.create_time(arrival.pid)
        if create_time is None or self._jobs.get(arrival.job_id) or self.table.is_over(arrival.job_id):
            return
        job = self._begin(arrival, create_time, timeout=timeout)
        job.speaks_by = self._clock() + timeout

    def awaits_word_from(self, room: str) -> bool:
        return any(job.room == room and job.speaks_by is not None for job in self._jobs)

    def _begin(self, arrival: JobArrival, create_time: float, *, timeout: float) -> Job:
        job = Job(
            job_id=arrival.job_id,
            room=arrival.room,
            agent_id=arrival.agent_id,
            identity=arrival.identity,
            dispatch_id=arrival.dispatch_id,
            pid=arrival.pid,
            create_time=create_time,
            in_worker=False,
            timeout=timeout,
        )
        self._jobs.put(job.job_id, job)
        job.stop_watching = self._watch.watch(job.pid, lambda: self._died(job))
        return job

    def heartbeat(self, job_id: str) -> None:
        job = self._jobs.get(job_id)
        if job is not None:
            job.suspect_since, job.only_told = None, False
            self.table.heartbeat(job.room, job_id, self._clock(), job.timeout)

    def retime(self, agent_id: str, timeout: float) -> None:
        """The time-out of this agent's jobs, from each one's next heartbeat on."""
        for job in self._jobs.of_agent(agent_id):
            job.timeout = timeout

    def joined(self, job_id: str, identity: str) -> None:
        job = self._jobs.get(job_id)
        if job is None:
            return
        job.identity = identity or job.identity
        if self.table.joined(job.room, job_id, job.identity):
            claim = self.table.get(job.room)
            if claim is not None:
                self._save(claim, job.create_time)
        self.rooms.wake(job.room)

    def census(self, job_id: str, agents: int, humans: int) -> None:
        """What a job sees in its room; more than one agent is looked at at once."""
        job = self._jobs.get(job_id)
        if job is None:
            return
        changed = job.humans != humans
        job.humans = humans
        if agents != 1 or changed:
            self.rooms.wake(job.room)

    def unlink(self, job_id: str, link: JobLink) -> None:
        """The connection is gone, the process may live: it has until its heartbeat is overdue."""
        job = self._jobs.get(job_id)
        if job is None or job.link is not link:
            return
        job.link = None
        if job.left_alone:  # it is only waited for while it is there
            self._forget(job_id)

    def goodbye(self, job_id: str, reason: str) -> None:
        """The job has ended in good order, and nothing more comes of its dispatch."""
        job = self._forget(job_id)
        if job is None:
            return
        self.table.end(job_id)
        if job.left_alone:
            self.rooms.slot_freed(job.agent_id)
            return
        claim = self.table.get(job.room)
        if claim is not None and claim.job_id == job_id:
            self._release(claim, reason)
        over = _over(job, job.told_by, self._clock())
        self.rooms.note_death(replace(over, left=True, failed=reason == SESSION_FAILED))

    def busy_rooms(self, agent_id: str) -> int:
        """Rooms of this agent with a human in them, or of which nobody knows."""
        holders = [self._jobs.get(claim.job_id) for claim in self.table.of_agent(agent_id)]
        others = [job for job in self._jobs.of_agent(agent_id) if job.left_alone]
        return sum(1 for job in (*holders, *others) if job is None or job.humans is None or job.humans > 0)

    def jobs_of(self, agent_id: str) -> tuple[Job, ...]:
        return tuple(self._jobs.of_agent(agent_id))

    def job_count(self, agent_id: str) -> int:
        return len(self._jobs.of_agent(agent_id))

    # --- ends ---

    def revoke(self, room: str, job_id: str, reason: str) -> None:
        """Take the room from this job: it is told to leave, and killed if it does not."""
        claim = self.table.get(room)
        if claim is None or claim.job_id != job_id:
            return
        self.table.revoke(room)
        self._store.delete_claim(room)
        self._bus.publish(RoomReleased(agent_id=claim.agent_id, room=room, job_id=job_id, reason=reason))
        self.tell_to_leave(job_id, reason)
        self.rooms.wake(room)
        self.rooms.slot_freed(claim.agent_id)

    def tell_to_leave(self, job_id: str, reason: str, cause: JobDeath | None = None) -> None:
        job = self._jobs.get(job_id)
        if job is None:
            return
        job.told_by = cause
        if job.link is not None:
            job.link.leave(reason, self.table.epoch + 1)
        job.kill_at = self._clock() + LEAVE_SECONDS

    def tell_to_drain(self, agent_id: str, timeout: float) -> None:
        """The agent's jobs end as soon as their humans are gone, without waiting for a return."""
        for job in self.jobs_of(agent_id):
            if job.link is not None:
                job.link.drain(timeout)

    def worker_died(self, agent_id: str) -> None:
        """Jobs that die from now on, and those that died just now, died with their worker."""
        for job in self.jobs_of(agent_id):
            if job.cause is JobDeath.JOB_DEATH:
                job.cause = JobDeath.WORKER_DEATH
        for claim in self.table.of_agent(agent_id):
            if claim.state is ClaimState.PENDING:
                self._release(claim, "worker died")

    def tick(self) -> None:
        """Look at the deadlines: a few times a second."""
        now = self._clock()
        for claim in self.table.expired(now):
            self._expire(claim, now)
        for job in [j for j in self._jobs if j.kill_at is not None and now >= j.kill_at]:
            self._kill(job)
        if not self.table.frozen(now):
            for job in [j for j in self._jobs if j.speaks_by is not None and now >= j.speaks_by]:
                job.speaks_by = None
                self._suspect(job, now)
            for job in [j for j in self._jobs if j.only_told and self.rooms.enforce]:
                job.only_told = False
                self._kill(job)

    def _expire(self, claim: Claim, now: float) -> None:
        if claim.state is ClaimState.PENDING:
            self._release(claim, "the job never came")
            return
        job = self._jobs.get(claim.job_id)
        if job is None:
            self._release(claim, "the job is not known any more")
        elif not job.spoken and job.pid == self._worker_pid(job.agent_id):
            # It ran in the worker's own process, which lives: it ended while no daemon was there to be told.
            # Should it hang instead, that must not cost the worker's other calls.
            self.goodbye(job.job_id, "the job did not come back")
        elif job.suspect_since is None:
            self._suspect(job, now)

    def _suspect(self, job: Job, now: float) -> None:
        job.suspect_since = now
        job.cause = JobDeath.HUNG_JOB
        self._bus.publish(
            ConflictDetected(
                kind=ConflictKind.HUNG_JOB, agent_id=job.agent_id, room=job.room, identity=job.identity
            )
        )
        if self.rooms.enforce:
            self._kill(job)
        else:
            job.only_told = True
            self._tell_hung(job, Resolution.REPORTED, now)

    def _tell_hung(self, job: Job, resolution: Resolution, now: float) -> None:
        self._bus.publish(
            ConflictResolved(
                kind=ConflictKind.HUNG_JOB,
                resolution=resolution,
                seconds=now - (now if job.suspect_since is None else job.suspect_since),
                agent_id=job.agent_id,
                room=job.room,
                identity=job.identity,
            )
        )

    def _kill(self, job: Job) -> None:
        job.kill_at = None
        if job.in_worker:
            self._worker_hung(job.agent_id)
            return
        try:
            killed = self._watch.kill(job.pid, job.create_time)
        except OSError as error:  # whether it lives cannot be looked up at this moment
            self._bus.publish(InternalError.of("kill a job", error))
            job.kill_at = self._clock() + KILL_AGAIN
            return
        if not killed:
            self._died(job)

    def _died(self, job: Job) -> None:
        if self._jobs.get(job.job_id) is not job:
            return
        now = self._clock()
        self._forget(job.job_id)
        self._bus.publish(JobDied(agent_id=job.agent_id, room=job.room, job_id=job.job_id, cause=job.cause))
        if job.left_alone:
            self.rooms.slot_freed(job.agent_id)
            return
        if job.suspect_since is not None and self.rooms.enforce:
            self._tell_hung(job, Resolution.TERMINATED, now)
        claim = self.table.get(job.room)
        if claim is not None and claim.job_id == job.job_id:
            self._release(claim, "the job died")
        self.rooms.note_death(_over(job, job.cause, now))

    def _forget(self, job_id: str) -> Job | None:
        job = self._jobs.pop(job_id)
        if job is not None and job.stop_watching is not None:
            job.stop_watching()
        return job

    def _release(self, claim: Claim, reason: str) -> None:
        self.table.release(claim.room, claim.job_id)
        self._store.delete_claim(claim.room)
        self._bus.publish(
            RoomReleased(agent_id=claim.agent_id, room=claim.room, job_id=claim.job_id, reason=reason)
        )
        self.rooms.wake(claim.room)
        self.rooms.slot_freed(claim.agent_id)

    def _save(self, claim: Claim, create_time: float) -> None:
        self._store.save_claim(StoredClaim(claim, create_time))


def _over(job: Job, cause: JobDeath | None, now: float) -> DeadJob:
    return DeadJob(
        job_id=job.job_id,
        identity=job.identity,
        agent_id=job.agent_id,
        room=job.room,
        cause=cause,
        died_at=now,
        dispatch_id=job.dispatch_id,
    )


def _dead(claim: Claim, cause: JobDeath, now: float) -> DeadJob:
    return DeadJob(
        job_id=claim.job_id,
        identity=claim.identity,
        agent_id=claim.agent_id,
        room=claim.room,
        cause=cause,
        died_at=now,
        dispatch_id=claim.dispatch_id,
    )
