"""What is wished for in the middle of something: still one process, and the one that is wanted."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from dataclasses import replace

import pytest

from supervisor.core.backoff import BackoffPolicy
from supervisor.core.claims import JobRequest
from supervisor.core.ports import ProcessSpec
from supervisor.core.worker_state import WorkerState
from supervisor.events import (
    DrainFinished,
    Reconciled,
    RestartReason,
    StoreFailed,
    WorkerExited,
    WorkerRestarted,
    WorkerSignalled,
    WorkerSpawned,
    WorkerStopped,
)
from supervisor.process.procfs import environment, pids, variable
from supervisor.process.variables import LAUNCH, STATE
from supervisor.process.watch import PidfdWatch
from supervisor.reconcile.workers import GUARD_RETURNS
from tests.process.crew import Crew, agents
from tests.process.programs import (
    AGENT,
    SPAWN_AND_DIE,
    Bench,
    is_alive,
    number_in,
    run_daemon,
    until_async,
)

DEAF = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(300)
"""


def processes(bench: Bench) -> dict[int, str]:
    """All that is alive of this state directory: pid and launch."""
    found = {}
    for pid in pids():
        block = environment(pid) or b""
        if variable(block, STATE) == str(bench.state) and is_alive(pid):
            found[pid] = variable(block, LAUNCH) or ""
    return found


async def ready(crew: Crew) -> int:
    worker = crew.workers.get(AGENT)
    assert worker is not None
    await until_async(lambda: worker.state is WorkerState.READY, "a ready worker")
    assert worker.handle is not None
    return worker.handle.pid


def _leave_a_job(bench: Bench) -> int:
    """A job of a worker that is dead, as a daemon that is dead has left it."""
    job = bench.folder / "job"
    spec = bench.shell(f"setsid sh -c 'echo $$ > {job}; exec sleep 300' & sleep 300")
    worker = int(run_daemon(bench, spec, SPAWN_AND_DIE, check=-9))
    pid = number_in(job)
    os.kill(worker, signal.SIGKILL)
    return pid


@pytest.mark.parametrize("change", ["taken out", "stopped", "told to shut down"])
async def test_a_change_while_leftovers_are_ended_is_heeded(
    bench: Bench, sleeper: ProcessSpec, change: str
) -> None:
    job = _leave_a_job(bench)
    crew = Crew(bench)
    crew.configure(sleeper)
    async with crew.running():
        while is_alive(job):  # noqa: ASYNC110 - it must be seen before anything else happens
            await asyncio.sleep(0)
        if change == "taken out":
            crew.configure()
        elif change == "stopped":
            crew.workers.stop(AGENT, drain=False)
        else:
            crew.workers.shut_down([AGENT], drain=0.0)
        await until_async(lambda: crew.told(Reconciled) and not crew.workers.waiting)
        await until_async(lambda: not processes(bench))
    assert crew.told(WorkerSpawned) == []
    assert processes(bench) == {}


async def test_taken_out_and_put_back_before_it_has_gone_it_runs_again(bench: Bench) -> None:
    spec = bench.python(DEAF)
    crew = Crew(bench)
    crew.configure(spec)
    async with crew.running():
        first = await ready(crew)
        await until_async(lambda: bench.log.read_text() == "up\n")
        crew.configure()
        await until_async(lambda: crew.told(WorkerSignalled))
        assert crew.workers.all()[0].state is WorkerState.DRAINING  # which is what SIGTERM begins
        crew.configure(spec)
        await until_async(lambda: crew.told(WorkerRestarted))
        assert await ready(crew) != first
        assert not is_alive(first)
        [restarted] = crew.told(WorkerRestarted)
        assert restarted.reason is RestartReason.COMMAND
        await until_async(lambda: bench.log.read_text() == "up\nup\n")
        crew.workers.stop(AGENT, drain=False)
        await until_async(lambda: crew.workers.all()[0].state is WorkerState.STOPPING)
        crew.configure()
        crew.configure(spec)  # what the operator has stopped stays stopped
        await until_async(lambda: crew.told(WorkerStopped))
        assert [w.wanted for w in crew.workers.all()] == [False]


