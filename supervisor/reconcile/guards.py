"""What guards say, turned into calls on claims and workers; docs/protocol.md is the contract.

The rule: whoever speaks for an agent must be in the tree of that agent's worker, by the kernel's word; and
every answer is made in memory, without an await.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from supervisor.core.claims import Answer, JobArrival, JobRequest
from supervisor.core.model import Claim, ClaimOutcome
from supervisor.core.ports import BadMessage, GuardPeer, GuardSession, ProcessWatch, Refusal
from supervisor.events import EventBus, GuardReport
from supervisor.reconcile.claimbook import ClaimBook
from supervisor.reconcile.worker import Worker
from supervisor.reconcile.workers import WorkerReconciler

VERSION = 1
MAX_NUMBER = 2**53 - 1
MAX_EPOCH = 2**52
"""The highest that a job may assert: above it there is room for as many more."""
MAX_PORT = 65_535

Wire = dict[str, object]
"""A message as it is sent."""


@dataclass(frozen=True, slots=True)
class GuardTimes:
    """Seconds that guards are told in ``welcome``."""

    heartbeat_interval: float
    heartbeat_timeout: float


class GuardDesk:
    """Accepts guards, one session per connection."""

    def __init__(
        self,
        workers: WorkerReconciler,
        book: ClaimBook,
        watch: ProcessWatch,
        bus: EventBus,
        *,
        instance: str,
        times: Callable[[str], GuardTimes],
        human_return_grace: Callable[[], float],
        reconnect_grace: Callable[[], float],
        left_alone: Callable[[str, str, str], bool],
    ) -> None:
        """``left_alone``: are this room, the agent of this name or this identity to be ignored?"""
        self.workers = workers
        self.book = book
        self.bus = bus
        self._watch = watch
        self._instance = instance
        self._times = times
        self._human_return_grace = human_return_grace
        self._reconnect_grace = reconnect_grace
        self._left_alone = left_alone
        self._sessions: set[_WorkerSession | _JobSession] = set()

    def hello(self, peer: GuardPeer, message: Mapping[str, object]) -> GuardSession | Refusal:
        try:
            return self._hello(peer, message)
        except BadMessage as error:
            return Refusal(str(error))

    def _hello(self, peer: GuardPeer, message: Mapping[str, object]) -> GuardSession | Refusal:
        if number(message, "v") != VERSION:
            return Refusal(f"version {message.get('v')!r} is not spoken here, only {VERSION}")
        agent_id = text(message, "agent_id")
        worker = self.workers.get(agent_id)
        if worker is None or worker.handle is None:
            return Refusal("no worker of that agent is supervised", agent_id)
        root = worker.handle.pid
        if peer.pid != root and not self._watch.in_tree(peer.pid, root, worker.spec.process.marks):
            return Refusal("not in the tree of that agent's worker", agent_id)
        session: _WorkerSession | _JobSession | Refusal
        match text(message, "role"):
            case "worker":
                session = self._worker_hello(peer, worker)
            case "job":
                session = self._job_hello(peer, worker, message)
            case other:
                return Refusal(f"role {other!r} is unknown", agent_id)
        if not isinstance(session, Refusal):
            self._sessions.add(session)
        return session

    def welcome_anew(self) -> None:
        """After a reload: guards go by what they were last told."""
        for session in tuple(self._sessions):
            if session.told != self.words_of_welcome(session.agent_id):
                session.welcome()

    def parted(self, session: _WorkerSession | _JobSession) -> None:
        self._sessions.discard(session)

    def _worker_hello(self, peer: GuardPeer, worker: Worker) -> _WorkerSession | Refusal:
        session = _WorkerSession(self, peer, worker.spec.id)
        if not self.workers.connected(worker.spec.id, peer.pid, session):
            return Refusal("not the worker's own process", worker.spec.id)
        session.welcome()
        return session

    def _job_hello(
        self, peer: GuardPeer, worker: Worker, message: Mapping[str, object]
    ) -> _JobSession | Refusal:
        agent_id = worker.spec.id
        epoch = None if message.get("epoch") is None else number(message, "epoch", most=MAX_EPOCH)
        arrival = JobArrival(
            room=name(message, "room"),
            agent_id=agent_id,
            job_id=name(message, "job_id"),
            identity=name(message, "identity"),
            dispatch_id=text(message, "dispatch_id"),
            pid=peer.pid,
            epoch=epoch,
            joined=message.get("joined") is True,
        )
        if self.book.is_impostor(arrival):
            return Refusal("that job is another process's", agent_id)
        session = _JobSession(self, peer, agent_id, arrival.room, arrival.job_id)
        in_worker = worker.handle is not None and peer.pid == worker.handle.pid
        timeout, claim = self._times(agent_id).heartbeat_timeout, None
        if message.get("over") is True:
            self.book.is_done(arrival)
            session.ended = True
        elif self.is_left_alone(arrival.room, worker, arrival.identity):
            self.book.accompany(arrival, session, in_worker=in_worker, timeout=timeout)
            session.left_alone = True
        else:
            claim = self.book.arrive(arrival, session, in_worker=in_worker, timeout=timeout)
        session.say_welcome(claim)
        return session

    def is_left_alone(self, room: str, worker: Worker | None, identity: str) -> bool:
        return self._left_alone(room, (worker.name if worker is not None else None) or "", identity)

    def expect(self, arrival: JobArrival) -> None:
        """What is not in the tree of that agent's worker, or is the worker itself, is not ours to judge."""
        worker = self.workers.get(arrival.agent_id)
        if worker is None or worker.handle is None or arrival.pid == worker.handle.pid:
            return
        if self.is_left_alone(arrival.room, worker, arrival.identity):
            return
        if self._watch.in_tree(arrival.pid, worker.handle.pid, worker.spec.process.marks):
            self.book.expect(arrival, self._times(arrival.agent_id).heartbeat_timeout)

    def is_unsure_of(self, room: str) -> bool:
        """Right after our start, without the store, somebody may be in it who has not spoken yet."""
        if not self.book.is_starting() or self.book.table.get(room) is not None:
            return False
        return self.book.awaits_word_from(room) or any(
            worker.handle is not None and worker.handle.adopted and worker.link is None
            for worker in self.workers.all()
            if worker.spec.policy.guarded
        )

    def drains(self, agent_id: str) -> bool:
        worker = self.workers.get(agent_id)
        return worker is not None and worker.draining and worker.ending is not None

    def words_of_welcome(self, agent_id: str) -> Wire:
        times = self._times(agent_id)
        return {
            "type": "welcome",
            "v": VERSION,
            "instance": self._instance,
            "heartbeat": {"interval": times.heartbeat_interval, "timeout": times.heartbeat_timeout},
            "human_return_grace": self._human_return_grace(),
            "reconnect_grace": self._reconnect_grace(),
        }


