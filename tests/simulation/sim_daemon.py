"""The daemon's own reconcilers over the model: nothing of ours is replaced, only what is outside.

One rule: whatever a guard or the kernel would tell arrives the way it does in production: as messages of the
guard protocol, and as deaths that are watched.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from supervisor.core.backoff import BackoffPolicy
from supervisor.core.model import ATTRIBUTE_INSTANCE
from supervisor.core.patterns import is_ignored
from supervisor.core.ports import ExitStatus, GuardSession, ProcessSpec, Refusal, StoredClaim, StoredIntent
from supervisor.core.room import RoomPolicy
from supervisor.core.worker_plan import WorkerPolicy
from supervisor.events import Event, EventBus
from supervisor.reconcile.claimbook import ClaimBook
from supervisor.reconcile.guards import GuardDesk, GuardTimes
from supervisor.reconcile.health import LiveKitHealth
from supervisor.reconcile.rooms import RoomReconciler
from supervisor.reconcile.schedule import tick
from supervisor.reconcile.worker import AgentSpec
from supervisor.reconcile.workers import WorkerReconciler
from tests.simulation.model_ports import Offer, Verdict
from tests.simulation.model_processes import ModelProcesses
from tests.simulation.model_workers import DaemonAway, ModelJob, ModelWorker
from tests.simulation.model_world import World

INSTANCE = "us"
HEARTBEAT = GuardTimes(heartbeat_interval=2.0, heartbeat_timeout=10.0)
POLICY = RoomPolicy(instance=INSTANCE)
WORKER_POLICY = WorkerPolicy(
    backoff=BackoffPolicy(0.5, 2.0, 60.0, 0.2),
    stable_after=60.0,
    startup_timeout=30.0,
    heartbeat_timeout=HEARTBEAT.heartbeat_timeout,
    drain=300.0,
    kill=10.0,
)


@dataclass
class Disk:
    """What outlives the daemon.  ``lost`` makes it forget, as a store that was thrown away."""

    claims: dict[str, StoredClaim] = field(default_factory=dict)
    intents: dict[str, StoredIntent] = field(default_factory=dict)
    epoch: int = 0
    stops: set[str] = field(default_factory=set)

    async def load_claims(self) -> Sequence[StoredClaim]:
        return list(self.claims.values())

    async def load_epoch(self) -> int:
        return self.epoch

    def save_claim(self, claim: StoredClaim) -> None:
        self.claims[claim.claim.room] = claim
        self.epoch = max(self.epoch, claim.claim.epoch)

    def delete_claim(self, room: str) -> None:
        self.claims.pop(room, None)

    async def load_intents(self) -> Sequence[StoredIntent]:
        return list(self.intents.values())

    def save_intent(self, intent: StoredIntent) -> None:
        self.intents[intent.room] = intent

    def delete_intent(self, room: str) -> None:
        self.intents.pop(room, None)

    async def flush(self) -> bool:
        return True

    def stopped(self) -> frozenset[str]:
        return frozenset(self.stops)

    def set_stopped(self, agent_id: str, stopped: bool) -> None:
        (self.stops.add if stopped else self.stops.discard)(agent_id)


class Watch:
    """The model's processes, as one life of the daemon sees them: nothing after its end."""

    def __init__(self, processes: ModelProcesses) -> None:
        self._processes = processes
        self._stops: set[Callable[[], None]] = set()

    def create_time(self, pid: int) -> float | None:
        return self._processes.create_time(pid)

    def watch(self, pid: int, on_exit: Callable[[], None]) -> Callable[[], None]:
        stop = self._processes.watch(pid, on_exit)
        self._stops.add(stop)

        def forget() -> None:
            self._stops.discard(stop)
            stop()

        return forget

    def kill(self, pid: int, create_time: float) -> bool:
        return self._processes.kill(pid, create_time)

    def in_tree(self, pid: int, root_pid: int, marks: tuple[tuple[str, str], ...]) -> bool:
        return self._processes.in_tree(pid, root_pid, marks)

    def end(self) -> None:
        for stop in self._stops:
            stop()


class Handle:
    """A model worker's process, as the worker reconciler holds it."""

    def __init__(self, worker: ModelWorker, *, adopted: bool) -> None:
        assert worker.process is not None
        self._worker = worker
        self._process = worker.process
        self.adopted = adopted
        self.age = 0.0
        self.command_hash = "hash"
        self.lacking = ""
        self._gone = asyncio.Event()
        worker.processes.watch(self._process.pid, self._gone.set)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def create_time(self) -> float:
        return self._process.create_time

    def signal(self, number: int) -> bool:
        if not self._process.alive:
            return False
        if number == signal.SIGTERM:
            self._worker.draining = True
            asyncio.get_running_loop().call_later(0.3, self._worker.kill)
        return True

    async def wait(self) -> ExitStatus:
        await self._gone.wait()
        return ExitStatus(signal=signal.SIGKILL)

    async def kill_tree(self) -> tuple[int, ...]:
        if self._process.alive:
            self._worker.kill()
        return ()


