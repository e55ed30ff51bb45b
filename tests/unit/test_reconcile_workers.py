"""What becomes of a worker when we were late, when a drain was a mistake, and when others end it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TypeVar

import pytest

from supervisor.core.claims import JobArrival
from supervisor.core.ports import ExitStatus, ProcessSpec
from supervisor.core.worker_state import WorkerState
from supervisor.endpoints.ports import CommandError
from supervisor.events import (
    DrainFinished,
    Event,
    RestartReason,
    WorkerExited,
    WorkerRestarted,
    WorkerSignalled,
    WorkerStateChanged,
    WorkerStopped,
)
from supervisor.reconcile.schedule import LATE_SECONDS, TICK_SECONDS
from supervisor.reconcile.worker import AgentSpec, Worker
from supervisor.reconcile.workers import GUARD_RETURNS
from tests.fuzz.daemon import Daemon, turns
from tests.simulation.sim_daemon import WORKER_POLICY

A = "a"
E = TypeVar("E", bound=Event)


class Process:
    """Heeds no signal; it ends when it is killed or told to."""

    lacking = ""
    create_time = 1.0

    def __init__(self, pid: int, command_hash: str, *, adopted: bool) -> None:
        self.pid = pid
        self.command_hash = command_hash
        self.adopted = adopted
        self.age = 3600.0 if adopted else 0.0
        self._gone = asyncio.Event()
        self._status = ExitStatus(code=0)

    def signal(self, number: int) -> bool:
        return not self._gone.is_set()

    async def wait(self) -> ExitStatus:
        await self._gone.wait()
        return self._status

    async def kill_tree(self) -> tuple[int, ...]:
        self.end(ExitStatus(signal=signal.SIGKILL))
        return ()

    def end(self, status: ExitStatus) -> None:
        if not self._gone.is_set():
            self._status = status
            self._gone.set()


class Host:
    """``left``: what runs already, when the daemon comes."""

    def __init__(self) -> None:
        self.left: Process | None = None
        self._pids = count(100)

    def spawn(self, spec: ProcessSpec) -> Process:
        return Process(next(self._pids), spec.command_hash, adopted=False)

    def adopt(self, spec: ProcessSpec) -> Process | None:
        left, self.left = self.left, None
        return left

    async def clear_leftovers(self, spec: ProcessSpec) -> tuple[int, ...]:
        return ()


@dataclass
class Link:
    """Of a worker's guard and of a job's, and what was said through it."""

    heard: list[str] = field(default_factory=list)

    def drain(self, timeout: float) -> None:
        self.heard.append("drain")

    def resume(self) -> None:
        self.heard.append("resume")

    def leave(self, reason: str, epoch: int) -> None:
        self.heard.append("leave")


class Stage:
    """A daemon with one agent, its guard, and what happened."""

    def __init__(self) -> None:
        self.daemon = Daemon()
        self.workers = self.daemon.workers
        self.host = Host()
        self.workers._host = self.host
        self.events: list[Event] = []
        self.daemon.bus.subscribe(self.events.append)
        self.guard, self.job = Link(), Link()

    @property
    def worker(self) -> Worker:
        worker = self.workers.get(A)
        assert worker is not None
        return worker

    @property
    def process(self) -> Process:
        assert isinstance(self.worker.handle, Process)
        return self.worker.handle

    async def configure(self, command_hash: str = "hash", **policy: object) -> None:
        process = ProcessSpec(A, ("agent",), "/", (), "/log", (), command_hash)
        settings = replace(WORKER_POLICY, **policy)  # type: ignore[arg-type]
        self.workers.configure([AgentSpec(A, "name", (), 0, settings, process)])
        await turns(10)

    async def register(self) -> None:
        assert self.workers.connected(A, self.process.pid, self.guard)
        self.workers.registered(A, name="name", worker_id="AW_1", http_port=0)
        await turns(5)

    async def call(self) -> None:
        """A job with a human in its room."""
        arrival = JobArrival("room", A, "AJ_1", "agent-AJ_1", "AD_1", 99, None, joined=True)
        self.daemon.book.arrive(arrival, self.job, in_worker=False, timeout=1e6)
        self.daemon.book.census("AJ_1", 1, 1)

    async def hang_up(self) -> None:
        self.daemon.book.goodbye("AJ_1", "over")
        self.workers.wake(A)
        await turns(5)

    async def pass_time(self, seconds: float) -> None:
        """Whatever is due at the end of it is looked at."""
        self.daemon.now += seconds
        self.workers.wake_all()
        await turns(10)

    async def command(self, name: str, **arguments: object) -> None:
        await self.daemon.commands.run(name, {"agent": A, **arguments})
        await turns(10)

    @property
    def state(self) -> WorkerState:
        return self.worker.state

    def told(self, kind: type[E]) -> list[E]:
        return [event for event in self.events if isinstance(event, kind)]

    def signals(self) -> list[tuple[str, str]]:
        return [(event.signal, event.reason) for event in self.told(WorkerSignalled)]

    def drains(self) -> list[str]:
        return [event.outcome for event in self.told(DrainFinished)]


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    run = asyncio.create_task(stage.workers.run())
    yield stage
    run.cancel()
    await asyncio.wait([run])
    stage.daemon.check()


# --- late -----------------------------------------------------------------------------------------


async def test_what_seems_overdue_after_a_stall_is_not_looked_at_before_that_is_forgiven(
    stage: Stage,
) -> None:
    """The machine stood still: the queue's alarm comes before the tick that notices."""
    await stage.configure()
    await stage.register()
    stage.workers.tick()
    await stage.pass_time(60.0)
    assert stage.signals() == []
    stage.workers.forgive()
    stage.workers.tick()
    await stage.pass_time(0.0)
    assert (stage.signals(), stage.state) == ([], WorkerState.READY)
    timeout = WORKER_POLICY.heartbeat_timeout
    for _ in range(int(timeout)):
        stage.workers.tick()
        await stage.pass_time(1.0)
    assert stage.signals() == [("SIGTERM", "hung")]


