"""The guard's decision on a job request, with LiveKit's own JobRequest and a daemon on a real socket."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from livekit.agents import AgentServer, JobRequest
from livekit.agents.job import JobAcceptArguments
from livekit.protocol import agent, models

from agent_guard.look import LOOK_TIMEOUT
from agent_guard.requests import GuardedRequests
from agent_guard.settings import GuardSettings
from agent_guard.worker import ANSWER_TIMEOUT, Options, WorkerGuard

SLACK = 0.5
"""What two shared cores may be late."""


class Daemon:
    """Answers every request with ``answer``, once it may, and remembers all that it was told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answer: dict[str, object] = {"outcome": "granted", "epoch": 1}
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.told: list[dict[str, object]] = []
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def hears(self, kind: str, **fields: object) -> dict[str, object]:
        wanted = {"type": kind, **fields}
        async with asyncio.timeout(5):
            while not (found := [m for m in self.told if wanted.items() <= m.items()]):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return found[0]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b'{"type":"welcome","v":1,"instance":"welcomed"}\n')
        while line := await reader.readline():
            await self.may_answer.wait()
            self.told.append(message := json.loads(line))
            if message["type"] == "request":
                answer = {"type": "answer", "id": message["id"], **self.answer}
                writer.write(json.dumps(answer).encode() + b"\n")
        writer.close()


class Offer:
    """A job that LiveKit offers, and what became of it."""

    def __init__(self, failure: BaseException | None = None) -> None:
        self.accepted: list[JobAcceptArguments] = []
        self.rejected: list[bool] = []
        self._failure = failure
        job = agent.Job(id="AJ_1", dispatch_id="AD_1", room=models.Room(name="room", sid="RM_1"))
        self.request = JobRequest(job=job, on_reject=self._reject, on_accept=self._accept)

    async def _reject(self, terminate: bool) -> None:
        self.rejected.append(terminate)

    async def _accept(self, arguments: JobAcceptArguments) -> None:
        if self._failure is not None:
            raise self._failure
        self.accepted.append(arguments)


@pytest.fixture
async def daemon(runtime_dir: Path) -> AsyncIterator[Daemon]:
    daemon = Daemon(runtime_dir / "guard.sock")
    await daemon.start()
    yield daemon
    await daemon.stop()


@pytest.fixture
async def guard(daemon: Daemon) -> AsyncIterator[WorkerGuard]:
    settings = GuardSettings(
        agent_id="agent-1",
        socket=str(daemon.path),
        instance="",
        agent_name=None,
        dev=False,
        human_return_grace=1,
        heartbeat_interval=1,
    )
    guard = WorkerGuard(AgentServer(), settings, Options())
    await guard.start()
    yield guard
    await guard.stop(livekit_lost=False, failure=None)


async def test_granted_it_is_accepted_as_the_script_wished_with_our_attributes(
    guard: WorkerGuard, daemon: Daemon
) -> None:
    async def on_request(request: JobRequest) -> None:
        await request.accept(name="n", identity="own", metadata="m", attributes={"a": "b"})

    offer = Offer()
    await GuardedRequests(guard, on_request)(offer.request)
    assert offer.accepted == [
        JobAcceptArguments(
            name="n",
            identity="own",
            metadata="m",
            attributes={"a": "b", "supervisor.agent_id": "agent-1", "supervisor.instance": "welcomed"},
        )
    ]
    asked = await daemon.hears("request")
    assert {k: asked[k] for k in ("room", "room_sid", "job_id", "dispatch_id", "identity")} == {
        "room": "room",
        "room_sid": "RM_1",
        "job_id": "AJ_1",
        "dispatch_id": "AD_1",
        "identity": "own",
    }
    assert guard.rooms_in_hand == {}


@pytest.mark.parametrize(
    ("outcome", "terminate"), [("held", True), ("full", False), ("draining", False), ("error", False)]
)
async def test_not_granted_it_is_rejected_as_the_outcome_asks(
    outcome: str, terminate: bool, guard: WorkerGuard, daemon: Daemon
) -> None:
    daemon.answer = {"outcome": outcome, "terminate": terminate}
    offer = Offer()
    await GuardedRequests(guard, None)(offer.request)
    assert (offer.accepted, offer.rejected) == ([], [terminate])
    assert guard.rooms_in_hand == {}