@dataclass(slots=True, eq=False)
class _WorkerSession:
    """One worker's connection."""

    desk: GuardDesk
    peer: GuardPeer
    agent_id: str
    told: Wire = field(default_factory=dict)

    def welcome(self) -> None:
        self.told = self.desk.words_of_welcome(self.agent_id)
        self.peer.send(self.told)
        if self.desk.drains(self.agent_id):
            self.drain(0.0)

    # as WorkerLink

    def drain(self, timeout: float) -> None:
        self.peer.send({"type": "drain", "timeout": max(0.0, timeout)})

    def resume(self) -> None:
        self.peer.send({"type": "resume"})

    # as GuardSession

    def receive(self, message: Mapping[str, object]) -> None:
        workers = self.desk.workers
        worker = workers.get(self.agent_id)
        if worker is not None and worker.handle is not None and worker.handle.pid != self.peer.pid:
            raise BadMessage("another process is that agent's worker by now")
        match message.get("type"):
            case "heartbeat":
                workers.heartbeat(self.agent_id, draining=message.get("draining") is True)
            case "request":
                self._request(message)
            case "jobs":
                self._jobs(message)
            case "abandon":
                self.desk.book.abandon(self.agent_id, text(message, "job_id"), text(message, "reason"))
            case "registered":
                workers.registered(
                    self.agent_id,
                    name=text(message, "agent_name"),
                    worker_id=text(message, "worker_id"),
                    http_port=number(message, "http_port", most=MAX_PORT),
                )
            case "unregistered":
                workers.unregistered(self.agent_id, text(message, "error"))
            case "failed":
                workers.failed(self.agent_id, text(message, "reason"))
            case "goodbye":
                workers.goodbye(self.agent_id, text(message, "reason"))
            case "report":
                _report(self.desk.bus, self.agent_id, message)

    def closed(self) -> None:
        self.desk.parted(self)
        self.desk.workers.disconnected(self.agent_id, self)

    def _jobs(self, message: Mapping[str, object]) -> None:
        listed = message.get("jobs")
        if not isinstance(listed, list) or not all(isinstance(job, dict) for job in listed):
            raise BadMessage("jobs must be a list of objects")
        for job in listed:
            arrival = JobArrival(
                room=name(job, "room"),
                agent_id=self.agent_id,
                job_id=name(job, "job_id"),
                identity=name(job, "identity"),
                dispatch_id=text(job, "dispatch_id"),
                pid=number(job, "pid"),
                epoch=None,
                joined=False,
            )
            self.desk.expect(arrival)

    def _request(self, message: Mapping[str, object]) -> None:
        worker = self.desk.workers.get(self.agent_id)
        request = JobRequest(
            room=name(message, "room"),
            agent_id=self.agent_id,
            job_id=name(message, "job_id"),
            dispatch_id=text(message, "dispatch_id"),
            identity=name(message, "identity"),
        )
        draining = worker is None or worker.draining
        if self.desk.is_left_alone(request.room, worker, request.identity):
            self._answer(message, Answer(ClaimOutcome.DRAINING if draining else ClaimOutcome.GRANTED, None))
            return
        if self.desk.is_unsure_of(request.room):
            return  # the guard looks at the room itself
        answer = self.desk.book.request(
            request,
            max_rooms=worker.spec.max_rooms if worker is not None else 0,
            draining=draining,
        )
        self._answer(message, answer)

    def _answer(self, message: Mapping[str, object], answer: Answer) -> None:
        held = answer.outcome is ClaimOutcome.HELD
        self.peer.send(
            {
                "type": "answer",
                "id": number(message, "id"),
                "outcome": answer.outcome.value,
                "epoch": answer.claim.epoch if answer.claim is not None and not held else 0,
                "terminate": held,
                "holder": answer.claim.identity if answer.claim is not None and held else "",
            }
        )