async def test_a_loop_that_turns_in_time_expires_what_is_overdue(stage: Stage) -> None:
    await stage.configure()
    await stage.register()
    stage.daemon.now += WORKER_POLICY.heartbeat_timeout
    stage.workers.tick()
    await stage.pass_time(TICK_SECONDS + LATE_SECONDS)
    assert stage.signals() == [("SIGTERM", "hung")]


async def test_a_death_is_seen_to_however_late_we_are(stage: Stage) -> None:
    await stage.configure()
    await stage.register()
    stage.workers.tick()
    stage.daemon.now += 60.0
    first = stage.process
    first.end(ExitStatus(code=1))
    await turns(10)
    assert stage.process is not first


async def test_a_start_is_not_overdue_because_we_were_late(stage: Stage) -> None:
    """Also an adopted worker's, whose calls would be cut."""
    stage.host.left = Process(7, "hash", adopted=True)
    await stage.configure()
    await stage.call()
    stage.workers.tick()
    stage.daemon.now += WORKER_POLICY.startup_timeout
    stage.worker.last_heartbeat = stage.daemon.now
    stage.workers.forgive()
    stage.workers.tick()
    await stage.pass_time(1.0)
    assert stage.signals() == []
    stage.worker.last_heartbeat = None
    await stage.pass_time(WORKER_POLICY.startup_timeout)
    stage.workers.tick()
    await stage.pass_time(0.0)
    assert stage.signals() == [("SIGTERM", "startup_timeout")]


async def test_forgiving_takes_no_time_away(stage: Stage) -> None:
    stage.host.left = Process(7, "hash", adopted=True)
    await stage.configure()
    returns = stage.worker.last_heartbeat
    assert returns == stage.daemon.now + GUARD_RETURNS
    stage.workers.forgive()
    assert stage.worker.last_heartbeat == returns


# --- programs without a guard ---------------------------------------------------------------------


@pytest.mark.parametrize("way", ["drain", "stop", "restart", "reload"])
async def test_sigterm_is_the_drain_of_a_program_without_a_guard(stage: Stage, way: str) -> None:
    """As livekit-agents does it by itself: nobody here knows of its calls."""
    await stage.configure(guarded=False)
    first = stage.process
    if way == "reload":
        await stage.configure("another", guarded=False)
    else:
        await stage.command(way, drain=True)
    assert (len(stage.signals()), stage.state) == (1, WorkerState.DRAINING)
    await stage.pass_time(WORKER_POLICY.drain - 1.0)
    assert (len(stage.signals()), stage.worker.handle) == (1, first)
    if way == "drain":  # again: a second SIGTERM would cut the calls
        await stage.command("drain")
        assert len(stage.signals()) == 1
    first.end(ExitStatus(code=0))
    await turns(10)
    assert stage.drains() == ["completed"]
    assert (stage.worker.handle is not None) == (way in ("restart", "reload"))


