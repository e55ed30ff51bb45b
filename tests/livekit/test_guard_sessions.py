"""Instance reuse on a real server with a real AgentSession: a human who comes back finds the same job.

One worker serves all tests of this module.  What its script prints is what the script's author would see.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
from livekit import api, rtc

from supervisor.reconcile.claimbook import SESSION_FAILED
from tests.livekit.guarded import (
    GuardedWorker,
    Peer,
    StandInDaemon,
    agents,
    dispatch,
    eventually,
    nobody,
    server_api,
)
from tests.livekit.server import LiveKitServer

SCRIPT = """
import asyncio
import agent_guard.job
from livekit import rtc
from livekit.agents import (
    Agent, AgentServer, AgentSession, APIConnectionError, CloseReason, JobContext, cli, llm, room_io
)
from livekit.agents.llm import ChatContext
from livekit.agents.voice.agent_session import SessionConnectOptions

server = AgentServer()

class NoAnswer(llm.LLMStream):
    async def _run(self) -> None:
        raise APIConnectionError(retryable=False)

class BrokenModel(llm.LLM):
    def chat(self, *, chat_ctx, tools=None, conn_options=SessionConnectOptions().llm_conn_options, **_):
        return NoAnswer(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)

async def on_end(ctx: JobContext) -> None:
    if "saving" in ctx.job.room.name:
        print(f"<{ctx.job.room.name}> SAVING\\n", end="", flush=True)
        await asyncio.sleep(60)

@server.rtc_session(agent_name="mine", on_session_end=on_end)
async def entrypoint(ctx: JobContext) -> None:
    def say(*words: object) -> None:
        print(f"<{ctx.job.room.name}> {' '.join(map(str, words))}\\n", end="", flush=True)

    async def on_shutdown(reason: str) -> None:
        say("SHUTDOWN", reason)
        if "saving" in ctx.job.room.name:
            await asyncio.sleep(60)

    ctx.add_shutdown_callback(on_shutdown)
    ctx.proc.userdata.setdefault("agent_guard.on_reset", []).append(lambda: say("HOOK"))
    if ctx.job.room.name.startswith("plain"):
        await ctx.connect()
        return
    if ctx.job.room.name.startswith("crashing"):
        await ctx.connect()
        raise ValueError("no key for the model")

    session = AgentSession()
    listens = "unheard" not in ctx.job.room.name
    agent_guard.job.MUTE_AFTER, agent_guard.job.OWN_WAY = (3600, 0.3) if listens else (0.3, 3600)
    if ctx.job.room.name.startswith("failing"):
        session = AgentSession(
            llm=BrokenModel(), conn_options=SessionConnectOptions(max_unrecoverable_errors=0)
        )
    knowledge = ChatContext.empty()
    knowledge.add_message(role="system", content="known from the start")

    async def on_text(session: AgentSession, event: room_io.TextInputEvent) -> None:
        words = session.current_agent.chat_ctx.copy()
        words.add_message(role="user", content=event.text)
        await session.current_agent.update_chat_ctx(words)
        session.history.add_message(role="user", content=event.text)
        messages = [[m for m in chat.items if m.type == "message"] for chat in (words, session.history)]
        said, past = ([m.text_content for m in chat if m.role == "user"] for chat in messages)
        known = any(m.text_content == "known from the start" for m in messages[0])
        say("HEARD", event.participant.identity, said, past == said, known)
        if session.llm is not None:
            session.generate_reply()

    def on_close(event) -> None:
        say("CLOSED", event.reason.value)
        if event.reason is CloseReason.ERROR and "again" in ctx.job.room.name:
            other = AgentSession()
            begin.append(asyncio.ensure_future(other.start(Agent(instructions="none"), room=ctx.room)))
        elif event.reason is CloseReason.ERROR and "regret" in ctx.job.room.name:
            track = rtc.LocalAudioTrack.create_audio_track("regret", rtc.AudioSource(48_000, 1))
            begin.append(asyncio.ensure_future(ctx.room.local_participant.publish_track(track)))
        for going_on in begin:
            going_on.add_done_callback(lambda _: say("GOES ON"))

    begin = []
    if listens:
        session.once("close", on_close)
    if ctx.job.room.name.startswith("closing"):
        ctx.room.on("participant_disconnected", lambda _: session.shutdown(drain=False))
    if ctx.job.room.name.startswith("unbegun"):
        await ctx.connect()
        try:
            await asyncio.wait_for(session.start(Agent(instructions="none"), room=ctx.room), 0.001)
        except asyncio.TimeoutError:
            return
    options = room_io.RoomOptions(text_input=room_io.TextInputOptions(text_input_cb=on_text))
    if ctx.job.room.name.startswith("robot"):
        options.participant_kinds = [rtc.ParticipantKind.PARTICIPANT_KIND_AGENT]
    await session.start(Agent(instructions="none", chat_ctx=knowledge), room=ctx.room, room_options=options)

