"""The model's own tests: what only a model can do (faults, restarts, an all-seeing observer).

What it shares with the real server is tested on both, in tests/livekit/test_contract.py.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from supervisor.core.model import Dispatch, Participant, Unknown
from supervisor.core.ports import Done, Failed, RequestOutcome
from supervisor.events import Event, EventBus, LiveKitRequest
from tests.simulation import virtual_time
from tests.simulation.model_facts import DEPARTURE_TIMEOUT, GHOST_SECONDS, NO_RESPONSE_SECONDS
from tests.simulation.model_faults import ApiFaults, Fault, FaultWindow, WebhookFaults
from tests.simulation.model_ports import Offer, Verdict, Why
from tests.simulation.model_workers import DaemonAway, ModelJob, ModelWorker
from tests.simulation.model_world import World

Story = Callable[[World], Awaitable[None]]


def play(story: Story, seed: int = 1, **settings: object) -> None:
    async def main() -> None:
        await story(World(random.Random(seed), **settings))  # type: ignore[arg-type]

    virtual_time.run(main())


class RecordingGuard:
    """Grants the first job of each room, and remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.holders: dict[str, str] = {}

    def registered(self, worker: ModelWorker) -> None:
        self.told.append("registered")

    def unregistered(self, worker: ModelWorker) -> None:
        self.told.append("unregistered")

    def worker_lost(self, worker: ModelWorker) -> None:
        self.told.append("worker_lost")

    def request(self, worker: ModelWorker, offer: Offer, identity: str) -> Verdict:
        granted = self.holders.setdefault(offer.room, offer.job_id) == offer.job_id
        self.told.append("granted" if granted else "held")
        return Verdict.ACCEPT if granted else Verdict.REJECT

    def hello(self, job: ModelJob) -> bool:
        self.told.append("hello")
        return True

    def joined(self, job: ModelJob) -> None:
        self.told.append("joined")

    def census(self, job: ModelJob, humans: int, agents: int) -> None:
        pass

    def goodbye(self, job: ModelJob, reason: str) -> None:
        self.holders.pop(job.room, None)
        self.told.append("goodbye")

    def job_lost(self, job: ModelJob) -> None:
        self.holders.pop(job.room, None)
        self.told.append("job_lost")


# --- guards and workers -------------------------------------------------------------------------------


def test_a_guard_is_asked_and_told() -> None:
    async def story(world: World) -> None:
        guard = RecordingGuard()
        worker = world.worker("agent-1", "A", guard)
        await asyncio.sleep(1)
        world.human("room", "ann", agents=("A",))
        await asyncio.sleep(1)
        assert len(world.audible("room")) == 1
        await world.livekit.create_dispatch("room", "A", "")
        await asyncio.sleep(1)
        assert len(world.audible("room")) == 1, "the second one was refused"
        worker.kill()
        assert guard.told == ["registered", "granted", "hello", "joined", "held", "job_lost", "worker_lost"]

    play(story)


def test_a_worker_takes_part_again_after_a_restart() -> None:
    async def story(world: World) -> None:
        worker = world.worker("agent-1", "A")
        await asyncio.sleep(1)
        worker.kill()
        worker.start(3)
        with pytest.raises(AssertionError, match="second process"):
            worker.start()
        await asyncio.sleep(4)
        world.human("room", "ann", agents=("A",))
        await asyncio.sleep(1)
        assert len(world.audible("room")) == 1

    play(story)


def test_without_a_daemon_the_guard_looks_itself_and_jobs_speak_up_when_it_is_back() -> None:
    async def story(world: World) -> None:
        worker = world.worker("agent-1", "A", DaemonAway(world.server))
        await asyncio.sleep(1)
        world.human("room", "ann", agents=("A",))
        await asyncio.sleep(1)
        await world.livekit.create_dispatch("room", "A", "")
        await asyncio.sleep(1)
        assert len(world.audible("room")) == 1
        guard = RecordingGuard()
        worker.meet(guard)
        assert guard.told == ["registered", "hello", "joined"]

    play(story)


