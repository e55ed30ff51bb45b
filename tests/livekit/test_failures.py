"""What breaks during a call, and when the caller hears an agent again; each time is printed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from supervisor.cli.human import Human
from tests import leaks
from tests.livekit.stand import AGENTS, SOON, Stand, becomes, standing
from tests.livekit.supervised import voice
from tests.scale import times

ROUNDS = times(test=1, soak=5)
HEARTBEAT = 3.0
KILL = 1.0
START = 40.0
"""Seconds that two shared cores may take to start a worker."""
GAP = 2.0
"""Seconds of silence that are one: two shared cores stutter for less."""

pytestmark = [pytest.mark.soak, pytest.mark.timeout(90 + 60 * ROUNDS)]


def fragile(id: str = "agent-66", **changes: Any) -> dict[str, Any]:
    """Can be told to hang or to die; what hangs is known to hang after ``HEARTBEAT`` seconds."""
    return voice(
        id=id,
        script=str(AGENTS / "fragile_voice.py"),
        heartbeat={"interval": "500ms", "timeout": f"{HEARTBEAT}s"},
        stop={"drain": "2s", "kill": f"{KILL}s"},
        **changes,
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stand]:
    """For those whose worker and daemon live through it."""
    async with standing(tmp_path_factory.mktemp("shared"), fragile()) as stand:
        yield stand
    assert await leaks.leaked_tasks(grace=2) == []


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    async with standing(tmp_path, fragile()) as stand:
        yield stand


@pytest.fixture
async def twofold(tmp_path: Path) -> AsyncIterator[Stand]:
    """Two guarded workers of one name."""
    async with standing(tmp_path, fragile("one"), fragile("two")) as stand:
        yield stand


def now() -> float:
    return asyncio.get_running_loop().time()


@contextlib.asynccontextmanager
async def call(stand: Stand, room: str) -> AsyncIterator[tuple[Human, str]]:
    """A human who talks, and the identity of the agent that they hear."""
    async with stand.human(room) as human:
        human.talk()
        assert await human.wait_settled(SOON, steady=0.5), stand.daemon.tail()
        yield human, human.agents.present()[0]
    await stand.end(room)


async def audible_again(stand: Stand, human: Human, lost: str, since: float, within: float) -> float:
    """Seconds until another agent than the lost one was heard, which is then the only one."""
    heard = await human.wait_audible(within, since=since, other_than={lost})
    assert heard is not None, stand.daemon.tail()
    assert await human.wait_settled(SOON, steady=1.0), stand.daemon.tail()
    assert human.agents.present() != (lost,)
    assert human.agents.two_at_once(since) == 0.0
    return heard - since


def measured(what: str, seconds: float) -> None:
    print(f"measured: {what}: {seconds:.2f} s")


def undisturbed(human: Human, agent: str, since: float) -> float:
    """The longest silence; the human heard this agent and nobody else, without a gap."""
    assert human.agents.present() == (agent,)
    assert human.agents.most_present(since) == 1
    silence = human.agents.longest_silence(since)
    seconds = 0.0 if silence is None else silence.seconds
    assert seconds < GAP
    return seconds


# --- a job ----------------------------------------------------------------------------------------


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("how", "cause", "within"), [("hang", "hung_job", HEARTBEAT + 20.0), ("die", "job_death", 20.0)]
)
async def test_a_job_that_hangs_or_dies_is_replaced_and_costs_nobody_else(
    shared: Stand, how: str, cause: str, within: float
) -> None:
    before = await shared.daemon.agent()
    counted = await shared.daemon.metric("recovery_seconds_count", {"cause": cause})
    async with call(shared, f"beside-{how}") as (bystander, undisturbed_agent):
        start = now()
        for number in range(ROUNDS):
            async with call(shared, f"{how}-{number}") as (human, agent):
                since = now()
                await shared.tell_agent(human.room, "break", how)
                took = await audible_again(shared, human, agent, since, within)
                measured(f"{cause}: audible again after", took)
        undisturbed(bystander, undisturbed_agent, start)
    after = await shared.daemon.agent()
    assert (after["pid"], after["restarts"]) == (before["pid"], 0)
    recovered = await shared.daemon.metric("recovery_seconds_count", {"cause": cause})
    assert recovered - counted == ROUNDS
    if how == "hang":
        hung = {"kind": "hung_job", "resolution": "terminated"}
        assert await shared.daemon.metric("conflicts_total", hung) == ROUNDS
        timed = await shared.daemon.metric("conflict_resolution_seconds_count", {"kind": "hung_job"})
        assert timed == ROUNDS
    assert await shared.daemon.metric("conflicts_unresolved") == 0


# --- the worker -----------------------------------------------------------------------------------


async def test_a_stopped_worker_is_replaced(stand: Stand) -> None:
    """Its job plays on until it goes with its worker; then a new one comes."""
    for number in range(ROUNDS):
        async with call(stand, f"stopped-{number}") as (human, agent):
            before = await stand.daemon.agent()
            assert before["pid"] is not None
            since = now()
            os.kill(before["pid"], signal.SIGSTOP)
            took = await audible_again(stand, human, agent, since, HEARTBEAT + KILL + START)
            measured("stopped worker: another agent is heard after", took)
            silence = human.agents.longest_silence(since)
            measured("stopped worker: silence", silence.seconds if silence else 0.0)
            after = await stand.daemon.agent()
            assert after["pid"] not in (None, before["pid"])
    assert await stand.daemon.metric("agent_restarts_total", {"reason": "hung"}) == ROUNDS
    assert await stand.daemon.metric("conflicts_unresolved") == 0


async def test_a_worker_stopped_for_a_moment_is_left_alone(stand: Stand) -> None:
    async with call(stand, "moment") as (human, agent):
        before = await stand.daemon.agent()
        assert before["pid"] is not None
        since = now()
        os.kill(before["pid"], signal.SIGSTOP)
        await asyncio.sleep(HEARTBEAT / 2)
        os.kill(before["pid"], signal.SIGCONT)
        await asyncio.sleep(HEARTBEAT)
        undisturbed(human, agent, since)
        assert (await stand.daemon.agent())["pid"] == before["pid"]


# --- the daemon -----------------------------------------------------------------------------------

DUPLICATES = 5


async def test_without_the_daemon_guards_refuse_duplicates_and_calls_go_on(twofold: Stand) -> None:
    stand = twofold
    async with call(stand, "old") as (human, agent):
        since = now()
        await stand.daemon.kill()
        for _ in range(DUPLICATES):
            await stand.dispatch("old")
        await becomes(partial(refused_by_guards, stand, "old", DUPLICATES), what="all are refused")
        async with call(stand, "new") as (newcomer, newcomers_agent):
            await stand.dispatch("new")
            await becomes(partial(refused_by_guards, stand, "new", 1), what="the second is refused")
            down = now() - since
            await stand.daemon.start()
            await becomes(partial(one_dispatch, stand, "old"), what="what was refused is deleted")
            await becomes(partial(one_dispatch, stand, "new"), what="what was refused is deleted")
            assert await newcomer.wait_settled(SOON, steady=1.0), stand.daemon.tail()
            assert newcomer.agents.present() == (newcomers_agent,)
            await holds(stand, "new", newcomers_agent)
        await holds(stand, "old", agent)
        silence = undisturbed(human, agent, since)
        measured(f"daemon away for {down:.1f} s: longest silence", silence)
        assert stand.relay.agents("old") == {agent}
        # While the daemon was away, LiveKit was told 502, and tries again after longer and longer pauses.
        await becomes(partial(came_alone, stand, "new", newcomers_agent), what="nobody else was there")
    assert await stand.daemon.metric("agent_restarts_total") == 0


async def test_a_daemon_restarted_during_a_call_changes_nothing(twofold: Stand) -> None:
    stand = twofold
    async with call(stand, "call") as (human, agent):
        since = now()
        for _ in range(ROUNDS):
            for way in ("killed", "handed over"):
                start = now()
                if way == "killed":
                    await stand.daemon.kill()
                else:
                    await asyncio.to_thread(stand.daemon.client.command, "handoff")
                    assert await stand.daemon.ended() == 0
                await stand.daemon.start()
                measured(f"daemon {way} and started: ready after", now() - start)
                held = await stand.daemon.metric("claim_requests_total", {"outcome": "held"})
                assert held == 0
                await stand.dispatch("call")
                await becomes(partial(one_held, stand))
                await becomes(partial(one_dispatch, stand, "call"))
                await holds(stand, "call", agent)
        measured("daemon restarted: longest silence", undisturbed(human, agent, since))
        assert stand.relay.agents("call") == {agent}
    assert await stand.daemon.metric("agent_restarts_total") == 0


async def refused_by_guards(stand: Stand, room: str, count: int) -> bool:
    """That many jobs; each is offered to one worker after the other."""
    lines = [line for id in ("one", "two") for line in stand.printed(id).splitlines()]
    return len({job for line in lines if (job := _refused_job(line, room))}) >= count


def _refused_job(line: str, room: str) -> str | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    told = {"message": "duplicate rejected", "by": "guard", "room": room}
    return entry["job_id"] if isinstance(entry, dict) and told.items() <= entry.items() else None


async def came_alone(stand: Stand, room: str, agent: str) -> bool:
    return stand.relay.agents(room) == {agent}


async def one_dispatch(stand: Stand, room: str) -> bool:
    return len(await stand.dispatches(room)) == 1


async def one_held(stand: Stand) -> bool:
    return await stand.daemon.metric("claim_requests_total", {"outcome": "held"}) == 1


async def holds(stand: Stand, room: str, identity: str) -> None:
    async def so() -> bool:
        found = await stand.daemon.room(room)
        return found is not None and [a["identity"] for a in found["agents"] if a["holder"]] == [identity]

    await becomes(so, what=f"{identity} holds {room}")