async def test_a_program_without_a_guard_that_drains_for_too_long_is_killed(stage: Stage) -> None:
    await stage.configure(guarded=False)
    await stage.command("drain")
    await stage.pass_time(WORKER_POLICY.drain)
    assert [name for name, _ in stage.signals()] == ["SIGTERM", "SIGKILL"]
    assert stage.drains() == ["timeout"]


async def test_a_drain_shorter_than_kill_leaves_it_the_time_to_end(stage: Stage) -> None:
    await stage.configure(guarded=False, drain=1.0)
    await stage.command("drain")
    await stage.pass_time(1.0)
    assert (stage.state, stage.drains()) == (WorkerState.STOPPING, ["timeout"])
    await stage.pass_time(WORKER_POLICY.kill - 1.5)
    assert len(stage.signals()) == 1
    await stage.pass_time(0.5)
    assert [name for name, _ in stage.signals()] == ["SIGTERM", "SIGKILL"]


@pytest.mark.parametrize("way", ["stop", "restart", "the daemon is told again to stop"])
async def test_the_drain_of_a_program_without_a_guard_can_be_cut_short(stage: Stage, way: str) -> None:
    """It is told a second time, which livekit-agents takes as an order to end at once; then killed."""
    await stage.configure(guarded=False)
    await stage.command("drain")
    if way.startswith("the daemon"):
        stage.workers.shut_down([A], drain=0.0)
        await turns(10)
    else:
        await stage.command(way, now=True)
    assert [name for name, _ in stage.signals()] == ["SIGTERM", "SIGTERM"]
    assert (stage.state, stage.drains()) == (WorkerState.STOPPING, ["interrupted"])
    await stage.pass_time(WORKER_POLICY.kill)
    assert [name for name, _ in stage.signals()][2:] == ["SIGKILL"]


async def test_what_is_not_configured_may_be_of_any_kind(stage: Stage) -> None:
    """Nothing tells whether it has a guard: after its drain it has ``kill`` to end, like others."""
    stage.host.left = Process(7, "hash", adopted=True)
    process = ProcessSpec(A, (), "/", (), "/log", (), "")
    policy = replace(WORKER_POLICY, guarded=False)
    stage.workers.end_unconfigured([AgentSpec(A, None, (), 0, policy, process)])
    await turns(10)
    assert stage.state is WorkerState.STOPPING
    await stage.pass_time(WORKER_POLICY.kill)
    assert [name for name, _ in stage.signals()] == ["SIGTERM", "SIGKILL"]


# --- drains that were a mistake -------------------------------------------------------------------


async def test_a_reload_that_is_taken_back_takes_its_drain_back(stage: Stage) -> None:
    await stage.configure("right")
    await stage.register()
    await stage.call()
    await stage.configure("wrong")
    assert stage.state is WorkerState.DRAINING
    await stage.configure("wrong again")
    assert stage.state is WorkerState.DRAINING
    await stage.configure("right")
    assert (stage.state, stage.worker.ending) == (WorkerState.READY, None)
    assert stage.guard.heard == ["drain", "resume"]
    await stage.hang_up()
    assert (stage.signals(), stage.state) == ([], WorkerState.READY)


@pytest.mark.parametrize("wish", ["stop", "restart"])
async def test_a_reload_takes_no_drain_back_that_was_asked_for(stage: Stage, wish: str) -> None:
    await stage.configure()
    await stage.register()
    await stage.call()
    await stage.command(wish, drain=True)
    await stage.configure(drain=200.0)
    assert stage.state is WorkerState.DRAINING


async def test_a_restart_by_mistake_is_taken_back_by_way_of_a_stop(stage: Stage) -> None:
    """``start`` alone leaves a restart as it was wished for."""
    await stage.configure()
    await stage.register()
    await stage.call()
    await stage.command("restart")
    await stage.command("start")
    assert stage.state is WorkerState.DRAINING
    await stage.command("stop", drain=True)
    await stage.command("start")
    assert (stage.state, stage.worker.ending) == (WorkerState.READY, None)


# --- not configured any more ----------------------------------------------------------------------