def test_a_frozen_job_is_listed_silent_and_deaf() -> None:
    async def story(world: World) -> None:
        world.worker("agent-1", "A", RecordingGuard())
        await asyncio.sleep(1)
        world.human("room", "ann", agents=("A",))
        await asyncio.sleep(1)
        [job] = world.jobs()
        job.freeze()
        job.leave("told by the daemon")
        await asyncio.sleep(60)
        assert len(await listed(world, "room")) == 2
        assert world.audible("room") == ()
        assert world.processes.kill(job.process.pid, job.process.create_time)
        await asyncio.sleep(GHOST_SECONDS + 1)
        assert len(await listed(world, "room")) == 1

    play(story)


def test_the_daemon_may_not_notice_a_death() -> None:
    async def story(world: World) -> None:
        guard = RecordingGuard()
        worker = world.worker("agent-1", "A", guard)
        noticed: list[str] = []
        assert worker.process is not None
        world.processes.watch(worker.process.pid, lambda: noticed.append("death"))
        worker.kill(told=False)
        await asyncio.sleep(1)
        assert "worker_lost" not in guard.told
        assert not noticed

    play(story)


def test_a_job_that_fails_never_joins() -> None:
    async def story(world: World) -> None:
        guard = RecordingGuard()
        world.worker("agent-1", "A", guard).failing_jobs = 1
        await asyncio.sleep(1)
        world.human("room", "ann", agents=("A",))
        await asyncio.sleep(5)
        assert guard.told == ["registered", "granted", "job_lost"]
        assert world.outstanding("room") == ()

    play(story)


def test_a_guarded_job_waits_for_its_human_an_unguarded_one_closes_its_session() -> None:
    async def story(world: World) -> None:
        world.worker("agent-1", "A", RecordingGuard()).human_return_grace = 10
        world.worker("agent-2", "B")
        await asyncio.sleep(1)
        people = [world.human("a", "ann", agents=("A",)), world.human("b", "bob", agents=("B",))]
        await asyncio.sleep(1)
        for human in people:
            human.leave()
        await asyncio.sleep(5)
        for human in people:
            human.join()
        await asyncio.sleep(1)
        assert len(world.audible("a")) == 1
        assert world.audible("b") == ()
        assert len(await listed(world, "b")) == 2
        people[0].leave()
        await asyncio.sleep(11)
        assert await listed(world, "a") == ()

    play(story)


# --- LiveKit goes and comes ---------------------------------------------------------------------------


def test_a_restart_may_end_with_two_agents_where_nobody_guards() -> None:
    """With automatic dispatch and 5 s of down time, as in 2 of 3 trials on the real server."""
    ended_with: list[int] = []

    async def story(world: World) -> None:
        world.worker("agent-1", "")
        await asyncio.sleep(1)
        human = world.human("room", "ann")
        await asyncio.sleep(1)
        await world.restart_livekit(down=5)
        await asyncio.sleep(60)
        assert human.present
        ended_with.append(len(world.audible("room")))

    for seed in range(30):
        play(story, seed)
    assert set(ended_with) == {1, 2}


def test_those_who_do_not_come_back_do_not() -> None:
    async def story(world: World) -> None:
        guard = RecordingGuard()
        world.worker("agent-1", "A", guard)
        await asyncio.sleep(1)
        world.human("room", "ann", agents=("A",), comes_back=False)
        await asyncio.sleep(1)
        [job] = world.jobs()
        job.comes_back = False
        await world.restart_livekit(down=1)
        await asyncio.sleep(60)
        assert await listed(world, "room") == ()
        assert job.alive
        assert "unregistered" in guard.told

    play(story)


def test_a_long_absence_ends_jobs_and_then_workers() -> None:
    async def story(world: World) -> None:
        guard = RecordingGuard()
        worker = world.worker("agent-1", "A", guard)
        await asyncio.sleep(1)
        world.human("room", "ann", agents=("A",))
        await asyncio.sleep(1)
        world.crash_livekit()
        assert world.audible("room") == ()
        await asyncio.sleep(100)
        assert "goodbye" in guard.told
        assert worker.alive
        await asyncio.sleep(100)
        assert not worker.alive

    play(story)


