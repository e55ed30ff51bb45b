"""The worker reconciler: one record per supervised process, and one path for everything about it.

The rule: commands, guards and exits only change a record and wake its ID; processes are started and ended
in :meth:`WorkerReconciler._reconcile` alone, which is never in two places at once for an ID.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Protocol

from supervisor.core import worker_plan
from supervisor.core.conflicts import ConflictKind, Resolution
from supervisor.core.model import AgentView, JobDeath
from supervisor.core.ports import ExitStatus, ProcessHandle, ProcessHost, ProcessSpec, SpawnFailed
from supervisor.core.worker_plan import (
    Ending,
    EndReason,
    WorkerPolicy,
    WorkerView,
    after_exit,
    begin_ending,
    drains_by_itself,
)
from supervisor.core.worker_state import HAS_PROCESS, WorkerEvent, WorkerState, transition
from supervisor.events import (
    ConflictDetected,
    ConflictResolved,
    DrainFinished,
    EventBus,
    Loop,
    RestartReason,
    WorkerAdopted,
    WorkerExited,
    WorkerReady,
    WorkerRegistrationLost,
    WorkerRestarted,
    WorkerSignalled,
    WorkerSpawned,
    WorkerSpawnFailed,
    WorkerStateChanged,
    WorkerStopped,
    WorkerUnhealthy,
)
from supervisor.reconcile.claimbook import ClaimBook
from supervisor.reconcile.queue import Reconciler
from supervisor.reconcile.schedule import LATE_SECONDS, TICK_SECONDS
from supervisor.reconcile.worker import AgentSpec, Worker, WorkerLink

CONCURRENCY = 64
"""Agents handled at once: each ends by itself, and one that hangs delays no other."""
GUARD_RETURNS = 2.0
"""Seconds within which a guard finds a new daemon: it tries every second at least."""
UNSURE_SECONDS = 0.5
"""Between two looks at an ending worker of which it is not known whether it has calls."""
GAVE_UP_ON_LIVEKIT = 69
"""The guard's exit status for a worker that LiveKit stayed away from (docs/protocol.md)."""


class RoomWaker(Protocol):
    def wake_agent(self, agent_id: str) -> None: ...


class Wishes(Protocol):
    """What the operator wished for, where a crash of the daemon does not lose it."""

    def stopped(self) -> frozenset[str]: ...

    def set_stopped(self, agent_id: str, stopped: bool) -> None: ...


class ExitEvidence(Protocol):
    """What else is known about a death."""

    def out_of_memory(self, spec: ProcessSpec) -> bool: ...

    def last_output(self, spec: ProcessSpec) -> str: ...