async def test_a_stop_that_drains_goes_on_draining_under_the_next_daemon(
    bench: Bench, sleeper: ProcessSpec
) -> None:
    first = Crew(bench)
    first.configure(sleeper)
    async with first.running():
        pid = await ready(first)
        first.book.request(_job(), max_rooms=0, draining=False)
        first.workers.stop(AGENT, drain=True)
    second = Crew(bench)
    second.book.request(_job(), max_rooms=0, draining=False)
    second.configure(sleeper, drain=300.0)
    async with second.running():
        await until_async(lambda: second.workers.all()[0].state is WorkerState.DRAINING)
        await until_async(lambda: not second.workers.waiting)
        assert is_alive(pid)
        second.book.abandon(AGENT, "job", "its call is over")
        second.workers.wake(AGENT)
        await until_async(lambda: second.workers.all()[0].state is WorkerState.STOPPED)
    assert processes(bench) == {}


def _job(agent_id: str = AGENT) -> JobRequest:
    return JobRequest(
        room=f"room of {agent_id}", agent_id=agent_id, job_id="job", dispatch_id="", identity="agent-job"
    )


async def test_a_daemon_killed_while_it_ends_a_worker_leaves_that_to_the_next(bench: Bench) -> None:
    """SIGTERM was sent and ignored; the next daemon sends it again, and kills in its own time."""
    first = Crew(bench)
    first.configure(bench.python(DEAF), kill=300.0)
    async with first.running():
        pid = await ready(first)
        await until_async(lambda: bench.log.read_text() == "up\n")
        first.workers.stop(AGENT, drain=False)
        await until_async(lambda: first.workers.all()[0].state is WorkerState.STOPPING)
    assert is_alive(pid)
    second = Crew(bench)
    second.configure(bench.python(DEAF))
    async with second.running():
        await until_async(lambda: second.workers.all()[0].state is WorkerState.STOPPED)
    assert processes(bench) == {}


async def test_a_reload_in_the_middle_of_a_stop_starts_the_new_command_once(bench: Bench) -> None:
    crew = Crew(bench)
    crew.configure(bench.python(DEAF))
    async with crew.running():
        first = await ready(crew)
        await until_async(lambda: bench.log.read_text() == "up\n")
        crew.workers.restart(AGENT, drain=False)
        await until_async(lambda: crew.workers.all()[0].state is WorkerState.STOPPING)
        crew.configure(replace(bench.spec("sleep", "300"), command_hash="hash-2"))
        await until_async(lambda: crew.told(WorkerRestarted))
        second = await ready(crew)
        await until_async(lambda: not crew.workers.waiting)
        assert [len(crew.told(WorkerSpawned)), is_alive(first), is_alive(second)] == [2, False, True]


async def test_restart_during_backoff_starts_at_once(bench: Bench) -> None:
    crew = Crew(bench)
    crew.configure(bench.shell("exit 3"), backoff=BackoffPolicy(60.0, 2.0, 60.0))
    async with crew.running():
        await until_async(lambda: crew.workers.all()[0].state is WorkerState.BACKOFF)
        crew.configure(bench.spec("sleep", "300"), backoff=BackoffPolicy(60.0, 2.0, 60.0))
        crew.workers.restart(AGENT, drain=True)
        pid = await ready(crew)
        await until_async(lambda: list(processes(bench)) == [pid])  # none is seen while it executes a program


async def test_wishes_that_cannot_be_read_are_told_and_everything_runs(
    bench: Bench, sleeper: ProcessSpec
) -> None:
    bench.state.mkdir()
    (bench.state / "wishes").write_text("no directory")
    crew = Crew(bench)
    assert [event.operation for event in crew.told(StoreFailed)] == ["stop wishes"]
    crew.configure(sleeper)
    async with crew.running():
        await ready(crew)