def test_with_redis_a_room_outlives_its_node_and_nobody_answers_for_it() -> None:
    async def story(world: World) -> None:
        human = world.human("room", "ann", comes_back=False)
        await asyncio.sleep(1)
        assert human.present
        await world.restart_livekit(down=1, forget=False)
        rooms = await world.livekit.list_rooms()
        assert not isinstance(rooms, Unknown)
        assert [room.name for room in rooms] == ["room"]
        started = asyncio.get_running_loop().time()
        assert isinstance(await world.livekit.list_participants("room"), Unknown)
        assert asyncio.get_running_loop().time() - started > NO_RESPONSE_SECONDS
        world.human("room", "bob")
        assert [p.identity for p in await listed(world, "room")] == ["bob"]

    play(story)


# --- calls that go wrong ------------------------------------------------------------------------------

OUTCOMES = {
    Fault.TIMEOUT: RequestOutcome.TIMEOUT,
    Fault.ANSWER_LOST: RequestOutcome.TIMEOUT,
    Fault.REFUSED: RequestOutcome.UNAVAILABLE,
    Fault.UNAVAILABLE: RequestOutcome.UNAVAILABLE,
    Fault.UNAUTHORIZED: RequestOutcome.UNAUTHORIZED,
    Fault.ERROR: RequestOutcome.ERROR,
}


@pytest.mark.parametrize(("fault", "outcome"), OUTCOMES.items())
def test_a_call_that_goes_wrong_is_told_and_published(fault: Fault, outcome: RequestOutcome) -> None:
    events: list[Event] = []
    bus = EventBus()
    bus.subscribe(events.append)

    async def story(world: World) -> None:
        world.human("room", "ann")
        await asyncio.sleep(1)
        world.api_faults.once.append(("create_dispatch", fault))
        answer = await world.livekit.create_dispatch("room", "A", "")
        assert isinstance(answer, Failed)
        assert answer.outcome is outcome
        [write] = world.livekit.writes
        assert write.done is (fault is Fault.ANSWER_LOST)
        made = await world.livekit.list_dispatches("room")
        assert not isinstance(made, Unknown)
        assert [d.agent_name for d in made] == (["", "A"] if write.done else [""])
        [told] = [e for e in events if isinstance(e, LiveKitRequest) and e.method == "create_dispatch"]
        assert told.outcome == outcome

    play(story, bus=bus)


def test_a_fault_window_opens_and_closes() -> None:
    async def story(world: World) -> None:
        now = asyncio.get_running_loop().time()
        world.api_faults.windows.append(
            FaultWindow(Fault.UNAUTHORIZED, now + 10, now + 20, methods=frozenset({"list_participants"}))
        )
        assert await world.livekit.list_participants("room") == ()
        await asyncio.sleep(11)
        assert isinstance(await world.livekit.list_participants("room"), Unknown)
        assert await world.livekit.list_rooms() == ()
        await asyncio.sleep(10)
        assert await world.livekit.list_participants("room") == ()

    play(story)


def test_a_slow_call_works() -> None:
    async def story(world: World) -> None:
        world.api_faults.once.append(("create_dispatch", Fault.SLOW))
        assert isinstance(await world.livekit.create_dispatch("room", "A", ""), Dispatch)

    play(story)


def test_stale_reads_show_the_past() -> None:
    async def story(world: World) -> None:
        world.human("room", "ann")
        await asyncio.sleep(5)
        world.human("room", "bob")
        seen = {len(await listed(world, "room")) for _ in range(20)}
        assert seen == {1, 2}
        await asyncio.sleep(2)
        assert {len(await listed(world, "room")) for _ in range(20)} == {2}

    play(story, api_faults=ApiFaults(stale=0.5))


def test_removals_say_what_was_lost() -> None:
    async def story(world: World) -> None:
        world.human("room", "ann")
        agents = [world.loose_agent("room", "one"), world.loose_agent("room", "two")]
        world.avatar("room", "face", on_behalf_of="one")
        await asyncio.sleep(1)
        assert world.audible("room") == ("one", "two")
        for identity in ("one", "face", "nobody", "two"):
            await world.livekit.remove_participant("room", identity)
        told = [(r.identity, r.is_avatar, r.was_audible, r.others_audible) for r in world.livekit.removals]
        assert told == [
            ("one", False, True, ("two",)),
            ("face", True, False, ("two",)),
            ("two", False, True, ()),
        ]
        assert [agent.put_out_because for agent in agents] == [[Why.REMOVED], [Why.REMOVED]]

    play(story)