class Host:
    """Starts and adopts the model's workers; never two for an ID, which the model would refuse."""

    def __init__(self, workers: Mapping[str, ModelWorker]) -> None:
        self._workers = workers

    def spawn(self, spec: ProcessSpec) -> Handle:
        worker = self._workers[spec.id]
        worker.start()
        return Handle(worker, adopted=False)

    def adopt(self, spec: ProcessSpec) -> Handle | None:
        worker = self._workers[spec.id]
        return Handle(worker, adopted=True) if worker.alive else None

    async def clear_leftovers(self, spec: ProcessSpec) -> tuple[int, ...]:
        return ()


class NoEvidence:
    def out_of_memory(self, spec: ProcessSpec) -> bool:
        return False

    def last_output(self, spec: ProcessSpec) -> str:
        return ""


class Peer:
    """The daemon's view of one guard connection; what it is sent is acted on by the model."""

    def __init__(self, pid: int, hear: Callable[[Mapping[str, object]], None]) -> None:
        self.pid = pid
        self._hear = hear
        self.answer: Mapping[str, object] = {}

    def send(self, message: Mapping[str, object]) -> None:
        if message.get("type") in ("answer", "welcome"):
            self.answer = message
        else:
            self._hear(message)

    def close(self) -> None: ...


@dataclass
class Link:
    peer: Peer
    session: GuardSession


class Bridge:
    """Implements the model's :class:`Guard` by speaking the guard protocol to a :class:`GuardDesk`."""

    def __init__(self, desk: GuardDesk) -> None:
        self._desk = desk
        self._workers: dict[int, Link] = {}
        self._jobs: dict[str, Link] = {}
        self._epochs: dict[str, int] = {}
        self.gone = False

    # --- workers ---

    def registered(self, worker: ModelWorker) -> None:
        link = self._worker(worker)
        if link is not None:
            link.session.receive(
                {"type": "registered", "worker_id": "AW_1", "agent_name": worker.name, "http_port": 1}
            )

    def unregistered(self, worker: ModelWorker) -> None:
        link = self._worker(worker)
        if link is not None:
            link.session.receive({"type": "unregistered", "error": "connection lost"})

    def worker_lost(self, worker: ModelWorker) -> None:
        link = self._workers.pop(id(worker), None)
        if link is not None and not self.gone:
            link.session.closed()

    def request(self, worker: ModelWorker, offer: Offer, identity: str) -> Verdict:
        link = self._worker(worker)
        if link is None:
            return Verdict.PASS
        message = {"type": "request", "id": 1, "room": offer.room, "job_id": offer.job_id}
        link.peer.answer = {}
        link.session.receive({**message, "dispatch_id": offer.dispatch_id, "identity": identity})
        answer = link.peer.answer
        if not answer:  # the daemon is not sure: the guard looks
            return DaemonAway(worker.server).request(worker, offer, identity)
        if answer["outcome"] == "granted":
            self._epochs[offer.job_id] = int(str(answer["epoch"]))
            return Verdict.ACCEPT
        return Verdict.REJECT if answer["terminate"] else Verdict.PASS

    def _worker(self, worker: ModelWorker) -> Link | None:
        link = self._workers.get(id(worker))
        if link is not None and worker.process is not None and link.peer.pid == worker.process.pid:
            return link
        if worker.process is None or self.gone:
            return None

        def hear(message: Mapping[str, object]) -> None:
            worker.draining = worker.draining or message["type"] == "drain"

        hello = {"type": "hello", "v": 1, "role": "worker", "agent_id": worker.agent_id}
        link = self._connect(worker.process.pid, hear, hello)
        if link is not None:
            self._workers[id(worker)] = link
            running = [job for job in worker.jobs.values() if job.alive]
            link.session.receive({"type": "jobs", "jobs": [_running(job) for job in running]})
        return link

    def _connect(
        self, pid: int, hear: Callable[[Mapping[str, object]], None], hello: Mapping[str, object]
    ) -> Link | None:
        peer = Peer(pid, hear)
        session = self._desk.hello(peer, hello)
        return None if isinstance(session, Refusal) else Link(peer, session)

    # --- jobs ---

    def hello(self, job: ModelJob) -> bool:
        def hear(message: Mapping[str, object]) -> None:
            if message["type"] == "leave":
                job.leave("told to")

        hello = {
            "type": "hello",
            "v": 1,
            "role": "job",
            "agent_id": job.worker.agent_id,
            "room": job.room,
            "job_id": job.id,
            "dispatch_id": job.dispatch_id,
            "identity": job.identity,
            "epoch": self._epochs.get(job.id),
            "joined": job.present,
        }
        link = self._connect(job.process.pid, hear, hello)
        if link is None:
            return True  # refused: it goes on and tries again
        self._jobs[job.id] = link
        if link.peer.answer.get("hold") is not True:
            return False
        self._epochs[job.id] = int(str(link.peer.answer["epoch"]))
        return True

    def joined(self, job: ModelJob) -> None:
        self._tell(job, {"type": "joined", "identity": job.identity})

    def census(self, job: ModelJob, humans: int, agents: int) -> None:
        self._tell(job, {"type": "census", "agents": ["x"] * agents, "humans": humans})

    def goodbye(self, job: ModelJob, reason: str) -> None:
        self._tell(job, {"type": "goodbye", "reason": reason})
        self.job_lost(job)

    def job_lost(self, job: ModelJob) -> None:
        link = self._jobs.pop(job.id, None)
        if link is not None and not self.gone:
            link.session.closed()

    def beat(self, workers: Sequence[ModelWorker]) -> None:
        for worker in workers:
            if worker.alive and id(worker) in self._workers:
                self._workers[id(worker)].session.receive({"type": "heartbeat"})
            for job in list(worker.jobs.values()):
                if not job.frozen:
                    self._tell(job, {"type": "heartbeat"})

    def _tell(self, job: ModelJob, message: Mapping[str, object]) -> None:
        link = self._jobs.get(job.id)
        if link is not None and not self.gone:
            link.session.receive(message)


