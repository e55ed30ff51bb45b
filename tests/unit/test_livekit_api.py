"""The client against servers that misbehave: every call ends in time, and what is not known is unknown."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from livekit.api import TokenVerifier
from livekit.protocol.agent_dispatch import AgentDispatch
from livekit.protocol.models import ParticipantInfo
from livekit.protocol.models import Room as RoomMessage
from livekit.protocol.room import ListParticipantsResponse, ListRoomsResponse

from supervisor.core.model import ParticipantKind, Unknown
from supervisor.core.ports import Done, Failed, RequestOutcome
from supervisor.events import Event, EventBus, LiveKitRequest
from supervisor.livekit.api import LiveKitClient
from supervisor.livekit.calls import CONCURRENCY

KEY, SECRET = "key", "secret-0123456789abcdef0123456789abcdef"
TIMEOUT = 0.4
AMPLE = 10.0
"""Seconds, for those that answer: a busy machine must not look like a silent server."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Rig:
    """A client, a server that does what the test says, and what was published."""

    def __init__(self, client: LiveKitClient, events: list[Event]) -> None:
        self.client = client
        self.asked: list[str] = []
        self._events = events
        self.handler: Handler = nothing_there

    def told(self) -> list[tuple[str, str]]:
        return [(e.method, e.outcome) for e in self._events if isinstance(e, LiveKitRequest)]

    def requests(self) -> list[LiveKitRequest]:
        return [e for e in self._events if isinstance(e, LiveKitRequest)]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path.rpartition("/")[2])
        return await self.handler(request)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    async with serving(timeout=TIMEOUT) as rig:
        yield rig


@contextlib.asynccontextmanager
async def serving(timeout: float) -> AsyncIterator[Rig]:
    app = web.Application()
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    rig: Rig | None = None

    async def handle(request: web.Request) -> web.StreamResponse:
        assert rig is not None
        return await rig.handle(request)

    app.router.add_route("*", "/{tail:.*}", handle)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    events: list[Event] = []
    bus = EventBus()
    bus.subscribe(events.append)
    client = LiveKitClient(f"ws://127.0.0.1:{port}", KEY, SECRET, timeout, bus)
    rig = Rig(client, events)
    try:
        yield rig
    finally:
        await client.aclose()
        await runner.cleanup()


def protobuf(body: bytes = b"") -> web.Response:
    return web.Response(body=body, content_type="application/protobuf")


def twirp(status: int, code: str, message: str = "") -> web.Response:
    return web.json_response({"code": code, "msg": message}, status=status)


async def nothing_there(request: web.Request) -> web.StreamResponse:
    return protobuf()


def always(make: Callable[[], web.StreamResponse]) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return make()

    return handle


