"""The first layer on a real server: a job that the daemon does not grant never becomes a participant.

One worker serves all tests of this module; each test is a new daemon to it, as after a restart.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import datetime
from functools import partial
from typing import cast

import psutil
import pytest
from livekit import api

from agent_guard.job import EXIT_AFTER
from tests.livekit.guarded import (
    GuardedWorker,
    StandInDaemon,
    Wire,
    agents,
    dispatch,
    eventually,
    nobody,
    participants,
    server_api,
)
from tests.livekit.server import LiveKitServer

SCRIPT = """
import asyncio
from livekit.agents import AgentServer, JobContext, JobRequest, cli

server = AgentServer()

async def on_request(request: JobRequest) -> None:
    if request.room.name.startswith("unwanted"):
        await request.reject()
    else:
        await request.accept()

async def for_long(*_: object) -> None:
    await asyncio.sleep(60)

async def slow_end(ctx: JobContext) -> None:
    if ctx.room.name.startswith("hanging"):
        await for_long()

@server.rtc_session(agent_name="mine", on_request=on_request, on_session_end=slow_end)
async def entrypoint(ctx: JobContext) -> None:
    print("SCRIPT RUNS IN", ctx.job.room.name, flush=True)
    await ctx.connect()
    if ctx.room.name.startswith("callback"):
        ctx.add_shutdown_callback(for_long)
    if ctx.room.name.startswith("stuck"):
        ctx.room.disconnect = for_long

if __name__ == "__main__":
    cli.run_app(server)
"""

SLACK = 5.0
"""What two shared cores may be late."""

_rooms = itertools.count()


@pytest.fixture
async def daemon(worker: GuardedWorker) -> AsyncIterator[StandInDaemon]:
    async with StandInDaemon(worker.socket) as daemon:
        await daemon.registered()
        yield daemon


@pytest.fixture
async def livekit(livekit_server: LiveKitServer) -> AsyncIterator[api.LiveKitAPI]:
    async with server_api(livekit_server) as livekit:
        yield livekit


@pytest.fixture
async def room(livekit: api.LiveKitAPI, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A room of the test's own, deleted with its agents afterwards."""
    name = f"{getattr(request, 'param', 'room')}-{next(_rooms)}"
    await livekit.room.create_room(api.CreateRoomRequest(name=name))
    yield name
    await livekit.room.delete_room(api.DeleteRoomRequest(room=name))


def answer(outcome: str, **fields: object) -> Wire:
    return {"outcome": outcome, "epoch": 0, "terminate": outcome == "held", "holder": "", **fields}


async def line(worker: GuardedWorker, message: str, room: str, timeout: float = 5) -> dict[str, object]:
    """The worker's structured log line with this message about this room."""

    async def look() -> list[dict[str, object]]:
        return [entry for entry in worker.lines(message) if entry.get("room") == room]

    return (await eventually(look, timeout))[0]


async def job_statuses(livekit: api.LiveKitAPI, room: str) -> list[int]:
    dispatches = await livekit.agent_dispatch.list_dispatch(room)
    return [job.state.status for d in dispatches for job in d.state.jobs]


async def ended_well(livekit: api.LiveKitAPI, room: str, count: int) -> None:
    """LiveKit has ended that many of the room's jobs, and will offer them to no other worker."""

    async def look() -> bool:
        return (await job_statuses(livekit, room)).count(api.JobStatus.JS_SUCCESS) == count

    await eventually(look)


async def test_a_duplicate_never_joins_and_ends_for_good(
    worker: GuardedWorker, daemon: StandInDaemon, livekit: api.LiveKitAPI, room: str
) -> None:
    await dispatch(livekit, room, "mine")
    holder = await daemon.job()
    daemon.answers = lambda request: answer("held", holder=holder.hello["identity"])
    await asyncio.gather(*(dispatch(livekit, room, "mine") for _ in range(5)))
    await daemon.until(lambda: len(daemon.requests()) == 6 or None)

    await ended_well(livekit, room, 5)
    assert [a.identity for a in await agents(livekit, room)] == [holder.hello["identity"]]
    assert len(daemon.jobs()) == 1
    assert (await line(worker, "duplicate rejected", room))["holder"] == holder.hello["identity"]