@dataclass(slots=True, eq=False)
class _JobSession:
    """One job's connection."""

    desk: GuardDesk
    peer: GuardPeer
    agent_id: str
    room: str
    job_id: str
    ended: bool = False
    left_alone: bool = False
    told: Wire = field(default_factory=dict)

    def welcome(self) -> None:
        claim = self.desk.book.table.get(self.room)
        self.say_welcome(claim if claim is not None and claim.job_id == self.job_id else None)

    def say_welcome(self, claim: Claim | None) -> None:
        self.told = self.desk.words_of_welcome(self.agent_id)
        hold = claim is not None or self.left_alone
        held = {"hold": hold, "epoch": claim.epoch if claim is not None else 0}
        self.peer.send({**self.told, **held})
        if self.desk.drains(self.agent_id):  # since before it found us
            self.drain(0.0)

    # as JobLink

    def leave(self, reason: str, epoch: int) -> None:
        self.peer.send({"type": "leave", "reason": reason, "epoch": epoch})

    def drain(self, timeout: float) -> None:
        self.peer.send({"type": "drain", "timeout": max(0.0, timeout)})

    # as GuardSession

    def receive(self, message: Mapping[str, object]) -> None:
        book = self.desk.book
        match message.get("type"):
            case "heartbeat":
                book.heartbeat(self.job_id)
            case "joined":
                book.joined(self.job_id, text(message, "identity"))
            case "census":
                agents = message.get("agents")
                count = len(agents) if isinstance(agents, list) else 1
                book.census(self.job_id, count, number(message, "humans"))
                self.desk.workers.wake(self.agent_id)
            case "report":
                _report(self.desk.bus, self.agent_id, {"room": self.room, "job_id": self.job_id, **message})
            case "goodbye":
                self.ended = True
                book.goodbye(self.job_id, text(message, "reason"))
                self.desk.workers.wake(self.agent_id)

    def closed(self) -> None:
        self.desk.parted(self)
        if not self.ended:
            self.desk.book.unlink(self.job_id, self)


def _report(bus: EventBus, agent_id: str, message: Mapping[str, object]) -> None:
    bus.publish(
        GuardReport(
            agent_id=agent_id,
            room=text(message, "room"),
            job_id=text(message, "job_id"),
            report=text(message, "report"),
            identity=text(message, "identity"),
            detail=text(message, "detail"),
        )
    )


def text(message: Mapping[str, object], key: str) -> str:
    """A text field, ``""`` when it is missing.  Raises :class:`BadMessage` for another type."""
    value = message.get(key, "")
    if value is None:
        return ""
    if not isinstance(value, str) or len(value) > 1024:
        raise BadMessage(f"{key} must be text of at most 1,024 characters")
    return value


def name(message: Mapping[str, object], key: str) -> str:
    """A text field that something is known by.  Raises :class:`BadMessage` when it is empty."""
    value = text(message, key)
    if not value:
        raise BadMessage(f"{key} must not be empty")
    return value


def number(message: Mapping[str, object], key: str, *, most: int = MAX_NUMBER) -> int:
    """A whole number, 0 when it is missing.  :class:`BadMessage` for anything else, ``True`` included."""
    value = message.get(key, 0)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise BadMessage(f"{key} must be a whole number from 0 to {most}")
    return value