async def test_what_was_taken_out_can_be_stopped_and_nothing_else(stage: Stage) -> None:
    await stage.configure()
    await stage.register()
    await stage.call()
    stage.workers.configure([])
    await turns(5)
    worker = stage.worker
    for name in ("start", "restart"):
        with pytest.raises(CommandError, match="agent 'a' is not configured any more, and is ending"):
            await stage.command(name)
    assert (worker.state, worker.forgotten, worker.wanted) == (WorkerState.DRAINING, True, False)
    await stage.command("stop")
    assert worker.state is WorkerState.STOPPING
    stage.process.end(ExitStatus(code=0))
    await turns(10)
    assert stage.workers.get(A) is None
    await stage.configure()  # nobody has stopped the one that is configured now
    assert stage.state is WorkerState.STARTING


# --- SIGTERM from somebody else -------------------------------------------------------------------


async def test_a_worker_that_drains_for_others_is_drained_ended_and_replaced(stage: Stage) -> None:
    await stage.configure()
    await stage.register()
    await stage.call()
    first = stage.process
    stage.workers.heartbeat(A, draining=True)
    assert (stage.state, stage.worker.reason) == (
        WorkerState.DRAINING,
        "draining: somebody else has sent it SIGTERM",
    )
    assert stage.told(WorkerStateChanged)[-1].reason == stage.worker.reason
    assert (stage.guard.heard, stage.job.heard) == (["drain"], ["drain"])
    stage.workers.heartbeat(A, draining=True)
    await stage.hang_up()
    assert stage.state is WorkerState.STOPPING
    assert stage.signals() == []  # a second SIGTERM would cut what its jobs do at their end
    await stage.pass_time(WORKER_POLICY.kill)
    assert stage.signals() == [("SIGKILL", "command")]
    await turns(10)
    assert stage.process is not first
    assert [event.reason for event in stage.told(WorkerRestarted)] == [RestartReason.COMMAND]


async def test_its_drain_for_others_has_an_end(stage: Stage) -> None:
    await stage.configure()
    await stage.register()
    await stage.call()
    stage.workers.heartbeat(A, draining=True)
    await stage.pass_time(1.0)
    stage.worker.last_heartbeat = None
    await stage.pass_time(WORKER_POLICY.drain)
    assert (stage.state, stage.drains(), stage.job.heard) == (
        WorkerState.STOPPING,
        ["timeout"],
        ["drain", "leave"],
    )


async def test_one_that_ends_by_itself_before_we_look_has_drained(stage: Stage) -> None:
    await stage.configure()
    await stage.register()
    await stage.call()
    stage.workers.heartbeat(A, draining=True)
    await turns(5)
    stage.daemon.book.goodbye("AJ_1", "over")
    stage.process.end(ExitStatus(code=0))
    await turns(10)
    assert stage.drains() == ["completed"]
    assert stage.told(WorkerExited)[0].reason is RestartReason.COMMAND


async def test_a_drain_for_others_is_not_taken_back_and_a_stop_is_heeded(stage: Stage) -> None:
    await stage.configure()
    await stage.register()
    await stage.call()
    stage.workers.heartbeat(A, draining=True)
    await stage.command("stop", drain=True)
    await stage.command("start")
    assert stage.state is WorkerState.DRAINING
    await stage.command("stop")
    assert (stage.state, stage.signals()) == (WorkerState.STOPPING, [])
    stage.process.end(ExitStatus(code=0))
    await turns(10)
    assert len(stage.told(WorkerStopped)) == 1


async def test_that_it_drains_after_our_own_sigterm_is_no_news(stage: Stage) -> None:
    await stage.configure()
    await stage.register()
    await stage.command("restart", now=True)
    ending = stage.worker.ending
    assert ending is not None
    stage.workers.heartbeat(A, draining=True)
    assert (stage.worker.ending, stage.state) == (ending, WorkerState.STOPPING)


# --- counting -------------------------------------------------------------------------------------


async def test_a_start_after_a_stop_replaces_nothing(stage: Stage) -> None:
    await stage.configure()
    stage.process.end(ExitStatus(code=1))
    await turns(10)
    states = [stage.state]
    for name in ("stop", "start"):
        await stage.command(name)
        states.append(stage.state)
    assert states == [WorkerState.BACKOFF, WorkerState.STOPPED, WorkerState.STARTING]
    assert (stage.told(WorkerRestarted), stage.worker.restarts) == ([], 0)


async def test_to_wake_who_is_not_there_is_nothing(stage: Stage) -> None:
    """As a claim does that ends after its worker was taken out."""
    stage.workers.wake("nobody")
    await turns(5)
    assert stage.workers.waiting == 0