@pytest.mark.parametrize("room", ["unwanted"], indirect=True)
async def test_the_script_decides_first(
    worker: GuardedWorker, daemon: StandInDaemon, livekit: api.LiveKitAPI, room: str
) -> None:
    await dispatch(livekit, room, "mine")
    await line(worker, "job request received", room)
    await ended_well(livekit, room, 1)
    assert daemon.requests() == []


@pytest.mark.parametrize("outcome", ["full", "draining", "error"])
async def test_any_other_no_leaves_the_job_to_another_worker(
    outcome: str, worker: GuardedWorker, daemon: StandInDaemon, livekit: api.LiveKitAPI, room: str
) -> None:
    daemon.answers = lambda request: answer(outcome)
    await dispatch(livekit, room, "mine")
    assert (await line(worker, "job request rejected", room))["reason"] == outcome
    assert api.JobStatus.JS_SUCCESS not in await job_statuses(livekit, room)
    assert await participants(livekit, room) == []


async def test_a_drained_worker_takes_nothing_until_it_resumes(
    worker: GuardedWorker, daemon: StandInDaemon, livekit: api.LiveKitAPI, room: str
) -> None:
    guard = daemon.worker()
    assert guard is not None
    guard.send(type="drain", timeout=60)
    await dispatch(livekit, room, "mine")
    assert (await line(worker, "job request rejected", room))["reason"] == "draining"
    assert daemon.requests() == []
    guard.send(type="resume")
    await dispatch(livekit, room, "mine")
    await daemon.job()


async def test_a_job_that_has_lost_its_room_never_runs_the_script(
    worker: GuardedWorker, daemon: StandInDaemon, livekit: api.LiveKitAPI, room: str
) -> None:
    daemon.hold = lambda hello: False
    await dispatch(livekit, room, "mine")
    await line(worker, "room released", room)
    assert f"SCRIPT RUNS IN {room}" not in worker.log.read_text()
    assert await participants(livekit, room) == []


@pytest.mark.parametrize("room", ["room", "hanging", "callback"], indirect=True)
async def test_told_to_leave_it_leaves_at_once_whatever_the_script_is_doing(
    daemon: StandInDaemon, livekit: api.LiveKitAPI, room: str
) -> None:
    await dispatch(livekit, room, "mine")
    job = await daemon.job()
    job.send(type="leave", reason="an old order", epoch=0)
    job.send(type="leave", reason="another holds it", epoch=1)
    await daemon.until(lambda: job.heard("goodbye"), timeout=2)
    assert job.heard("leaving") == []
    assert [r["detail"] for r in job.heard("report", report="leaving")] == ["another holds it"]
    await eventually(partial(nobody, participants, livekit, room))


@pytest.mark.parametrize("room", ["stuck"], indirect=True)
async def test_a_job_that_cannot_leave_its_room_ends_itself_and_costs_nobody_else(
    worker: GuardedWorker, daemon: StandInDaemon, livekit: api.LiveKitAPI, room: str
) -> None:
    """Its loop turns, and what LiveKit and the guard end it with does not come back."""
    await dispatch(livekit, room, "mine")
    job = await daemon.job()
    told = asyncio.get_running_loop().time()
    job.send(type="leave", reason="another holds it", epoch=1)
    await daemon.until(lambda: job.gone or None, timeout=EXIT_AFTER + SLACK)
    assert asyncio.get_running_loop().time() - told >= EXIT_AFTER
    assert job.heard("goodbye") == []
    assert f"the room was not left in time, job {job.hello['job_id']} ends" in worker.log.read_text()
    # the ghost is the daemon's to remove; the worker goes on
    identity = api.RoomParticipantIdentity(room=room, identity=str(job.hello["identity"]))
    await livekit.room.remove_participant(identity)
    await dispatch(livekit, room, "mine")
    another = await daemon.job()
    assert another.hello["job_id"] != job.hello["job_id"]
    assert worker.process.poll() is None