def _running(job: ModelJob) -> dict[str, object]:
    named = {"job_id": job.id, "room": job.room, "identity": job.identity}
    return {**named, "dispatch_id": job.dispatch_id, "pid": job.process.pid}


class SimDaemon:
    """One life of the daemon over a world; :meth:`kill` it and make another."""

    def __init__(
        self,
        world: World,
        workers: Sequence[ModelWorker],
        disk: Disk,
        bus: EventBus,
        *,
        policy: RoomPolicy = POLICY,
        rooms: Mapping[str, tuple[str, ...]] | None = None,
        resync: float = 15.0,
        enforce: bool = True,
    ) -> None:
        self.world = world
        self.workers = workers
        self.disk = disk
        self.events: list[Event] = []
        self._resync = resync
        self._tasks: list[asyncio.Task[None]] = []
        clock = asyncio.get_running_loop().time
        rng = random.Random(world.rng.random())
        self._bus = bus
        self.health = LiveKitHealth("ws://model", bus, clock)
        self.watch = Watch(world.processes)
        self.book = ClaimBook(
            disk,
            self.watch,
            bus,
            clock,
            worker_hung=lambda a: self.reconciler.hung(a),
            worker_pid=lambda a: self.reconciler.pid(a),
        )
        self.reconciler = WorkerReconciler(
            Host({w.agent_id: w for w in workers}),
            self.book,
            disk,
            NoEvidence(),
            bus,
            clock,
            random=rng.random,
            livekit_up=self.health.is_up,
        )
        self.rooms = RoomReconciler(
            world.livekit,
            self.book,
            self.reconciler,
            disk,
            bus,
            clock,
            policy=policy,
            ignore=(),
            enforce=enforce,
            random=rng.random,
            livekit_since=self.health.since_when,
        )
        self.reconciler.listen(self.rooms)
        self.health.on_back(self._livekit_is_back)
        desk = GuardDesk(
            self.reconciler,
            self.book,
            self.watch,
            bus,
            instance=INSTANCE,
            times=lambda _: HEARTBEAT,
            human_return_grace=lambda: 15.0,
            reconnect_grace=lambda: policy.reconnect_grace,
            left_alone=lambda room, *names: is_ignored(names, policy.ignore_agents),
        )
        self.bridge = Bridge(desk)
        self._patterns = rooms or {}
        self._clock = clock

    def _livekit_is_back(self) -> None:
        self.reconciler.livekit_is_back()
        self.rooms.wake_all()

    async def start(self) -> None:
        await self.book.restore(HEARTBEAT.heartbeat_timeout)
        await self.rooms.restore()
        self.reconciler.configure([self._spec(worker) for worker in self.workers])
        self.world.webhook = self.rooms.notice
        for worker in self.workers:
            worker.meet(self.bridge)
        loops: list[Any] = [
            self.reconciler.run(),
            self.rooms.run(),
            tick(self._clock, self._bus, self.book.tick, lambda _: None),
            self._every(self._resync, lambda: self.rooms.resync(self._resync * 0.8)),
            self._every(1.0, self._probe),
            self._every(HEARTBEAT.heartbeat_interval, self._beat),
            self.rooms.resync(0.0),
        ]
        self._tasks = [asyncio.get_running_loop().create_task(loop) for loop in loops]

    def _spec(self, worker: ModelWorker) -> AgentSpec:
        process = ProcessSpec(worker.agent_id, ("agent",), "/", (), "/log", (), "hash")
        patterns = self._patterns.get(worker.agent_id, ("*",))
        return AgentSpec(worker.agent_id, worker.name, patterns, 0, WORKER_POLICY, process)

    async def kill(self) -> None:
        """SIGKILL: whoever talked to it is alone until the next one comes."""
        self.bridge.gone = True
        self.watch.end()
        self.world.webhook = lambda _event, _room, _sid: None
        away = DaemonAway(self.world.server)
        for worker in self.workers:
            worker.guard = away
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _every(self, seconds: float, job: Callable[[], Any]) -> None:
        while True:
            await asyncio.sleep(seconds)
            await job()

    async def _probe(self) -> None:
        if not self.health.is_up():
            await self.world.livekit.list_rooms()

    async def _beat(self) -> None:
        self.bridge.beat(self.workers)


ATTRIBUTES = {ATTRIBUTE_INSTANCE: INSTANCE}