if __name__ == "__main__":
    cli.run_app(server)
"""

_rooms = itertools.count()


class Call:
    """One room, its job, and the people in it."""

    def __init__(
        self, room: str, server: LiveKitServer, livekit: api.LiveKitAPI, daemon: StandInDaemon, log: Path
    ) -> None:
        self.room = room
        self.livekit = livekit
        self.daemon = daemon
        self._server = server
        self._log = log
        self._rooms: list[rtc.Room] = []
        self.job: Peer

    async def begin(self) -> Call:
        await dispatch(self.livekit, self.room, "mine")
        self.job = await self.daemon.job()
        return self

    async def join(self, identity: str, kind: Literal["standard", "agent"] = "standard") -> rtc.Room:
        grants = api.VideoGrants(room_join=True, room=self.room)
        token = api.AccessToken(self._server.key, self._server.secret).with_identity(identity).with_kind(kind)
        human = rtc.Room()
        self._rooms.append(human)
        await human.connect(self._server.url, token.with_grants(grants).to_jwt())
        # LiveKit announces somebody who publishes nothing only seconds later.
        voice = rtc.LocalAudioTrack.create_audio_track("voice", rtc.AudioSource(48_000, 1))
        await human.local_participant.publish_track(voice)
        return human

    def both(self, other: str) -> list[str]:
        return sorted([str(self.job.hello["identity"]), other])

    async def end(self) -> None:
        for human in self._rooms:
            await human.disconnect()
        with contextlib.suppress(api.TwirpError):
            await self.livekit.room.delete_room(api.DeleteRoomRequest(room=self.room))

    def said(self, word: str) -> list[str]:
        """What the script printed about this room, beginning with this word."""
        start = f"<{self.room}> {word}"
        lines = self._log.read_text(errors="replace").splitlines(keepends=True)
        whole = [line.rstrip() for line in lines if line.startswith(start) and line.endswith("\n")]
        return [line.removeprefix(f"<{self.room}> ") for line in whole]

    async def says(self, word: str, count: int = 1, timeout: float = 10) -> list[str]:
        async def look() -> list[str]:
            return self.said(word)[count - 1 :] and self.said(word)

        return await eventually(look, timeout)

    async def reports(self, report: str, count: int = 1) -> None:
        await self.daemon.until(lambda: self.job.heard("report", report=report)[count - 1 :])

    async def humans(self, count: int) -> None:
        await self.daemon.until(lambda: [m for m in self.job.said if m.get("humans") == count])

    async def gone(self) -> None:
        await self.daemon.until(lambda: self.job.heard("goodbye"))
        # An old livekit-agents may end before its farewell is sent, and no supervisor is here for its ghost.
        await eventually(partial(nobody, agents, self.livekit, self.room), timeout=30)


MakeCall = Callable[..., "contextlib.AbstractAsyncContextManager[Call]"]


@pytest.fixture
def call(worker: GuardedWorker, livekit_server: LiveKitServer) -> MakeCall:
    @contextlib.asynccontextmanager
    async def make(kind: str = "session", *, grace: float) -> AsyncIterator[Call]:
        room = f"{kind}-{next(_rooms)}"
        async with StandInDaemon(worker.socket) as daemon, server_api(livekit_server) as livekit:
            daemon.human_return_grace = grace
            await daemon.registered()
            call = await Call(room, livekit_server, livekit, daemon, worker.log).begin()
            try:
                yield call
            finally:
                await call.end()

    return make


async def test_who_returns_goes_on_with_the_same_session_under_any_name(call: MakeCall) -> None:
    async with call(grace=30) as session:
        alice = await session.join("alice")
        await session.humans(1)
        await alice.local_participant.send_text("one", topic="lk.chat")
        assert await session.says("HEARD") == ["HEARD alice ['one'] True True"]

        for turn, name in enumerate(["alice", "bob"], start=1):
            await alice.disconnect()
            await session.reports("human_gone", turn)
            alice = await session.join(name)
            await session.reports("state_reset", turn)
            reused = session.job.heard("report", report="session_reused")[-1]
            assert (reused["identity"], reused["detail"]) == (name, "")
            await alice.local_participant.send_text("two", topic="lk.chat")
            heard = await session.says("HEARD", 1 + turn)
            assert heard[-1] == f"HEARD {name} ['two'] True True"
            assert len(session.said("HOOK")) == turn

        assert session.said("CLOSED") == []
        assert [a.identity for a in await agents(session.livekit, session.room)] == [
            session.job.hello["identity"]
        ]
        assert len(session.daemon.requests()) == 1
        await alice.disconnect()


async def test_after_the_grace_the_session_closes_once_with_the_usual_reason_and_the_job_ends(
    call: MakeCall,
) -> None:
    async with call(grace=0.3) as session:
        alice = await session.join("alice")
        await session.humans(1)
        await alice.disconnect()
        await session.gone()
        assert await session.says("SHUTDOWN") == ["SHUTDOWN no human came back"]
        assert session.said("CLOSED") == ["CLOSED participant_disconnected"]


async def test_a_script_without_a_session_ends_after_the_grace_too(call: MakeCall) -> None:
    async with call("plain", grace=0.3) as plain:
        alice = await plain.join("alice")
        await plain.humans(1)
        await alice.disconnect()
        await plain.gone()
        assert await plain.says("SHUTDOWN") == ["SHUTDOWN no human came back"]


async def test_a_job_that_waits_for_its_first_human_goes_on_waiting(call: MakeCall) -> None:
    async with call("plain", grace=0.2) as outbound:
        await asyncio.sleep(1)
        assert outbound.job.heard("goodbye") == []
        callee = await outbound.join("callee")
        await outbound.humans(1)
        await callee.disconnect()
        await outbound.gone()


async def test_a_session_with_a_program_ends_with_it(call: MakeCall) -> None:
    """No human has been there, and none is waited for."""
    async with call("robot", grace=30) as session:
        caller = await session.join("caller", "agent")
        await session.daemon.until(lambda: session.job.heard("census", agents=session.both("caller")))
        await caller.disconnect()
        assert await session.says("CLOSED") == ["CLOSED participant_disconnected"]
        assert session.job.heard("report", report="human_gone") == []


async def test_while_another_human_is_there_the_session_is_theirs(call: MakeCall) -> None:
    async with call(grace=0.3) as session:
        alice = await session.join("alice")
        await session.humans(1)
        await alice.local_participant.send_text("one", topic="lk.chat")
        await session.says("HEARD")
        bob = await session.join("bob")
        await session.humans(2)
        await alice.disconnect()
        await session.daemon.until(lambda: session.job.said[-1].get("humans") == 1 or None)
        await bob.local_participant.send_text("two", topic="lk.chat")
        assert (await session.says("HEARD", 2))[-1] == "HEARD bob ['one', 'two'] True True"
        assert session.job.heard("report", report="human_gone") == []
        await bob.disconnect()
        await session.gone()
        assert session.said("CLOSED") == ["CLOSED participant_disconnected"]


async def test_a_session_that_the_script_closed_is_no_agent_for_who_returns(call: MakeCall) -> None:
    async with call("closing", grace=30) as closing:
        alice = await closing.join("alice")
        await closing.humans(1)
        await alice.disconnect()
        assert await closing.says("CLOSED") == ["CLOSED user_initiated"]
        alice = await closing.join("alice")
        assert await closing.says("SHUTDOWN") == ["SHUTDOWN the session is closed"]
        await closing.daemon.until(lambda: closing.job.heard("goodbye"))
        await alice.disconnect()


@pytest.mark.parametrize("kind", ["failing", "failing-unheard"])
async def test_an_agent_whose_models_have_failed_does_not_stay_mute_beside_its_human(
    call: MakeCall, kind: str
) -> None:
    """LiveKit closes the session and leaves the job where it is; a script that is told may take longer."""
    async with call(kind, grace=30) as failing:
        alice = await failing.join("alice")
        await failing.humans(1)
        await alice.local_participant.send_text("one", topic="lk.chat")
        await failing.reports("session_failed")
        assert await failing.says("SHUTDOWN") == ["SHUTDOWN the session failed"]
        assert failing.said("CLOSED") == (["CLOSED error"] if kind == "failing" else [])
        await failing.gone()
        assert [said["reason"] for said in failing.job.heard("goodbye")] == [SESSION_FAILED]
        assert alice.isconnected()


async def test_an_agent_whose_session_could_not_begin_does_not_stay_mute_either(call: MakeCall) -> None:
    async with call("unbegun", grace=30) as unbegun:
        await unbegun.reports("session_failed")
        alice = await unbegun.join("alice")
        assert await unbegun.says("SHUTDOWN") == ["SHUTDOWN the session failed"]
        await unbegun.gone()
        assert alice.isconnected()


@pytest.mark.parametrize("way", ["again", "regret"])
async def test_a_script_with_its_own_way_out_of_a_failed_session_is_left_alone(
    call: MakeCall, way: str
) -> None:
    async with call(f"failing-{way}", grace=0.3) as failing:
        alice = await failing.join("alice")
        await failing.humans(1)
        await alice.local_participant.send_text("one", topic="lk.chat")
        await failing.reports("session_failed")
        await failing.says("GOES ON")
        await asyncio.sleep(1)
        assert failing.job.heard("goodbye") == []
        await alice.disconnect()
        assert await failing.says("SHUTDOWN") == ["SHUTDOWN no human came back"]


async def test_an_agent_whose_script_has_failed_before_it_could_speak_does_not_stay(call: MakeCall) -> None:
    async with call("crashing", grace=30) as crashing:
        await crashing.reports("script_failed")
        await crashing.gone()


async def test_a_deleted_room_closes_the_session_once_with_a_usual_reason(call: MakeCall) -> None:
    async with call(grace=30) as session:
        alice = await session.join("alice")
        await session.humans(1)
        await session.livekit.room.delete_room(api.DeleteRoomRequest(room=session.room))
        await session.says("SHUTDOWN")
        # LiveKit tells of the human's end or of the room's, whichever it gets to first
        usual = (["CLOSED participant_disconnected"], ["CLOSED user_initiated"])
        assert session.said("CLOSED") in usual
        await session.daemon.until(lambda: session.job.heard("goodbye"))
        await alice.disconnect()


async def test_a_drained_job_ends_when_its_human_leaves(call: MakeCall) -> None:
    async with call(grace=30) as session:
        alice = await session.join("alice")
        await session.humans(1)
        session.job.send(type="drain", timeout=60)
        await alice.local_participant.send_text("still here", topic="lk.chat")
        await session.says("HEARD")
        await alice.disconnect()
        await session.gone()
        assert session.said("CLOSED") == ["CLOSED participant_disconnected"]


@pytest.mark.parametrize(
    ("kind", "end"),
    [
        ("saving", "deleted"),
        ("saving", "removed"),
        ("saving", "not returned"),
        ("closing-saving", "returned"),
    ],
)
async def test_a_job_gives_its_room_back_before_its_script_has_saved_what_was_said(
    call: MakeCall, kind: str, end: str
) -> None:
    """The script's end may take minutes: whoever comes into the room meanwhile needs another job."""
    async with call(kind, grace=30 if end == "returned" else 0.3) as session:
        alice = await session.join("alice")
        await session.humans(1)
        if end == "deleted":
            await session.livekit.room.delete_room(api.DeleteRoomRequest(room=session.room))
        elif end == "removed":
            who = api.RoomParticipantIdentity(room=session.room, identity=str(session.job.hello["identity"]))
            await session.livekit.room.remove_participant(who)
        else:
            await alice.disconnect()
        if end == "returned":
            await session.says("CLOSED")
            alice = await session.join("alice")
        await session.daemon.until(lambda: session.job.heard("goodbye"), timeout=5)
        await session.says("SAVING")
        if end in ("removed", "returned"):
            await eventually(partial(nobody, agents, session.livekit, session.room), timeout=5)
            assert session.said("SHUTDOWN") == []
        # A new daemon is told that it needs nothing of this one.
        await session.daemon.stop()
        await session.daemon.start()
        job_id = session.job.hello["job_id"]
        await session.daemon.until(
            lambda: [p for p in session.daemon.jobs() if p.hello["job_id"] == job_id and p.hello["over"]]
        )
        await alice.disconnect()