async def black_hole(request: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return protobuf()


async def drip(request: web.Request) -> web.StreamResponse:
    """A byte now and then: no pause is long, and it never ends."""
    response = web.StreamResponse(headers={"Content-Type": "application/protobuf"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        for _ in range(1_000):
            await response.write(b"\x0a")
            await asyncio.sleep(0.05)
    return response


async def hang_up(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.close()
    return protobuf()


# --- what LiveKit's answers mean ----------------------------------------------------------------------


async def test_participants_are_translated_and_those_gone_left_out(rig: Rig) -> None:
    answer = ListParticipantsResponse()
    answer.participants.add(identity="ann", sid="PA_1", joined_at=7, state=ParticipantInfo.State.ACTIVE)
    agent = answer.participants.add(
        identity="agent-1", sid="PA_2", joined_at=7, joined_at_ms=7_500, kind=ParticipantInfo.Kind.AGENT
    )
    agent.attributes["lk.agent_name"] = "A"
    agent.tracks.add(sid="TR_1")
    answer.participants.add(identity="gone", state=ParticipantInfo.State.DISCONNECTED)
    rig.handler = always(lambda: protobuf(answer.SerializeToString()))
    listed = await rig.client.list_participants("room")
    assert not isinstance(listed, Unknown)
    ann, agent_1 = listed
    assert (ann.identity, ann.kind, ann.joined_at_ms, ann.has_track) == (
        "ann",
        ParticipantKind.STANDARD,
        7_000,
        False,
    )
    assert (agent_1.is_agent, agent_1.agent_name, agent_1.joined_at_ms) == (True, "A", 7_500)
    assert agent_1.has_track


async def test_a_kind_of_a_later_version_is_neither_human_nor_agent(rig: Rig) -> None:
    # Field 14 is the kind; protobuf keeps a number that it has no name for.
    answer = ListParticipantsResponse(participants=[ParticipantInfo.FromString(b"\x12\x01x\x70\x63")])
    rig.handler = always(lambda: protobuf(answer.SerializeToString()))
    listed = await rig.client.list_participants("room")
    assert not isinstance(listed, Unknown)
    assert not listed[0].is_human
    assert not listed[0].is_agent


async def test_rooms_and_dispatches_are_translated(rig: Rig) -> None:
    rooms = ListRoomsResponse(
        rooms=[RoomMessage(name="a", sid="RM_1", num_participants=2, departure_timeout=7)]
    )
    rooms.rooms.add(name="b")
    rig.handler = always(lambda: protobuf(rooms.SerializeToString()))
    listed = await rig.client.list_rooms()
    assert not isinstance(listed, Unknown)
    assert [(r.name, r.sid, r.num_participants, r.departure_timeout) for r in listed] == [
        ("a", "RM_1", 2, 7),
        ("b", "", 0, 20),
    ]
    made = AgentDispatch(id="AD_1", agent_name="A", room="room", metadata="m")
    made.state.created_at = 5_000_000
    made.state.jobs.add(id="AJ_1")
    rig.handler = always(lambda: protobuf(made.SerializeToString()))
    dispatch = await rig.client.create_dispatch("room", "A", "m")
    assert not isinstance(dispatch, Failed)
    assert (dispatch.id, dispatch.created_at_ms, dispatch.job_ids) == ("AD_1", 5, ("AJ_1",))


ANSWERS = [
    (always(lambda: twirp(401, "unauthenticated")), RequestOutcome.UNAUTHORIZED),
    (always(lambda: web.Response(status=401)), RequestOutcome.UNAUTHORIZED),
    (always(lambda: twirp(403, "permission_denied")), RequestOutcome.UNAUTHORIZED),
    (always(lambda: twirp(503, "unavailable", "no response from servers")), RequestOutcome.UNAVAILABLE),
    (always(lambda: web.Response(status=502, text="<html>Bad Gateway")), RequestOutcome.UNAVAILABLE),
    (always(lambda: twirp(429, "resource_exhausted")), RequestOutcome.UNAVAILABLE),
    (always(lambda: twirp(408, "deadline_exceeded")), RequestOutcome.TIMEOUT),
    (always(lambda: twirp(500, "internal")), RequestOutcome.ERROR),
    (always(lambda: twirp(400, "invalid_argument")), RequestOutcome.ERROR),
    (always(lambda: web.Response(status=404, text="no such page")), RequestOutcome.ERROR),
    (always(lambda: twirp(404, "bad_route")), RequestOutcome.ERROR),
    (always(lambda: web.Response(text="OK")), RequestOutcome.ERROR),
    (always(lambda: web.Response(text="<html>Welcome", content_type="text/html")), RequestOutcome.ERROR),
    (always(lambda: protobuf(b"\xff\xff")), RequestOutcome.ERROR),
    (always(lambda: web.json_response(["not", "an object"], status=500)), RequestOutcome.ERROR),
    (hang_up, RequestOutcome.UNAVAILABLE),
    (black_hole, RequestOutcome.TIMEOUT),
    (drip, RequestOutcome.TIMEOUT),
]


@pytest.mark.parametrize(("handler", "outcome"), ANSWERS)
async def test_whatever_goes_wrong_is_unknown_and_told(handler: Handler, outcome: RequestOutcome) -> None:
    async with serving(timeout=TIMEOUT if outcome is RequestOutcome.TIMEOUT else AMPLE) as rig:
        rig.handler = handler
        reads = (
            rig.client.list_rooms(),
            rig.client.list_participants("room"),
            rig.client.list_dispatches("room"),
        )
        writes = (
            rig.client.remove_participant("room", "ann"),
            rig.client.create_dispatch("room", "A", ""),
            rig.client.delete_dispatch("room", "AD_1"),
            rig.client.ping(),
        )
        for read in reads:
            unknown = await read
            assert isinstance(unknown, Unknown)
            assert unknown.reason.startswith(outcome), unknown.reason
        for write in writes:
            failed = await write
            assert isinstance(failed, Failed)
            assert failed.outcome is outcome, failed.message
        assert {told for _, told in rig.told()} == {outcome}
        for request in rig.requests():
            assert request.error


async def test_not_found_is_a_fact(rig: Rig) -> None:
    rig.handler = always(lambda: twirp(404, "not_found", "requested room does not exist"))
    assert await rig.client.list_participants("room") == ()
    assert await rig.client.list_dispatches("room") == ()
    assert await rig.client.remove_participant("room", "ann") == Done(RequestOutcome.NOT_FOUND)
    assert await rig.client.delete_dispatch("room", "AD_1") == Done(RequestOutcome.NOT_FOUND)
    failed = await rig.client.create_dispatch("room", "A", "")
    assert isinstance(failed, Failed)
    assert failed.outcome is RequestOutcome.NOT_FOUND


async def test_each_call_is_published_once_by_its_name(rig: Rig) -> None:
    await rig.client.list_rooms()
    await rig.client.list_participants("room")
    await rig.client.list_dispatches("room")
    await rig.client.remove_participant("room", "ann")
    await rig.client.create_dispatch("room", "A", "")
    await rig.client.delete_dispatch("room", "AD_1")
    assert rig.told() == [
        (method, "ok")
        for method in (
            "list_rooms",
            "list_participants",
            "list_dispatches",
            "remove_participant",
            "create_dispatch",
            "delete_dispatch",
        )
    ]
    assert all(0 <= request.seconds < 5 for request in rig.requests())


# --- time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", [black_hole, drip])
async def test_a_call_ends_in_time(rig: Rig, handler: Handler) -> None:
    rig.handler = handler
    started = time.monotonic()
    await rig.client.create_dispatch("room", "A", "")
    assert TIMEOUT * 0.9 < time.monotonic() - started < TIMEOUT + 1


async def test_a_long_time_out_is_not_rounded_up() -> None:
    """aiohttp rounds what is over 5 s up to whole seconds."""
    async with serving(timeout=5.05) as rig:
        rig.handler = black_hole
        started = time.monotonic()
        await rig.client.list_rooms()
        assert time.monotonic() - started < 5.6


@pytest.mark.parametrize("handler", [always(lambda: web.Response(status=503)), black_hole])
async def test_a_write_is_sent_once(rig: Rig, handler: Handler) -> None:
    rig.handler = handler
    await rig.client.create_dispatch("room", "A", "")
    assert rig.asked == ["CreateDispatch"]


async def test_a_token_is_used_again_for_its_room_and_gives_no_right_to_another(rig: Rig) -> None:
    tokens: list[str] = []

    async def note(request: web.Request) -> web.StreamResponse:
        tokens.append(request.headers["Authorization"].removeprefix("Bearer "))
        return protobuf()

    rig.handler = note
    await rig.client.list_participants("one")
    await rig.client.list_dispatches("one")
    await rig.client.list_participants("two")
    await rig.client.list_rooms()
    one, again, two, rooms = tokens
    assert again == one
    grants = [TokenVerifier(KEY, SECRET).verify(token).video for token in (one, two, rooms)]
    assert [(g.room, bool(g.room_admin), bool(g.room_list)) for g in grants if g is not None] == [
        ("one", True, False),
        ("two", True, False),
        ("", False, True),
    ]


async def test_calls_do_not_wait_for_one_another() -> None:
    async with serving(timeout=5.0) as rig:
        together = asyncio.Barrier(CONCURRENCY)

        async def all_at_once(request: web.Request) -> web.StreamResponse:
            await together.wait()
            return protobuf()

        rig.handler = all_at_once
        calls = [rig.client.list_participants("room") for _ in range(CONCURRENCY)]
        assert await asyncio.gather(*calls) == [()] * CONCURRENCY


async def test_a_cancelled_call_is_cancelled_and_not_published(rig: Rig) -> None:
    asked = asyncio.Event()

    async def note_and_keep(request: web.Request) -> web.StreamResponse:
        asked.set()
        return await black_hole(request)

    rig.handler = note_and_keep
    call = asyncio.create_task(rig.client.list_participants("room"))
    await asked.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert rig.told() == []


# --- a room without a node ----------------------------------------------------------------------------


def without_node(rooms: ListRoomsResponse) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/ListRooms"):
            return protobuf(rooms.SerializeToString())
        await asyncio.sleep(1.0)
        return twirp(503, "unavailable", "no response from servers")

    return handle


async def test_a_room_that_is_not_listed_is_missing_before_the_503_comes() -> None:
    async with serving(timeout=5.0) as rig:
        rig.handler = without_node(ListRoomsResponse())
        started = time.monotonic()
        assert await rig.client.list_participants("room") == ()
        assert await rig.client.list_dispatches("room") == ()
        assert await rig.client.delete_dispatch("room", "AD_1") == Done(RequestOutcome.NOT_FOUND)
        assert time.monotonic() - started < 2.5
        assert rig.told() == [
            ("list_rooms", "ok"),
            ("list_participants", "not_found"),
            ("list_rooms", "ok"),
            ("list_dispatches", "not_found"),
            ("list_rooms", "ok"),
            ("delete_dispatch", "not_found"),
        ]


async def test_a_room_that_is_listed_and_does_not_answer_is_unknown() -> None:
    async with serving(timeout=5.0) as rig:
        rig.handler = without_node(ListRoomsResponse(rooms=[RoomMessage(name="room")]))
        participants = await rig.client.list_participants("room")
        assert isinstance(participants, Unknown)
        assert "no node of LiveKit serves this room, which it lists: status 503" in participants.reason
        assert isinstance(await rig.client.list_dispatches("room"), Unknown)
        assert isinstance(await rig.client.delete_dispatch("room", "AD_1"), Failed)


async def test_a_list_proves_nothing_when_it_could_not_be_read_a_moment_ago() -> None:
    """LiveKit's Redis came back, and is empty."""
    async with serving(timeout=5.0) as rig:
        rig.handler = always(lambda: twirp(500, "unknown", "could not get rooms: connection refused"))
        assert isinstance(await rig.client.list_rooms(), Unknown)
        rig.handler = without_node(ListRoomsResponse())
        assert isinstance(await rig.client.list_participants("room"), Unknown)


async def test_a_slow_answer_counts_more_than_a_list_without_the_room() -> None:
    """The list may lag behind."""
    async with serving(timeout=5.0) as rig:
        answer = ListParticipantsResponse(participants=[ParticipantInfo(identity="ann")])

        async def slow(request: web.Request) -> web.StreamResponse:
            if request.path.endswith("/ListRooms"):
                await asyncio.sleep(0.4)
                return protobuf()
            await asyncio.sleep(0.7)
            return protobuf(answer.SerializeToString())

        rig.handler = slow
        listed = await rig.client.list_participants("room")
        assert not isinstance(listed, Unknown)
        assert [p.identity for p in listed] == ["ann"]


# --- addresses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["", "127.0.0.1:7880", "ftp://127.0.0.1", "file:///etc/passwd"])
def test_other_addresses_are_refused(url: str) -> None:
    with pytest.raises(ValueError, match="ws://"):
        LiveKitClient(url, KEY, SECRET, 1.0, EventBus())


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "ws://127.0.0.1:1", "wss://127.0.0.1:1", "http://nowhere.invalid:7880"]
)
async def test_nobody_there_is_unavailable(url: str) -> None:
    client = LiveKitClient(url, KEY, SECRET, 5.0, EventBus())
    failed = await client.ping()
    await client.aclose()
    assert isinstance(failed, Failed)
    assert failed.outcome is RequestOutcome.UNAVAILABLE


async def test_a_password_in_the_address_is_not_told() -> None:
    events: list[Event] = []
    bus = EventBus()
    bus.subscribe(events.append)
    client = LiveKitClient("http://user:hunter2@127.0.0.1:1", KEY, SECRET, 5.0, bus)
    failed = await client.ping()
    await client.aclose()
    assert "hunter2" not in repr(failed) + repr(events)


async def test_after_its_end_it_answers_still() -> None:
    client = LiveKitClient("http://127.0.0.1:1", KEY, SECRET, 5.0, EventBus())
    await client.ping()
    await client.aclose()
    assert isinstance(await client.ping(), Failed)