class WorkerReconciler:
    """All supervised processes of this daemon."""

    def __init__(
        self,
        host: ProcessHost,
        book: ClaimBook,
        wishes: Wishes,
        evidence: ExitEvidence,
        bus: EventBus,
        clock: Callable[[], float],
        *,
        random: Callable[[], float],
        livekit_up: Callable[[], bool],
    ) -> None:
        self._host = host
        self._book = book
        self._wishes = wishes
        self._evidence = evidence
        self._bus = bus
        self._clock = clock
        self._random = random
        self._livekit_up = livekit_up
        self._livekit_back_at = 0.0
        self._forgiven_at = 0.0
        self._ticked_at: float | None = None
        self._workers: dict[str, Worker] = {}
        self._rooms: RoomWaker | None = None
        self._watchers: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()
        self._reconciler = Reconciler(
            Loop.WORKERS, self._reconcile, bus, clock, concurrency=CONCURRENCY, random=random
        )

    def listen(self, rooms: RoomWaker) -> None:
        self._rooms = rooms

    @property
    def waiting(self) -> int:
        """Keys that nobody has taken yet: for the watchdog."""
        return self._reconciler.queue.waiting

    async def run(self) -> None:
        """Until cancelled; running processes are left alone."""
        try:
            await self._reconciler.run()
        finally:
            for task in self._watchers:
                task.cancel()
            await asyncio.gather(*self._watchers, return_exceptions=True)

    # --- configuration ---

    def configure(self, specs: Iterable[AgentSpec]) -> None:
        """From now on these agents, in this order: new ones are started, missing ones drained and stopped."""
        before = self._workers
        stopped = self._wishes.stopped()
        self._workers = {}
        for spec in specs:
            worker = before.pop(spec.id, None)
            if worker is None:
                worker = Worker(spec, wanted=spec.id not in stopped, since=self._clock())
                self._adopt(worker)
            elif worker.forgotten:  # it was taken out, and comes back before its process has gone
                worker.spec, worker.forgotten, worker.wanted = spec, False, spec.id not in stopped
                if worker.wanted:
                    self._resume(worker)
            else:
                self._respect(worker, spec.policy)
                worker.spec = spec
                if worker.ending is not None and worker.ending.reason is EndReason.CONFIG:
                    self._resume(worker)
            self._workers[spec.id] = worker
            self.wake(spec.id)
        for agent_id, worker in before.items():
            worker.forgotten, worker.wanted = True, False
            if worker.handle is not None:
                worker.ending = worker.ending or begin_ending(
                    worker.spec.policy, EndReason.STOPPED, self._clock(), drain=True
                )
                self._tell_drain(worker)
                self._workers[agent_id] = worker
                self.wake(agent_id)

    def _respect(self, worker: Worker, policy: WorkerPolicy) -> None:
        """Before its guard has heard of a new interval, its next beat comes as the old one had it."""
        old = worker.spec.policy.heartbeat_timeout
        if policy.heartbeat_timeout != old and worker.last_heartbeat is not None:
            worker.last_heartbeat = self._clock() + old

    def end_unconfigured(self, specs: Iterable[AgentSpec]) -> None:
        """Adopt what runs of agents that are not configured any more, to drain and stop it."""
        for spec in specs:
            worker = Worker(spec, wanted=False, forgotten=True, since=self._clock())
            self._adopt(worker)
            if worker.handle is not None:
                self._workers[spec.id] = worker
                self.wake(spec.id)

    def _adopt(self, worker: Worker) -> None:
        handle = self._host.adopt(worker.spec.process)
        if handle is None:
            return
        self._attach(worker, handle)
        if worker.spec.policy.guarded and handle.age >= worker.spec.policy.startup_timeout:
            # Its guard is there, and only has to find us: it is not waited for like one that starts.
            worker.last_heartbeat = self._clock() + GUARD_RETURNS
        if not worker.wanted:
            # Whether its stop was to drain is not known any more: no call is cut off by a change of daemons.
            worker.ending = begin_ending(worker.spec.policy, EndReason.STOPPED, self._clock(), drain=True)
            self._tell_drain(worker)

    # --- reading ---

    def all(self) -> tuple[Worker, ...]:
        return tuple(self._workers.values())

    def pid(self, agent_id: str) -> int | None:
        """Of its worker's process, while there is one."""
        worker = self.get(agent_id)
        return worker.handle.pid if worker is not None and worker.handle is not None else None

    def get(self, agent_id: str) -> Worker | None:
        return self._workers.get(agent_id)

    def views(self) -> tuple[AgentView, ...]:
        """The agents as the room plan sees them, in configuration order."""
        return tuple(self._view(w) for w in self._workers.values() if w.spec.is_agent and not w.forgotten)

    def _view(self, worker: Worker) -> AgentView:
        full = bool(worker.spec.max_rooms) and (
            self._book.table.count(worker.spec.id) >= worker.spec.max_rooms
        )
        return AgentView(
            id=worker.spec.id,
            name=worker.name,
            rooms=worker.rooms,
            ready=worker.state is WorkerState.READY and worker.answers,
            ready_since=worker.ready_since,
            reason=worker.reason or (worker.state.value if worker.answers else "it has hung up"),
            full=full,
        )

    async def wait_until(self, condition: Callable[[], bool]) -> None:
        """Until ``condition`` holds; it is asked again at every change of a worker."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    # --- what wakes a worker ---

    def wake(self, agent_id: str) -> None:
        self._reconciler.queue.add(agent_id)

    def wake_soon(self, agent_id: str) -> None:
        """When a job has died: its worker may have died with it, and is told of a moment later."""
        self._reconciler.queue.add_at(agent_id, self._clock() + TICK_SECONDS)

    def wake_all(self) -> None:
        for agent_id in self._workers:
            self.wake(agent_id)

    def livekit_is_back(self) -> None:
        self._livekit_back_at = self._clock()
        for worker in self._workers.values():
            worker.waits_for_livekit = False
        self.wake_all()

    # --- commands ---

    def start(self, agent_id: str) -> None:
        """It is wanted again, at once: a backoff is over, and a stop that still drains is taken back."""
        worker = self._workers[agent_id]
        self._want(worker, True)
        self._resume(worker)
        worker.failures, worker.next_start_at, worker.waits_for_livekit = 0, 0.0, False
        self.wake(agent_id)

    def stop(self, agent_id: str, *, drain: bool) -> None:
        worker = self._workers[agent_id]
        self._want(worker, False)
        self._end(worker, EndReason.STOPPED, drain=drain)

    def restart(self, agent_id: str, *, drain: bool) -> None:
        worker = self._workers[agent_id]
        self._want(worker, True)
        worker.failures, worker.next_start_at, worker.waits_for_livekit = 0, 0.0, False
        self._end(worker, EndReason.COMMAND, drain=drain)

    def shut_down(self, agent_ids: Iterable[str], *, drain: float | None) -> None:
        """End these for good, each draining for at most ``drain`` seconds; None: as long as it may itself.

        Nothing is remembered.
        """
        now = self._clock()
        for agent_id in agent_ids:
            worker = self._workers[agent_id]
            worker.wanted = False
            seconds = worker.spec.policy.drain if drain is None else drain
            until = now + seconds if seconds > 0 else None
            since = worker.ending.since if worker.ending is not None else now
            self._wish_ending(worker, Ending(EndReason.STOPPED, since=since, drain_until=until))
            self._tell_drain(worker)
            self.wake(agent_id)

    def hung(self, agent_id: str) -> None:
        """A job of the worker's own process hangs, and cannot be ended alone."""
        worker = self._workers.get(agent_id)
        if (
            worker is not None and worker.handle is not None
        ):  # also one that drains: it would not end by itself
            self._end(worker, EndReason.HUNG, drain=False)

    def _want(self, worker: Worker, wanted: bool) -> None:
        worker.wanted = wanted
        if not worker.forgotten:  # else it would be stopped still when somebody configures it again
            self._wishes.set_stopped(worker.spec.id, not wanted)

    def _end(self, worker: Worker, reason: EndReason, *, drain: bool) -> None:
        if worker.handle is not None:
            ending = begin_ending(worker.spec.policy, reason, self._clock(), drain=drain)
            self._wish_ending(worker, ending)
            if drain:
                self._tell_drain(worker)
        self.wake(worker.spec.id)

    def _wish_ending(self, worker: Worker, ending: Ending) -> None:
        """The last wish counts up to SIGTERM; after it, only one that cuts short the drain that it began."""
        old = worker.ending
        if old is None or old.signalled_at is None:
            worker.ending = replace(ending, told_by_others=old is not None and old.told_by_others)
        elif ending.drain_until is None and self._drains_by_itself(worker, old):
            worker.ending = ending

    def _drains_by_itself(self, worker: Worker, ending: Ending) -> bool:
        return worker.drains_on_sigterm and drains_by_itself(ending, self._clock())

    def _tell_drain(self, worker: Worker, why: str = "") -> None:
        """The guard takes no more rooms from this moment on, not from the next look on."""
        ending = worker.ending
        if worker.handle is None or ending is None:
            return
        if worker.state in (WorkerState.STARTING, WorkerState.READY) and ending.drain_until is not None:
            self._move(worker, WorkerEvent.DRAIN, f"draining: {why or ending.reason}")
            seconds = max(0.0, ending.drain_until - self._clock())
            if worker.link is not None:
                worker.link.drain(seconds)
            self._book.tell_to_drain(worker.spec.id, seconds)

    def _resume(self, worker: Worker) -> None:
        """It was to stop, and goes on instead; its jobs that were told to drain end as they were told."""
        if worker.ending is None or not self._may_go_on(worker, worker.ending):
            return
        worker.ending = None
        if worker.state is not WorkerState.DRAINING:
            return
        self._bus.publish(DrainFinished(agent_id=worker.spec.id, outcome="interrupted"))
        self._move(worker, WorkerEvent.RESUME)
        if worker.link is not None:
            worker.link.resume()
        if worker.registered:
            self._move(worker, WorkerEvent.REGISTERED)
            worker.ready_since = self._clock()
            self._wake_rooms(worker.spec.id)

    def _may_go_on(self, worker: Worker, ending: Ending) -> bool:
        """What it was to end for is no more.  A restart stays wished for, whatever comes meanwhile."""
        if ending.signalled_at is not None or ending.told_by_others:
            return False
        if ending.reason is EndReason.CONFIG:
            return not worker.is_changed
        return ending.reason is EndReason.STOPPED

    # --- what guards tell ---

    def connected(self, agent_id: str, pid: int, link: WorkerLink) -> bool:
        """The worker's guard is there; False when it is not the process that we know."""
        worker = self._workers.get(agent_id)
        if worker is None or worker.handle is None or worker.handle.pid != pid:
            return False
        worker.link, worker.last_heartbeat = link, self._clock()
        self.wake(agent_id)
        if worker.state is WorkerState.READY:
            self._wake_rooms(agent_id)
        return True

    def disconnected(self, agent_id: str, link: WorkerLink) -> None:
        worker = self._workers.get(agent_id)
        if worker is not None and worker.link is link:
            worker.link = None

    def registered(self, agent_id: str, *, name: str, worker_id: str, http_port: int) -> None:
        worker = self._workers.get(agent_id)
        if worker is None or worker.handle is None:
            return
        first = not worker.registered_once
        worker.reported_name, worker.http_port = name, http_port
        worker.registered = worker.registered_once = worker.spoken = True
        worker.failure = ""
        self._move(worker, WorkerEvent.REGISTERED)
        if worker.state is WorkerState.READY and worker.ready_since is None:
            worker.ready_since = self._clock()
        seconds = self._clock() - worker.started_at if first and not worker.handle.adopted else None
        self._bus.publish(
            WorkerReady(agent_id=agent_id, pid=worker.handle.pid, worker_id=worker_id, seconds=seconds)
        )
        self.wake(agent_id)
        self._wake_rooms(agent_id)

    def unregistered(self, agent_id: str, error: str) -> None:
        worker = self._workers.get(agent_id)
        if worker is None or worker.handle is None:
            return
        was = worker.registered
        worker.registered, worker.ready_since, worker.spoken = False, None, True
        if not worker.registered_once:
            worker.failure = error  # told beside the restart that comes of it, too
        self._move(worker, WorkerEvent.UNREGISTERED, error or "not connected to LiveKit")
        if was:
            self._bus.publish(WorkerRegistrationLost(agent_id=agent_id, pid=worker.handle.pid))
        self.wake(agent_id)

    def heartbeat(self, agent_id: str, *, draining: bool = False) -> None:
        """``draining``: LiveKit's own drain has begun, as it does on SIGTERM, whoever sent that."""
        worker = self._workers.get(agent_id)
        if worker is None:
            return
        worker.last_heartbeat = self._clock()
        if draining and worker.handle is not None:
            self._is_on_its_way_out(worker)

    def _is_on_its_way_out(self, worker: Worker) -> None:
        """It would take no job for as long as its calls last, which may be an hour: a drain like ours."""
        ending = worker.ending
        if ending is None:
            drain = begin_ending(worker.spec.policy, EndReason.COMMAND, self._clock(), drain=True)
            worker.ending = replace(drain, told_by_others=True)
            self._tell_drain(worker, "somebody else has sent it SIGTERM")
            self.wake(worker.spec.id)
        elif ending.signalled_at is None:
            worker.ending = replace(ending, told_by_others=True)

    def health(self, agent_id: str, pid: int, complaint: str | None) -> None:
        """What its health endpoint answered: None is well.  No answer is no news: heartbeats judge that."""
        worker = self._workers.get(agent_id)
        if worker is None or worker.handle is None or worker.handle.pid != pid:
            return
        if complaint is None or not worker.registered:
            worker.unhealthy_since = None
        elif worker.unhealthy_since is None:
            worker.unhealthy_since = self._clock()
            self._bus.publish(WorkerUnhealthy(agent_id=agent_id, pid=pid, complaint=complaint))
            self.wake(agent_id)

    def failed(self, agent_id: str, reason: str) -> None:
        worker = self._workers.get(agent_id)
        if worker is not None:
            worker.failure = reason

    def goodbye(self, agent_id: str, reason: str) -> None:
        """It ends by itself, in good order, and says why."""
        worker = self._workers.get(agent_id)
        if worker is not None:
            worker.gave_up_on_livekit = reason == RestartReason.LIVEKIT_LOST

    def tick(self) -> None:
        """The event loop turns, and if it was late, that has been forgiven: twice a second."""
        self._ticked_at = self._clock()

    def forgive(self) -> None:
        """We were late ourselves: no heartbeat and no start is overdue because of that."""
        now = self._forgiven_at = self._clock()
        for worker in self._workers.values():
            if worker.last_heartbeat is not None:
                worker.last_heartbeat = max(worker.last_heartbeat, now)  # one may have been given longer
            worker.unhealthy_since = None

    def _is_late(self) -> bool:
        """Nobody has ticked when it was time to: what seems overdue has perhaps had no chance to come."""
        now = self._clock()
        return self._ticked_at is not None and now > self._ticked_at + TICK_SECONDS + LATE_SECONDS

    def busy(self, agent_id: str) -> int:
        return self._book.busy_rooms(agent_id)

    # --- one worker ---

    async def _reconcile(self, agent_id: str) -> float | None:
        worker = self._workers.get(agent_id)
        if worker is None:
            return None
        if worker.exit is not None:
            await self._bury(worker, worker.exit)
        if worker.handle is None and worker.forgotten:
            del self._workers[agent_id]
            self._changed.set()
            return None
        if worker.handle is None and not worker.wanted and worker.state is not WorkerState.STOPPED:
            self._move(worker, WorkerEvent.ENDED, "stopped")
            worker.restart_reason = None  # a later start replaces nothing
        self._count_rooms(worker)
        if worker.handle is not None and self._is_late():
            return self._clock() + TICK_SECONDS
        if worker.ending is not None:
            self._end_drain_by_itself(worker, worker.ending)
        decision = worker_plan.plan(self._worker_view(worker), self._clock())
        for action in decision.actions:
            await self._apply(worker, action)
        self._changed.set()
        if worker.ending is not None and worker.ending.signalled_at is None and self._may_be_busy(worker):
            return self._clock() + UNSURE_SECONDS
        return decision.look_at

    def _may_be_busy(self, worker: Worker) -> bool:
        """Calls that nobody has told us of, perhaps: right after our start its guards have yet to find us."""
        if any(job.speaks_by is not None for job in self._book.jobs_of(worker.spec.id)):
            return True
        if worker.handle is None or not worker.handle.adopted or not self._book.is_starting():
            return False
        guarded = worker.spec.policy.guarded or worker.forgotten  # of that one we know no more than its ID
        return guarded and (not worker.spoken or self._clock() < worker.started_at + GUARD_RETURNS)

    def _busy_rooms(self, worker: Worker) -> int:
        return self._book.busy_rooms(worker.spec.id) or int(self._may_be_busy(worker))

    def _count_rooms(self, worker: Worker) -> None:
        """More rooms than it may have: jobs taken while no daemon answered, or a lower limit by now."""
        limit = worker.spec.max_rooms
        over = bool(limit) and self._book.table.count(worker.spec.id) > limit
        if over and not worker.over_limit:
            kind, agent_id = ConflictKind.TOO_MANY_ROOMS, worker.spec.id
            self._bus.publish(ConflictDetected(kind=kind, agent_id=agent_id))
            self._bus.publish(
                ConflictResolved(kind=kind, resolution=Resolution.REPORTED, seconds=0.0, agent_id=agent_id)
            )
        worker.over_limit = over

    def _worker_view(self, worker: Worker) -> WorkerView:
        return WorkerView(
            wanted=worker.wanted,
            policy=worker.spec.policy,
            alive=worker.handle is not None,
            started_at=max(worker.started_at, self._livekit_back_at, self._forgiven_at),
            livekit_up=self._livekit_up(),
            registered_once=worker.registered_once,
            last_heartbeat=worker.last_heartbeat,
            unhealthy_since=worker.unhealthy_since,
            busy_rooms=self._busy_rooms(worker),
            drains_on_sigterm=worker.drains_on_sigterm,
            config_changed=worker.is_changed,
            memory_bytes=worker.memory_bytes,
            ending=worker.ending,
            next_start_at=worker.next_start_at,
            waits_for_livekit=worker.waits_for_livekit and not self._livekit_up(),
        )

    async def _apply(self, worker: Worker, action: worker_plan.Action) -> None:
        match action:
            case worker_plan.Spawn():
                await self._spawn(worker)
            case worker_plan.Drain(ending):
                worker.ending = ending
                self._tell_drain(worker)
            case worker_plan.Terminate(ending):
                self._terminate(worker, ending)
            case worker_plan.Kill(ending):
                await self._kill(worker, ending)

    async def _spawn(self, worker: Worker) -> None:
        agent_id = worker.spec.id
        if not worker.cleared:
            # what an earlier worker may have left, its lock among it; much may be wished for meanwhile
            await self._host.clear_leftovers(worker.spec.process)
            worker.cleared = True
            self.wake(agent_id)
            return
        try:
            handle = self._host.adopt(worker.spec.process) or self._host.spawn(worker.spec.process)
        except SpawnFailed as error:
            self._bus.publish(WorkerSpawnFailed(agent_id=agent_id, error=str(error)))
            worker.failure, worker.cleared = str(error), False
            self._reschedule(worker, uptime=0.0)
            return
        self._attach(worker, handle)
        if worker.restart_reason is not None:
            worker.restarts += 1
            self._bus.publish(WorkerRestarted(agent_id=agent_id, reason=worker.restart_reason))
            worker.restart_reason = None

    def _attach(self, worker: Worker, handle: ProcessHandle) -> None:
        worker.attach(handle, self._clock())
        kind = WorkerAdopted if handle.adopted else WorkerSpawned
        self._bus.publish(kind(agent_id=worker.spec.id, pid=handle.pid))
        self._move(worker, WorkerEvent.SPAWNED)
        task = asyncio.get_running_loop().create_task(
            self._watch(worker, handle), name=f"watch-{worker.spec.id}"
        )
        self._watchers.add(task)
        task.add_done_callback(self._watchers.discard)
        if not worker.spec.policy.guarded:
            worker.registered = worker.registered_once = True
            worker.ready_since = worker.started_at
            self._move(worker, WorkerEvent.REGISTERED)
            self._bus.publish(WorkerReady(agent_id=worker.spec.id, pid=handle.pid))
        self.wake(worker.spec.id)

    async def _watch(self, worker: Worker, handle: ProcessHandle) -> None:
        status = await handle.wait()
        if worker.handle is handle:
            worker.exit = status
            self.wake(worker.spec.id)

    def _terminate(self, worker: Worker, ending: Ending) -> None:
        if self._drains_by_itself(worker, ending):
            worker.ending = ending
            self._move(worker, WorkerEvent.DRAIN, f"draining: {ending.reason}")
            self._signal(worker, signal.SIGTERM, ending.reason)
            return
        self._finish_drain(worker, ending)
        worker.ending = ending
        self._move(worker, WorkerEvent.STOP, f"stopping: {ending.reason}")
        for job in self._book.jobs_of(worker.spec.id):
            self._book.tell_to_leave(
                job.job_id, f"worker stops: {ending.reason}", cause=JobDeath.WORKER_DEATH
            )
        if not ending.told_by_others:
            self._signal(worker, signal.SIGTERM, ending.reason)

    def _end_drain_by_itself(self, worker: Worker, ending: Ending) -> None:
        """It has had its time, and is there."""
        if worker.state is not WorkerState.DRAINING or ending.signalled_at is None:
            return
        if not self._drains_by_itself(worker, ending):
            self._finish_drain(worker, ending)
            self._move(worker, WorkerEvent.STOP, f"stopping: {ending.reason}")

    def _finish_drain(self, worker: Worker, ending: Ending) -> None:
        if worker.state is not WorkerState.DRAINING:
            return
        if self._busy_rooms(worker) == 0 and not worker.drains_on_sigterm:  # which ends when that is so
            outcome = "completed"
        elif ending.drain_until is not None and self._clock() >= ending.drain_until:
            outcome = "timeout"
        else:
            outcome = "interrupted"
        self._bus.publish(DrainFinished(agent_id=worker.spec.id, outcome=outcome))

    async def _kill(self, worker: Worker, ending: Ending) -> None:
        worker.ending = ending
        if worker.handle is None:
            return
        self._bus.publish(
            WorkerSignalled(
                agent_id=worker.spec.id, pid=worker.handle.pid, signal="SIGKILL", reason=ending.reason
            )
        )
        self._move(worker, WorkerEvent.STOP, f"killing: {ending.reason}")
        await worker.handle.kill_tree()

    def _signal(self, worker: Worker, number: signal.Signals, reason: str) -> None:
        if worker.handle is not None and worker.handle.signal(number):
            self._bus.publish(
                WorkerSignalled(
                    agent_id=worker.spec.id, pid=worker.handle.pid, signal=number.name, reason=reason
                )
            )

    # --- after a death ---

    async def _bury(self, worker: Worker, status: ExitStatus) -> None:
        """The process is gone: end what is left of its tree, and decide when the next one may start."""
        handle, ending = worker.handle, worker.ending
        if handle is None:
            return
        agent_id = worker.spec.id
        if worker.state is WorkerState.DRAINING:
            outcome = "completed" if self._has_drained(worker) else "interrupted"
            self._bus.publish(DrainFinished(agent_id=agent_id, outcome=outcome))
        self._book.worker_died(agent_id)
        self._wake_rooms(agent_id)
        # Who is not dead yet is waited for once more before the next start.
        worker.cleared = not await handle.kill_tree()
        uptime = worker.ran_before + self._clock() - worker.started_at
        reason = self._restart_reason(worker, status)
        self._tell_exit(worker, handle, status, reason)
        worker.detach()
        if not worker.wanted:
            self._move(worker, WorkerEvent.ENDED, "stopped")
            return
        worker.restart_reason = reason
        self._reschedule(
            worker,
            uptime=uptime,
            wanted_end=ending is not None and ending.reason in _OWN_WISH,
            livekit_lost=reason is RestartReason.LIVEKIT_LOST,
        )

    def _has_drained(self, worker: Worker) -> bool:
        """One that died in the middle of its drain had been told to end by itself, and had no calls left."""
        ending = worker.ending
        told = ending is not None and (ending.signalled_at is not None or ending.told_by_others)
        return told and self._book.busy_rooms(worker.spec.id) == 0

    def _reschedule(
        self, worker: Worker, *, uptime: float, wanted_end: bool = False, livekit_lost: bool = False
    ) -> None:
        now = self._clock()
        restart = after_exit(
            worker.spec.policy,
            failures=worker.failures,
            uptime=uptime,
            now=now,
            randomness=self._random(),
            wanted_end=wanted_end,
            livekit_lost=livekit_lost,
        )
        worker.failures, worker.next_start_at = restart.failures, restart.next_start_at
        worker.waits_for_livekit = restart.waits_for_livekit
        why = worker.failure or str(worker.restart_reason or "")
        if restart.waits_for_livekit:
            why = "waits for LiveKit"
        self._move(worker, WorkerEvent.EXITED, why)
        if restart.looping:
            self._move(worker, WorkerEvent.LOOPING, f"{restart.failures} failures in a row: {why}")
        self._reconciler.queue.add_at(worker.spec.id, worker.next_start_at)

    def _restart_reason(self, worker: Worker, status: ExitStatus) -> RestartReason:
        if worker.ending is not None:
            stopped = worker.ending.reason is EndReason.STOPPED  # and wanted again since
            return RestartReason.COMMAND if stopped else RestartReason(worker.ending.reason.value)
        if worker.spec.policy.guarded and self._has_lost_livekit(worker, status):
            return RestartReason.LIVEKIT_LOST
        if status.signal == signal.SIGKILL and self._evidence.out_of_memory(worker.spec.process):
            return RestartReason.OOM
        return RestartReason.SIGNAL if status.signal is not None else RestartReason.EXIT

    def _has_lost_livekit(self, worker: Worker, status: ExitStatus) -> bool:
        """Its guard's word counts; a bare status, which any script may have, only while LiveKit is away."""
        if worker.gave_up_on_livekit:
            return True
        if self._livekit_up():
            return False
        # What it says for itself outweighs what we suppose.
        return status.code == GAVE_UP_ON_LIVEKIT or not (worker.registered or worker.failure)

    def _tell_exit(
        self, worker: Worker, handle: ProcessHandle, status: ExitStatus, reason: RestartReason
    ) -> None:
        agent_id, pid, code = worker.spec.id, handle.pid, status.code
        name = signal.Signals(status.signal).name if status.signal in _SIGNALS else ""
        number = name or (str(status.signal) if status.signal is not None else "")
        if worker.ending is not None and not worker.wanted:
            self._bus.publish(WorkerStopped(agent_id=agent_id, pid=pid, exit_code=code, signal=number))
            return
        last = self._evidence.last_output(worker.spec.process)
        self._bus.publish(
            WorkerExited(
                agent_id=agent_id, pid=pid, reason=reason, exit_code=code, signal=number, last_output=last
            )
        )

    # --- inside ---

    def _wake_rooms(self, agent_id: str) -> None:
        if self._rooms is not None:
            self._rooms.wake_agent(agent_id)

    def _move(self, worker: Worker, event: WorkerEvent, reason: str = "") -> None:
        old, worker.state = worker.state, transition(worker.state, event)
        worker.reason = reason
        if old is worker.state:
            return
        worker.since = self._clock()
        if worker.state not in HAS_PROCESS or worker.draining:
            worker.ready_since = None
        self._changed.set()
        self._bus.publish(
            WorkerStateChanged(agent_id=worker.spec.id, old=old, new=worker.state, reason=reason)
        )


_OWN_WISH = frozenset({EndReason.COMMAND, EndReason.CONFIG, EndReason.STOPPED})
"""Endings that are no failure of the worker: the next start follows at once.

Too much memory is one when it comes before ``stable_after``: the limit is below what it needs at all.
"""
_SIGNALS = frozenset(s.value for s in signal.Signals)