async def test_an_adopted_worker_that_says_nothing_hangs_unless_it_may_still_be_starting(
    bench: Bench, sleeper: ProcessSpec
) -> None:
    """As one that was stopped with SIGSTOP while no daemon ran: no need to wait as long as for a start."""
    first = Crew(bench)
    first.configure(sleeper)
    async with first.running():
        pid = await ready(first)
    born = PidfdWatch().create_time(pid)
    assert born is not None
    starting, silent = Crew(bench), Crew(bench)
    starting.configure(sleeper, guarded=True, startup_timeout=3600.0, heartbeat_timeout=0.1)
    async with starting.running():
        assert starting.workers.all()[0].last_heartbeat is None
    start = GUARD_RETURNS + 1.0
    await until_async(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) - born > start)
    silent.configure(sleeper, guarded=True, startup_timeout=start, heartbeat_timeout=0.1)
    async with silent.running():
        await until_async(lambda: silent.told(WorkerSignalled))
    signalled = silent.told(WorkerSignalled)[0]
    assert (signalled.pid, signalled.reason) == (pid, "hung")


@pytest.mark.parametrize(
    ("guarded", "livekit_up", "waits"),
    [(False, True, False), (False, False, False), (True, True, False), (True, False, True)],
)
async def test_the_status_of_one_that_livekit_stayed_away_from_is_believed_of_a_guard_while_that_may_be(
    bench: Bench, guarded: bool, livekit_up: bool, waits: bool
) -> None:
    """Otherwise a program that ends with 69 would be started hundreds of times a second."""
    crew = Crew(bench, livekit_up=livekit_up)
    crew.configure(bench.shell("exit 69"), guarded=guarded, backoff=BackoffPolicy(60.0, 2.0, 60.0))
    async with crew.running():
        await until_async(lambda: crew.told(WorkerExited))
        worker = crew.workers.all()[0]
        await until_async(lambda: worker.state is WorkerState.BACKOFF)
        assert (worker.waits_for_livekit, worker.failures) == (waits, 0 if waits else 1)
        [exited] = crew.told(WorkerExited)
        assert exited.reason is (RestartReason.LIVEKIT_LOST if waits else RestartReason.EXIT)


async def test_a_start_has_as_long_as_it_may_from_when_livekit_is_there(
    bench: Bench, sleeper: ProcessSpec
) -> None:
    """Nobody can register with a LiveKit that is away: that is no failed start."""
    crew = Crew(bench, livekit_up=False)
    crew.configure(sleeper, guarded=True, startup_timeout=0.5)
    worker = crew.workers.all()[0]
    async with crew.running():
        await until_async(lambda: worker.handle is not None)
        worker.started_at -= 60.0  # it has been trying for long
        crew.events.clear()
        crew.workers.wake(AGENT)
        await until_async(lambda: crew.told(Reconciled) and not crew.workers.waiting)
        assert (worker.state, crew.told(WorkerSignalled)) == (WorkerState.STARTING, [])
        crew.livekit_up, back_at = True, time.monotonic()
        crew.workers.livekit_is_back()
        await until_async(lambda: crew.told(WorkerSignalled))
        assert time.monotonic() >= back_at + 0.5
    assert crew.told(WorkerSignalled)[0].reason == "startup_timeout"


async def test_each_agent_drains_as_long_as_it_may_itself_when_the_daemon_stops(bench: Bench) -> None:
    hasty, patient = (bench.spec("sleep", "300", id=name) for name in ("hasty", "patient"))
    crew = Crew(bench)
    crew.workers.configure([*agents([hasty], drain=0.2), *agents([patient], drain=300.0)])
    async with crew.running():
        await until_async(lambda: all(w.state is WorkerState.READY for w in crew.workers.all()))
        for spec in (hasty, patient):
            crew.book.request(_job(spec.id), max_rooms=0, draining=False)
        crew.workers.shut_down(["hasty", "patient"], drain=None)
        await until_async(lambda: crew.workers.all()[0].state is WorkerState.STOPPED)
        assert crew.workers.all()[1].state is WorkerState.DRAINING
        crew.workers.shut_down(["hasty", "patient"], drain=0.0)
        await until_async(lambda: crew.workers.all()[1].state is WorkerState.STOPPED)