async def test_a_grant_that_comes_to_nothing_is_given_back(guard: WorkerGuard, daemon: Daemon) -> None:
    offer = Offer(failure=TimeoutError())
    with pytest.raises(TimeoutError):
        await GuardedRequests(guard, None)(offer.request)
    abandoned = await daemon.hears("abandon")
    assert (abandoned["job_id"], abandoned["reason"]) == ("AJ_1", "TimeoutError")
    assert guard.rooms_in_hand == {}


async def test_a_script_that_rejects_is_not_asked_about(guard: WorkerGuard, daemon: Daemon) -> None:
    offer = Offer()
    await GuardedRequests(guard, lambda request: request.reject(terminate=False))(offer.request)
    assert offer.rejected == [False]
    assert daemon.told == []


async def test_without_a_daemon_a_second_job_for_the_room_is_none_of_ours(
    guard: WorkerGuard, daemon: Daemon
) -> None:
    daemon.answer = {"outcome": "granted", "id": -1}
    guard.rooms_in_hand["AJ_0"] = "room"
    offer = Offer()
    await GuardedRequests(guard, None)(offer.request)
    assert (offer.accepted, offer.rejected) == ([], [False])
    assert guard.rooms_in_hand == {"AJ_0": "room"}


async def test_at_the_worst_the_answer_is_no_in_less_than_a_second(
    guard: WorkerGuard, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon is silent, and so is LiveKit."""
    daemon.answer = {"outcome": "granted", "id": -1}
    monkeypatch.setenv("LIVEKIT_API_KEY", "key")
    monkeypatch.setenv("LIVEKIT_API_SECRET", "s" * 32)
    with socket.create_server(("127.0.0.1", 0)) as black_hole:
        monkeypatch.setenv("LIVEKIT_URL", f"ws://127.0.0.1:{black_hole.getsockname()[1]}")
        offer = Offer()
        began = asyncio.get_running_loop().time()
        await GuardedRequests(guard, None)(offer.request)
        took = asyncio.get_running_loop().time() - began
    assert (offer.accepted, offer.rejected) == ([], [False])
    assert ANSWER_TIMEOUT + LOOK_TIMEOUT <= took < 1.0 + SLACK
    assert ANSWER_TIMEOUT + LOOK_TIMEOUT < 1.0
    assert (await daemon.hears("report", report="daemon_away"))["room"] == "room"
    assert (await daemon.hears("report", report="look_failed"))["detail"]


async def test_a_grant_that_comes_too_late_is_given_back(
    guard: WorkerGuard, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the room would be held for a job that nobody has."""
    monkeypatch.delenv("LIVEKIT_URL", raising=False)
    daemon.may_answer.clear()
    offer = Offer()
    await GuardedRequests(guard, None)(offer.request)
    assert (offer.accepted, offer.rejected) == ([], [False])
    assert daemon.told == []
    daemon.may_answer.set()
    assert (await daemon.hears("abandon"))["job_id"] == "AJ_1"
    about = [message["type"] for message in daemon.told if message["type"] != "report"]
    assert about[:2] == ["request", "abandon"]


async def test_a_job_that_is_cancelled_while_the_daemon_is_asked_is_given_back(
    guard: WorkerGuard, daemon: Daemon
) -> None:
    daemon.answer = {"outcome": "granted", "id": -1}
    accepting = asyncio.ensure_future(GuardedRequests(guard, None)(Offer().request))
    await daemon.hears("request")
    accepting.cancel()
    assert (await daemon.hears("abandon"))["job_id"] == "AJ_1"
    assert guard.rooms_in_hand == {}


async def test_without_a_daemon_what_is_taken_is_not_given_back(
    guard: WorkerGuard, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nobody_there(_request: web.Request) -> web.Response:
        return web.Response(body=b"", content_type="application/protobuf")

    monkeypatch.setenv("LIVEKIT_API_KEY", "key")
    monkeypatch.setenv("LIVEKIT_API_SECRET", "s" * 32)
    daemon.answer = {"outcome": "granted", "id": -1}
    offer = Offer()
    app = web.Application()
    app.router.add_post("/{method:.*}", nobody_there)
    async with TestServer(app) as livekit:
        monkeypatch.setenv("LIVEKIT_URL", str(livekit.make_url("")))
        await GuardedRequests(guard, None)(offer.request)
    assert len(offer.accepted) == 1
    guard.abandon("AJ_2", "the mark up to which all was heard")
    await daemon.hears("abandon", job_id="AJ_2")
    assert [message["job_id"] for message in daemon.told if message["type"] == "abandon"] == ["AJ_2"]
