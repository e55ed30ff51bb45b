"""What the daemon believes of those who speak for an agent, and of those who should and do not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

import pytest

from supervisor.core.model import Claim, ClaimOutcome, ClaimState
from supervisor.core.ports import BadMessage, GuardSession, Refusal
from supervisor.core.room import RoomPolicy
from supervisor.core.worker_state import WorkerState
from supervisor.events import (
    ClaimDecided,
    ConflictDetected,
    ConflictResolved,
    DrainFinished,
    Event,
    WorkerSignalled,
)
from supervisor.livekit.api import LiveKitClient
from supervisor.reconcile.claimbook import SESSION_FAILED
from supervisor.reconcile.rooms import RoomReconciler
from supervisor.reconcile.workers import GUARD_RETURNS
from tests.fuzz.daemon import AGENTS, GOOD, OURS, QUIET, TREE, Daemon, turns
from tests.simulation.sim_daemon import Disk

PIDS = {agent_id: Daemon.pid_of(agent_id) for agent_id in AGENTS}


class Peer:
    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.heard: list[Mapping[str, object]] = []

    def send(self, message: Mapping[str, object]) -> None:
        self.heard.append(message)

    def close(self) -> None: ...


class Stage:
    """A daemon, and what happened."""

    def __init__(self) -> None:
        self.daemon = Daemon()
        self.events: list[Event] = []
        self.daemon.bus.subscribe(self.events.append)

    def hello(self, pid: int, **fields: object) -> tuple[Peer, GuardSession | Refusal]:
        peer = Peer(pid)
        return peer, self.daemon.guards.hello(peer, {"type": "hello", "v": 1, **fields})

    def worker(self, agent_id: str = TREE) -> tuple[Peer, GuardSession]:
        peer, session = self.hello(PIDS[agent_id], role="worker", agent_id=agent_id)
        assert not isinstance(session, Refusal)
        return peer, session

    def job(
        self, job_id: str = "AJ_1", pid: int = 50, **fields: object
    ) -> tuple[Peer, GuardSession | Refusal]:
        spoken = {"agent_id": TREE, "room": "r", "job_id": job_id, "identity": f"agent-{job_id}"}
        return self.hello(pid, role="job", **{**spoken, **fields})

    def hung(self) -> list[str]:
        return [e.room for e in self.events if isinstance(e, ConflictDetected) and e.kind == "hung_job"]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    async with stage.daemon.running():
        yield stage
    stage.daemon.check()


def running(job_id: str = "AJ_1", pid: int = 50, room: str = "r") -> dict[str, object]:
    job = {"job_id": job_id, "room": room, "identity": f"agent-{job_id}", "dispatch_id": "AD_1", "pid": pid}
    return {"type": "jobs", "jobs": [job]}


async def test_another_process_is_refused_in_the_name_of_a_job_that_lives(stage: Stage) -> None:
    _, holder = stage.job()
    assert not isinstance(holder, Refusal)
    for lie in ({"pid": 51}, {"room": "s"}):
        _, refused = stage.job(**lie)
        assert isinstance(refused, Refusal)
    again, session = stage.job(epoch=1)
    assert not isinstance(session, Refusal)
    assert again.heard[0]["hold"] is True


@pytest.mark.parametrize(
    "wrong",
    [
        {"room": ""},
        {"job_id": ""},
        {"identity": ""},
        {"epoch": True},
        {"epoch": -1},
        {"epoch": 2**52 + 1},
        {"v": True},
    ],
    ids=str,
)
async def test_what_cannot_be_right_is_refused(wrong: dict[str, object], stage: Stage) -> None:
    _, refused = stage.job(**wrong)  # type: ignore[arg-type]
    assert isinstance(refused, Refusal)
    assert stage.daemon.book.table.all() == ()


async def test_a_refusal_repeats_no_more_than_a_text_may_have(stage: Stage) -> None:
    for role in ("x" * 60_000, ["x" * 60_000], "nobody"):
        _, refused = stage.hello(PIDS[TREE], role=role, agent_id=TREE)
        assert isinstance(refused, Refusal)
        assert len(refused.reason) < 100


async def test_no_worker_gives_back_what_was_granted_to_another(stage: Stage) -> None:
    _, tree = stage.worker(TREE)
    _, quiet = stage.worker(QUIET)
    tree.receive({"type": "request", "id": 1, "room": "r", "job_id": "AJ_1", "identity": "i"})
    quiet.receive({"type": "abandon", "job_id": "AJ_1", "reason": "spite"})
    assert stage.daemon.book.table.get("r") is not None
    tree.receive({"type": "abandon", "job_id": "AJ_1", "reason": "assignment timed out"})
    assert stage.daemon.book.table.get("r") is None


async def test_numbers_of_a_worker_are_checked(stage: Stage) -> None:
    _, worker = stage.worker()
    for message in (
        {"type": "registered", "http_port": 65_536},
        {"type": "request", "id": True, "room": "r", "job_id": "j", "identity": "i"},
        {"type": "jobs", "jobs": [7]},
        {"type": "jobs", "jobs": {}},
    ):
        with pytest.raises(BadMessage):
            worker.receive(message)


async def test_why_livekit_did_not_register_it_is_shown_beside_its_restart(stage: Stage) -> None:
    _, session = stage.worker()
    session.receive({"type": "unregistered", "error": "LiveKit answered 401: the key is refused"})
    worker = stage.daemon.workers.get(TREE)
    assert worker is not None
    assert worker.handle is not None
    assert worker.reason == "LiveKit answered 401: the key is refused"
    worker.handle.signal(15)
    async with asyncio.timeout(5):
        await stage.daemon.workers.wait_until(lambda: worker.state is WorkerState.BACKOFF)
    assert worker.reason == "LiveKit answered 401: the key is refused"


async def test_nothing_is_remembered_of_rooms_that_are_ignored(stage: Stage) -> None:
    daemon = stage.daemon
    rooms = RoomReconciler(
        LiveKitClient("ws://127.0.0.1:1", "key", "s" * 32, 1.0, daemon.bus),
        daemon.book,
        daemon.workers,
        Disk(),
        daemon.bus,
        daemon.clock,
        policy=RoomPolicy(instance="us"),
        ignore=("ignored-*",),
        enforce=True,
        random=lambda: 0.5,
        livekit_since=lambda: 0.0,
    )
    _, worker = stage.worker()
    for number in range(3):
        ask = {
            "type": "request",
            "id": number,
            "room": "ignored-1",
            "job_id": f"AJ_{number}",
            "identity": "i",
        }
        worker.receive({**ask, "dispatch_id": f"AD_{number}"})
    _, job = stage.job("AJ_0", room="ignored-1")
    assert not isinstance(job, Refusal)
    job.receive({"type": "goodbye", "reason": "done"})
    assert rooms.waiting == 0
    assert rooms._rooms == {}


@pytest.mark.parametrize(("reason", "failed"), [("done", False), (SESSION_FAILED, True)])
async def test_a_job_that_could_not_speak_any_more_is_remembered_as_one(
    stage: Stage, reason: str, failed: bool
) -> None:
    stage.worker()
    _, job = stage.job(joined=True)
    assert not isinstance(job, Refusal)
    job.receive({"type": "goodbye", "reason": reason})
    [dead] = stage.daemon.rooms.dead
    assert (dead.left, dead.failed, dead.cause) == (True, failed, None)


# --- jobs that should speak, and do not -----------------------------------------------------------


async def test_a_job_that_its_worker_knows_and_that_says_nothing_hangs(stage: Stage) -> None:
    _, worker = stage.worker()
    worker.receive(running())
    assert stage.daemon.book.table.all() == ()
    stage.daemon.pass_time(9.0)
    assert stage.hung() == []
    stage.daemon.pass_time(2.0)
    assert stage.hung() == ["r"]
    await turns(2)
    assert stage.daemon.book.jobs_of(TREE) == ()
    resolved = [e for e in stage.events if isinstance(e, ConflictResolved)]
    assert [(e.kind, e.resolution) for e in resolved] == [("hung_job", "terminated")]


async def test_a_job_that_speaks_up_in_time_holds_its_room(stage: Stage) -> None:
    _, worker = stage.worker()
    worker.receive(running())
    stage.daemon.pass_time(5.0)
    peer, session = stage.job(epoch=7, joined=True)
    assert not isinstance(session, Refusal)
    assert (peer.heard[0]["hold"], peer.heard[0]["epoch"]) == (True, 7)
    stage.daemon.pass_time(8.0)
    assert stage.hung() == []


@pytest.mark.parametrize("over", ["said goodbye", "not in the tree", "the worker itself", "known already"])
async def test_who_is_over_or_not_ours_is_not_waited_for(over: str, stage: Stage) -> None:
    _, worker = stage.worker(QUIET if over == "not in the tree" else TREE)
    if over in ("said goodbye", "known already"):
        _, job = stage.job()
        assert not isinstance(job, Refusal)
        if over == "said goodbye":
            job.receive({"type": "goodbye", "reason": "done"})
    before = len(stage.daemon.book.jobs_of(TREE))
    worker.receive(running(pid=1 if over == "the worker itself" else 50))
    assert not stage.daemon.book.awaits_word_from("r")
    assert len(stage.daemon.book.jobs_of(TREE)) == before


async def test_right_after_a_start_nobody_is_given_a_room_that_may_have_somebody(stage: Stage) -> None:
    """No answer: the guard looks at the room, and finds who is in it."""
    await stage.daemon.book.restore(10.0)
    peer, worker = stage.worker()
    ask = {"type": "request", "id": 1, "room": "r", "job_id": "AJ_2", "identity": "i"}

    def decided() -> list[ClaimOutcome]:
        worker.receive(ask)
        return [e.outcome for e in stage.events if isinstance(e, ClaimDecided)]

    assert decided() == []  # other workers have not spoken
    stage.worker(QUIET)
    for agent_id in (OURS, GOOD):
        _, session = stage.hello(PIDS[agent_id], role="worker", agent_id=agent_id)
        assert not isinstance(session, Refusal)
    worker.receive(running())
    assert decided() == []  # a job of its own has not
    stage.job(joined=True)
    assert decided() == [ClaimOutcome.HELD]
    assert [message["type"] for message in peer.heard] == ["welcome", "answer"]


# --- upgrades: a new daemon with another configuration --------------------------------------------


def reconfigure(stage: Stage, *, without: str = "") -> None:
    """Another command for every agent; one may be taken out."""
    specs = [worker.spec for worker in stage.daemon.workers.all() if worker.spec.id != without]
    stage.daemon.workers.configure(
        replace(spec, process=replace(spec.process, command_hash="another")) for spec in specs
    )


async def say(stage: Stage, session: GuardSession, *messages: dict[str, object]) -> None:
    for message in messages:
        session.receive(message)
    await turns(5)


BEAT: dict[str, object] = {"type": "heartbeat", "jobs": 1, "late": 0.0}
REGISTERED: dict[str, object] = {"type": "registered", "worker_id": "AW_1", "agent_name": "x"}


@pytest.mark.parametrize("change", ["another command", "taken out"])
async def test_a_worker_is_not_idle_before_its_guards_have_said_so(change: str, stage: Stage) -> None:
    daemon = stage.daemon
    await daemon.book.restore(10.0)
    reconfigure(stage, without=TREE if change == "taken out" else "")
    await turns(5)
    worker = daemon.workers.get(TREE)
    assert worker is not None
    assert worker.state is WorkerState.DRAINING
    peer, session = stage.worker()
    assert [message["type"] for message in peer.heard] == ["welcome", "drain"]
    await say(stage, session, running(), REGISTERED)
    daemon.pass_time(GUARD_RETURNS + 1.0)
    await turns(5)
    assert worker.state is WorkerState.DRAINING  # its job has not spoken for itself
    job_peer, job = stage.job(joined=True)
    assert not isinstance(job, Refusal)
    assert [message["type"] for message in job_peer.heard] == ["welcome", "drain"]
    await say(stage, job, {"type": "census", "agents": ["a"], "humans": 1})
    daemon.pass_time(5.0)
    await turns(5)
    assert worker.state is WorkerState.DRAINING
    await say(stage, job, {"type": "census", "agents": ["a"], "humans": 0})
    assert [e.outcome for e in stage.events if isinstance(e, DrainFinished)] == ["completed"]


async def test_a_worker_without_calls_is_ended_when_its_jobs_had_time_to_speak(stage: Stage) -> None:
    """Jobs in its own process are not in its list, and find us by themselves."""
    await stage.daemon.book.restore(10.0)
    reconfigure(stage)
    _, session = stage.worker()
    await say(stage, session, REGISTERED)
    assert signalled(stage) == []
    stage.daemon.pass_time(GUARD_RETURNS)
    await turns(5)
    assert signalled(stage)[0] == TREE


async def test_a_worker_whose_guard_never_comes_is_not_waited_for_longer_than_others(stage: Stage) -> None:
    await stage.daemon.book.restore(10.0)
    reconfigure(stage)
    stage.daemon.pass_time(9.0)
    await turns(5)
    assert signalled(stage) == []
    stage.daemon.pass_time(1.0)
    await turns(5)
    assert {*signalled(stage)} == {*AGENTS}


def signalled(stage: Stage) -> list[str]:
    return [e.agent_id for e in stage.events if isinstance(e, WorkerSignalled) and e.reason == "config"]


# --- a drain that is taken back -------------------------------------------------------------------


@pytest.mark.parametrize("way", ["started", "put back"])
async def test_a_drain_is_taken_back(way: str, stage: Stage) -> None:
    peer, session = stage.worker()
    await say(stage, session, REGISTERED)
    job_peer, job = stage.job(joined=True)
    assert not isinstance(job, Refusal)
    worker = stage.daemon.workers.get(TREE)
    assert worker is not None
    specs = [worker.spec for worker in stage.daemon.workers.all()]
    if way == "started":
        stage.daemon.workers.stop(TREE, drain=True)
    else:
        stage.daemon.workers.configure([spec for spec in specs if spec.id != TREE])
    await turns(5)
    assert worker.state is WorkerState.DRAINING
    if way == "started":
        stage.daemon.workers.start(TREE)
    else:
        stage.daemon.workers.configure(specs)
    await say(stage, job, {"type": "census", "agents": ["a"], "humans": 0})
    assert (worker.state, worker.ending) == (WorkerState.READY, None)
    assert [view.ready for view in stage.daemon.workers.views() if view.id == TREE] == [True]
    assert [message["type"] for message in peer.heard] == ["welcome", "drain", "resume"]
    assert [message["type"] for message in job_peer.heard] == ["welcome", "drain"]
    assert [e.outcome for e in stage.events if isinstance(e, DrainFinished)] == ["interrupted"]


async def test_a_drain_is_taken_back_from_a_worker_that_has_lost_livekit(stage: Stage) -> None:
    _, session = stage.worker()
    await say(stage, session, REGISTERED)
    stage.job(joined=True)
    stage.daemon.workers.stop(TREE, drain=True)
    await say(stage, session, {"type": "unregistered", "error": "gone"})
    stage.daemon.workers.start(TREE)
    assert state(stage) is WorkerState.STARTING
    await say(stage, session, REGISTERED)
    assert state(stage) is WorkerState.READY


async def test_a_restart_that_drains_is_not_taken_back_by_a_start(stage: Stage) -> None:
    _, session = stage.worker()
    await say(stage, session, REGISTERED)
    stage.job(joined=True)
    stage.daemon.workers.restart(TREE, drain=True)
    stage.daemon.workers.start(TREE)
    assert state(stage) is WorkerState.DRAINING


def state(stage: Stage) -> WorkerState:
    worker = stage.daemon.workers.get(TREE)
    assert worker is not None
    return worker.state


# --- rooms and agents to be ignored ---------------------------------------------------------------


@pytest.mark.parametrize("ignored", ["r", "agent-AJ_1"], ids=["room", "agent"])
async def test_who_is_to_be_ignored_claims_nothing_and_is_waited_for_by_a_drain(
    ignored: str, stage: Stage
) -> None:
    stage.daemon.ignored = {ignored}
    peer, worker = stage.worker()
    await say(stage, worker, REGISTERED)
    ask = {"type": "request", "id": 1, "room": "r", "job_id": "AJ_1", "identity": "agent-AJ_1"}
    other = {**ask, "id": 2, "job_id": "AJ_2", "identity": "agent-AJ_2"}
    await say(stage, worker, ask, other)
    assert [m["outcome"] for m in peer.heard if m["type"] == "answer"] == ["granted", "granted"]
    job_peer, job = stage.job(joined=True)
    assert not isinstance(job, Refusal)
    assert job_peer.heard[0]["hold"] is True
    book = stage.daemon.book
    assert [claim.job_id for claim in book.table.all()] == ([] if ignored == "r" else ["AJ_2"])
    await say(stage, job, {"type": "census", "agents": ["a", "b"], "humans": 1})
    stage.daemon.pass_time(60.0)
    assert stage.hung() == []
    assert book.busy_rooms(TREE) == 1
    stage.daemon.workers.stop(TREE, drain=True)
    await turns(5)
    state = stage.daemon.workers.get(TREE)
    assert state is not None
    assert state.state is WorkerState.DRAINING
    await say(stage, worker, {**ask, "id": 3})
    assert peer.heard[-1]["outcome"] == "draining"
    await say(stage, job, {"type": "goodbye", "reason": "done"})
    assert [e.outcome for e in stage.events if isinstance(e, DrainFinished)] == ["completed"]


async def test_a_job_that_is_left_alone_is_forgotten_with_its_connection(stage: Stage) -> None:
    stage.daemon.ignored = {"r"}
    stage.worker()
    _, job = stage.job(joined=True)
    assert not isinstance(job, Refusal)
    job.closed()
    assert stage.daemon.book.jobs_of(TREE) == ()


async def test_a_room_that_is_to_be_ignored_from_now_on_is_given_back(stage: Stage) -> None:
    stage.worker()
    _, job = stage.job(joined=True)
    assert not isinstance(job, Refusal)
    assert len(stage.daemon.book.table.all()) == 1
    stage.daemon.ignored = {"r"}
    peer, again = stage.job(joined=True)
    assert not isinstance(again, Refusal)
    assert peer.heard[0]["hold"] is True
    assert stage.daemon.book.table.all() == ()
    stage.daemon.ignored = set()
    third, _ = stage.job(joined=True)
    assert third.heard[0]["hold"] is True
    stage.daemon.pass_time(11.0)
    assert stage.hung() == ["r"]


# --- jobs that are over, and work on their end ----------------------------------------------------


@pytest.mark.parametrize("first", ["the job", "its worker"])
async def test_a_job_that_is_over_is_neither_given_the_room_nor_hangs(first: str, stage: Stage) -> None:
    """A new daemon finds it while its script still saves what was said."""
    await stage.daemon.book.restore(10.0)
    _, worker = stage.worker()
    if first == "its worker":
        worker.receive(running())
    peer, job = stage.job(joined=True, over=True)
    assert not isinstance(job, Refusal)
    assert peer.heard[0]["hold"] is False
    if first == "the job":
        worker.receive(running())
    assert stage.daemon.book.table.all() == ()
    stage.daemon.pass_time(60.0)
    job.closed()
    assert stage.hung() == []
    assert stage.daemon.book.jobs_of(TREE) == ()


@pytest.mark.parametrize("in_worker", [True, False])
async def test_a_job_in_a_thread_that_ended_while_no_daemon_was_there_costs_no_worker(
    in_worker: bool, stage: Stage
) -> None:
    pid = PIDS[TREE] if in_worker else 50
    claim = Claim("r", TREE, "AJ_1", 3, ClaimState.LIVE, 0.0, "agent-AJ_1", "AD_1", pid, joined=True)
    book = stage.daemon.book
    book.table.load([claim], expires_at=stage.daemon.now + 10.0, epoch=3)
    book._remember(claim, 1.0, 10.0)
    _, worker = stage.worker()
    _, other = stage.job("AJ_2", pid=pid, room="other", joined=True)
    assert not isinstance(other, Refusal)
    stage.daemon.pass_time(5.0)
    await say(stage, worker, BEAT)
    await say(stage, other, BEAT)
    assert book.table.get("r") is not None
    stage.daemon.pass_time(6.0)
    assert (stage.hung() == []) is in_worker
    if in_worker:
        assert book.table.get("r") is None
        assert book.table.get("other") is not None


# --- a job that hangs while nothing is to be touched ----------------------------------------------


async def test_a_job_that_hung_while_nothing_was_to_be_touched_is_ended_once_it_may_be(stage: Stage) -> None:
    _, worker = stage.worker()
    worker.receive(running())
    stage.job("AJ_2", pid=51, room="s", joined=True)
    stage.daemon.rooms.enforce = False
    stage.daemon.pass_time(5.0)
    await say(stage, worker, BEAT)
    stage.daemon.pass_time(6.0)
    await turns(2)
    assert sorted(stage.hung()) == ["r", "s"]
    assert len(stage.daemon.book.jobs_of(TREE)) == 2
    stage.daemon.rooms.enforce = True
    stage.daemon.pass_time(1.0)
    await turns(2)
    assert stage.daemon.book.jobs_of(TREE) == ()
    assert stage.daemon.book.table.all() == ()


async def test_whoever_waits_for_a_full_agent_is_told_when_a_room_is_taken_from_it(stage: Stage) -> None:
    stage.worker()
    stage.job(joined=True)
    stage.daemon.book.revoke("r", "AJ_1", "did not come back")
    assert stage.daemon.rooms.freed == [TREE]