# --- webhooks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("faults", "least", "most"),
    [
        (WebhookFaults(), 60, 60),
        (WebhookFaults(lost=1.0), 0, 0),
        (WebhookFaults(lost=0.5), 15, 45),
        (WebhookFaults(doubled=1.0), 120, 120),
    ],
)
def test_webhooks_are_lost_and_doubled(faults: WebhookFaults, least: int, most: int) -> None:
    heard: list[str] = []

    async def story(world: World) -> None:
        for number in range(20):
            world.human(f"room-{number}", "ann")
        await asyncio.sleep(60)

    play(story, webhook=lambda event, room, sid: heard.append(room), webhook_faults=faults)
    assert least <= len(heard) <= most


def test_late_webhooks_are_out_of_order_and_a_crash_loses_them() -> None:
    heard: list[str] = []

    async def story(world: World) -> None:
        world.human("room", "ann")
        await asyncio.sleep(40)
        assert sorted(heard) == ["participant_joined", "room_started", "track_published"]
        heard.clear()
        world.human("other", "bob")
        world.crash_livekit()
        await asyncio.sleep(0.001)
        assert heard == []

    play(story, webhook=lambda event, room, sid: heard.append(event), webhook_faults=WebhookFaults(late=1.0))


# --- what is observed ---------------------------------------------------------------------------------


def test_the_observer_measures_doubles_and_silence() -> None:
    async def story(world: World) -> None:
        world.human("room", "ann")
        await asyncio.sleep(10)
        one = world.loose_agent("room", "one")
        await asyncio.sleep(10)
        world.loose_agent("room", "two")
        await asyncio.sleep(3)
        one.leave()
        await asyncio.sleep(10)
        [doubled], [silent] = world.observer.doubled, world.observer.silent
        assert doubled.seconds == pytest.approx(3, abs=0.1)
        assert silent.seconds == pytest.approx(10, abs=0.1)
        assert world.observer.most == {"room": 2}

    play(story)


def test_without_a_human_nobody_hears_anything() -> None:
    async def story(world: World) -> None:
        human = world.human("room", "ann")
        world.loose_agent("room", "one")
        await asyncio.sleep(1)
        human.die()
        world.loose_agent("room", "two")
        await asyncio.sleep(GHOST_SECONDS + DEPARTURE_TIMEOUT + 5)
        world.observer.finish()
        assert not world.observer.doubled
        assert not world.server.rooms, "agents alone do not keep a room"

    play(story)


def test_outstanding_dispatches_are_those_that_may_still_bring_somebody() -> None:
    async def story(world: World) -> None:
        world.worker("agent-1", "A")
        await asyncio.sleep(1)
        world.human("room", "ann", agents=("A", "B"))
        await asyncio.sleep(0.3)
        assert [d.agent_name for d in world.outstanding("room")] == ["A"], "nobody will ever come for B"
        await asyncio.sleep(1)
        assert world.outstanding("room") == ()

    play(story)


def test_the_same_seed_gives_the_same_run() -> None:
    def history(seed: int) -> list[tuple[float, str]]:
        seen: list[tuple[float, str]] = []

        async def story(world: World) -> None:
            world.webhook = lambda event, room, sid: seen.append((asyncio.get_running_loop().time(), event))
            world.worker("agent-1", "")
            for number in range(10):
                world.human(f"room-{number % 3}", f"human-{number}")
                await asyncio.sleep(world.rng.uniform(0, 2))
            await world.restart_livekit(down=2)
            await asyncio.sleep(100)

        play(story, seed, webhook_faults=WebhookFaults(lost=0.1, doubled=0.1, late=0.2))
        return seen

    assert history(1) == history(1)
    assert history(1) != history(2)


async def listed(world: World, room: str) -> tuple[Participant, ...]:
    participants = await world.livekit.list_participants(room)
    assert not isinstance(participants, Unknown)
    return participants


def test_a_done_is_a_done() -> None:
    async def story(world: World) -> None:
        assert await world.livekit.delete_dispatch("no room", "AD_1") == Done(RequestOutcome.NOT_FOUND)

    play(story)