async def _draining(crew: Crew) -> int:
    """A worker with a call, that drains."""
    pid = await ready(crew)
    crew.book.request(_job(), max_rooms=0, draining=False)
    crew.workers.stop(AGENT, drain=True)
    assert crew.workers.all()[0].state is WorkerState.DRAINING
    return pid


@pytest.mark.parametrize(
    "cause", ["it hangs", "it is stopped at once", "its call is over", "it took too long"]
)
async def test_a_drain_ends_once_and_one_way(bench: Bench, sleeper: ProcessSpec, cause: str) -> None:
    crew = Crew(bench)
    crew.configure(sleeper, drain=0.2 if cause == "it took too long" else 300.0)
    async with crew.running():
        await _draining(crew)
        if cause == "it hangs":  # a job in its own process: nothing else would end it
            crew.workers.hung(AGENT)
        elif cause == "it is stopped at once":
            crew.workers.stop(AGENT, drain=False)
        elif cause == "its call is over":
            crew.book.abandon(AGENT, "job", "over")
            crew.workers.wake(AGENT)
        await until_async(lambda: crew.workers.all()[0].state is WorkerState.STOPPED)
    outcome = {"its call is over": "completed", "it took too long": "timeout"}.get(cause, "interrupted")
    assert [e.outcome for e in crew.told(DrainFinished)] == [outcome]


DRAINS_BY_ITSELF = """
import signal, time
over = []
signal.signal(signal.SIGTERM, lambda *_: over.append(True))
print("up", flush=True)
while not over: time.sleep(0.01)
time.sleep(0.6)
print("drained", flush=True)
"""


async def test_a_program_without_a_guard_has_its_drain_to_end_in(bench: Bench) -> None:
    """As an unmodified worker, which waits for its calls on SIGTERM: ``kill`` is 0.3 s here."""
    crew = Crew(bench)
    crew.configure(bench.python(DRAINS_BY_ITSELF), drain=300.0)
    async with crew.running():
        await ready(crew)
        await until_async(lambda: bench.log.read_text() == "up\n")
        crew.workers.stop(AGENT, drain=True)
        await until_async(lambda: crew.workers.all()[0].state is WorkerState.STOPPED)
    assert bench.log.read_text() == "up\ndrained\n"
    assert [e.outcome for e in crew.told(DrainFinished)] == ["completed"]
    assert [e.signal for e in crew.told(WorkerSignalled)] == ["SIGTERM"]


@pytest.mark.parametrize("ran_for", [0.0, 60.0])
async def test_one_that_is_over_its_memory_soon_after_its_start_is_a_failure(
    bench: Bench, sleeper: ProcessSpec, ran_for: float
) -> None:
    """A limit below what it needs at all would be a restart every few seconds."""
    crew = Crew(bench)
    crew.configure(sleeper, memory_limit=1, backoff=BackoffPolicy(60.0, 2.0, 60.0))
    worker = crew.workers.all()[0]
    async with crew.running():
        first = await ready(crew)
        worker.ran_before, worker.memory_bytes = ran_for, 2
        crew.workers.wake(AGENT)
        await until_async(lambda: crew.told(WorkerExited))
        assert crew.told(WorkerExited)[0].reason is RestartReason.MEMORY_LIMIT
        if ran_for:
            assert await ready(crew) != first
        else:
            await until_async(lambda: worker.state is WorkerState.BACKOFF)
    assert worker.failures == (0 if ran_for else 1)