async def test_a_daemon_that_does_not_answer_is_replaced_by_a_look_at_the_room(
    worker: GuardedWorker, daemon: StandInDaemon, livekit: api.LiveKitAPI, room: str
) -> None:
    daemon.answers = lambda request: None
    await dispatch(livekit, room, "mine")
    taken = await line(worker, "room assigned", room)
    assert taken["by"] == "guard"
    await daemon.job()
    await dispatch(livekit, room, "mine")
    refused = await line(worker, "duplicate rejected", room)
    received = [entry for entry in worker.lines("job request received") if entry["room"] == room]
    for asked, answered in zip(received, (taken, refused), strict=True):
        assert _seconds(asked, answered) < 1.0
    assert len(await agents(livekit, room)) == 1


async def test_an_agent_of_another_worker_is_seen_by_the_look_but_an_avatar_is_none(
    worker: GuardedWorker,
    daemon: StandInDaemon,
    livekit: api.LiveKitAPI,
    livekit_server: LiveKitServer,
    room: str,
) -> None:
    from supervisor.cli.human import Access, Human

    access = Access(livekit_server.url, livekit_server.key, livekit_server.secret)
    daemon.answers = lambda request: None
    avatar = {"lk.publish_on_behalf": "agent-somebody"}
    async with Human(access, room, "avatar", kind="agent", attributes=avatar):
        await dispatch(livekit, room, "mine")
        assert (await line(worker, "room assigned", room))["by"] == "guard"
        job = await daemon.job()
        census = await daemon.until(lambda: job.heard("census"))
        assert census[-1]["agents"] == [job.hello["identity"]]
    job.send(type="leave", reason="make room", epoch=1)
    await daemon.until(lambda: job.gone or None)

    async with Human(access, room, "other", kind="agent"):
        await dispatch(livekit, room, "mine")
        assert (await line(worker, "duplicate rejected", room))["holder"] == "other"


async def test_jobs_go_on_without_a_daemon_and_tell_the_next_one_what_they_hold(
    worker: GuardedWorker, livekit: api.LiveKitAPI, room: str
) -> None:
    async with StandInDaemon(worker.socket) as first:
        await first.registered()
        await dispatch(livekit, room, "mine")
        job = await first.job(room=room)
    async with StandInDaemon(worker.socket) as second:
        again = await second.until(
            lambda: next((j for j in second.jobs() if j.hello["job_id"] == job.hello["job_id"]), None)
        )
        assert (again.hello["joined"], again.hello["epoch"]) == (True, 1)
        census = await second.until(lambda: again.heard("census"))
        assert census[-1]["agents"] == [job.hello["identity"]]
        guard = await second.registered()
        listed = [entry for told in guard.heard("jobs") for entry in cast(list[Wire], told["jobs"])]
        [running] = [entry for entry in listed if entry["job_id"] == job.hello["job_id"]]
        assert {key: running[key] for key in ("room", "identity", "dispatch_id")} == {
            key: job.hello[key] for key in ("room", "identity", "dispatch_id")
        }
        assert psutil.Process(cast(int, running["pid"])).is_running()
    assert len(await agents(livekit, room)) == 1


async def test_two_agents_in_the_room_are_counted_at_once(
    daemon: StandInDaemon, livekit: api.LiveKitAPI, livekit_server: LiveKitServer, room: str
) -> None:
    from supervisor.cli.human import Access, Human

    await dispatch(livekit, room, "mine")
    job = await daemon.job()
    me = str(job.hello["identity"])
    access = Access(livekit_server.url, livekit_server.key, livekit_server.secret)
    async with Human(access, room, "second", kind="agent"), Human(access, room, "person"):
        await daemon.until(lambda: job.heard("census", agents=sorted([me, "second"]), humans=1))
    await daemon.until(lambda: job.heard("census", agents=[me], humans=0)[1:])
    assert len(job.heard("report", report="single_agent_validated")) == 2


def _seconds(earlier: dict[str, object], later: dict[str, object]) -> float:
    times = [datetime.fromisoformat(str(entry["timestamp"])) for entry in (earlier, later)]
    return (times[1] - times[0]).total_seconds()
