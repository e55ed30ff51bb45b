"""LiveKit is away when it cannot say what rooms it has, and back with the first good answer."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from supervisor.core.ports import RequestOutcome
from supervisor.events import (
    Event,
    EventBus,
    LiveKitDown,
    LiveKitRequest,
    LiveKitUp,
    WorkerRegistrationLost,
)
from supervisor.reconcile.health import LOOKS, PROBE, Doubt, LiveKitHealth


def ask(bus: EventBus, method: str, outcome: RequestOutcome) -> None:
    bus.publish(LiveKitRequest(method=method, outcome=outcome, seconds=0.1, error=""))


@pytest.mark.parametrize(
    "outcome", sorted(set(RequestOutcome) - {RequestOutcome.OK, RequestOutcome.NOT_FOUND})
)
def test_a_list_that_failed_says_no_and_one_good_answer_yes(outcome: RequestOutcome) -> None:
    bus, told, back = EventBus(), list[Event](), list[float]()
    bus.subscribe(lambda e: told.append(e) if isinstance(e, LiveKitUp | LiveKitDown) else None)
    health = LiveKitHealth("ws://here", bus, lambda: 5.0)
    health.on_back(lambda: back.append(health.since))
    ask(bus, PROBE, outcome)
    ask(bus, PROBE, outcome)
    assert (health.up, health.error) == (False, outcome)
    ask(bus, "list_participants", RequestOutcome.NOT_FOUND)
    assert (health.up, health.error, back) == (True, "", [5.0])
    assert [type(e) for e in told] == [LiveKitDown, LiveKitUp]


def test_a_room_that_does_not_answer_says_nothing_about_the_server() -> None:
    bus = EventBus()
    health = LiveKitHealth("ws://here", bus, lambda: 5.0)
    ask(bus, PROBE, RequestOutcome.OK)
    ask(bus, "list_participants", RequestOutcome.UNAVAILABLE)
    assert health.is_up()


def test_a_server_that_we_start_ourselves_may_be_silent_at_first() -> None:
    now, bus, told = [0.0], EventBus(), list[Event]()
    bus.subscribe(lambda e: told.append(e) if isinstance(e, LiveKitUp | LiveKitDown) else None)
    health = LiveKitHealth("ws://here", bus, lambda: now[0], starts_until=10.0)
    ask(bus, PROBE, RequestOutcome.UNAVAILABLE)
    assert (health.is_up(), health.error, told) == (False, "unavailable", [])
    now[0] = 10.0
    ask(bus, PROBE, RequestOutcome.UNAVAILABLE)
    assert [type(e) for e in told] == [LiveKitDown]
    ask(bus, PROBE, RequestOutcome.OK)
    now[0] = 9.0
    ask(bus, PROBE, RequestOutcome.UNAVAILABLE)
    assert [type(e) for e in told] == [LiveKitDown, LiveKitUp, LiveKitDown], "once it was there, it is missed"


@pytest.mark.parametrize("away", [True, False])
async def test_a_worker_cut_off_from_livekit_makes_it_doubtful(away: bool) -> None:
    """Asked at once, until it is known to be back; where it never was away, a few times."""
    bus, asked, enough = EventBus(), list[RequestOutcome](), asyncio.Event()
    health = LiveKitHealth("ws://here", bus, lambda: 5.0)
    ask(bus, PROBE, RequestOutcome.OK)

    async def answer() -> None:
        gone = away and len(asked) < 2
        asked.append(RequestOutcome.UNAVAILABLE if gone else RequestOutcome.OK)
        ask(bus, PROBE, asked[-1])
        if len(asked) == (3 if away else LOOKS):
            enough.set()

    doubt = asyncio.create_task(Doubt(health, answer, bus).run())
    await asyncio.sleep(0)
    assert asked == []
    bus.publish(WorkerRegistrationLost(agent_id="a", pid=1))
    async with asyncio.timeout(20):
        await enough.wait()
    assert (health.is_up(), health.since) == (True, 5.0 if away else 0.0)
    doubt.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await doubt
