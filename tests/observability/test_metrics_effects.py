"""Each counter and histogram moves by a real fault, by the right labels; rooms are in the file beside this.

Nothing here needs LiveKit: the workers are any program, and what answers under LiveKit's address is odd.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram

from supervisor.cli.documents import Status
from supervisor.cli.errors import CliError
from supervisor.events import WEBHOOK_EVENTS
from supervisor.metrics.catalogue import PREFIX, Catalogue
from tests.livekit.supervised import Supervised
from tests.observability.effects import (
    SLEEPER,
    comes_to,
    command,
    kill_worker,
    moves,
    rises_above,
    second_process,
    supervised,
)
from tests.observability.odd_livekit import OddLiveKit
from tests.observability.webhooks import event, send, signature

TESTS = Path(__file__).parents[1]
HUNGRY = "burnt = sum(range(3_000_000)); held = b'x' * (60 << 20); import time; time.sleep(600)"
QUITTER = {
    "id": "quitter",
    "name": "Q",
    "command": ["sh", "-c", "sleep 0.3; exit 3"],
    "restart": {"initial": "200ms", "max": "500ms"},
}
RESTING = {"id": "resting", "name": "R", "command": ["false"], "restart": {"initial": "10m", "max": "10m"}}
EATER = {"id": "eater", "name": "E", "command": [sys.executable, "-c", HUNGRY], "memory_limit": "30MiB"}


def scripted(agent_id: str, script: Path, **more: Any) -> dict[str, Any]:
    return {"id": agent_id, "name": agent_id, "script": str(script), **more}


# --- workers ------------------------------------------------------------------------------------------


async def test_workers(livekit: OddLiveKit, tmp_path: Path, runtime_dir: Path) -> None:
    silent, gone = tmp_path / "silent.py", tmp_path / "gone.py"
    silent.write_text("import time\ntime.sleep(600)\n")
    gone.write_text("import os\nos._exit(69)\n")  # as a guard does whose worker LiveKit stayed away from
    livekit.outcome["ListRooms"] = "unavailable"
    agents: list[dict[str, Any]] = [
        SLEEPER,
        QUITTER,
        EATER,
        scripted("silent", silent, startup_timeout="1s", stop={"kill": "1s"}),
        scripted("gone", gone),
        scripted("patient", silent, startup_timeout="10m", stop={"kill": "1s"}),
        RESTING,
    ]
    async with supervised(tmp_path / "daemon", runtime_dir, livekit, agents) as daemon:
        await states_are_shown(daemon)
        memory = rises_above(daemon, 0, "agent_restarts_total", 40, agent_id="eater", reason="memory_limit")
        cpu = rises_above(daemon, 0.05, "agent_cpu_seconds_total", 40, agent_id="eater")
        async with asyncio.TaskGroup() as slow:  # memory and processor time are measured every 10 s
            slow.create_task(memory)
            slow.create_task(cpu)
            await restarts_are_counted_by_reason(daemon)
            await drains_are_counted(daemon)
            await a_worker_waits_for_livekit(daemon, livekit)
            await rises_above(daemon, 0, "agent_restarts_total", agent_id="silent", reason="startup_timeout")
            await reloads_are_counted(daemon)


async def states_are_shown(daemon: Supervised) -> None:
    """One of them is 1 for each agent."""
    for agent_id, state in (
        ("patient", "starting"),
        ("sleeper", "ready"),
        ("resting", "backoff"),
        ("quitter", "crash_loop"),
    ):
        await comes_to(daemon, 1, "agent_state", agent_id=agent_id, state=state)
    assert await daemon.metric("agent_state") == len((await shown(daemon))["agents"])
    for agent_id, up, ready in (("sleeper", 1, 1), ("patient", 1, 0), ("resting", 0, 0)):
        assert await daemon.metric("agent_up", {"agent_id": agent_id}) == up
        assert await daemon.metric("agent_ready", {"agent_id": agent_id}) == ready
    assert await daemon.metric("agent_memory_limit_bytes", {"agent_id": "eater"}) == 30 << 20
    await rises_above(daemon, 1 << 20, "agent_resident_memory_bytes", agent_id="patient")


async def shown(daemon: Supervised) -> Status:
    status = await daemon.status()
    assert status is not None
    return status


async def restarts_are_counted_by_reason(daemon: Supervised) -> None:
    name = "agent_restarts_total"
    async with moves(daemon, name, agent_id="sleeper", reason="signal"):
        await kill_worker(daemon)
    async with moves(daemon, name, agent_id="sleeper", reason="command"):
        await daemon.until(lambda s: s["agents"][0]["ready"], 10)
        await command(daemon, "restart", agent="sleeper", now=True)
    await rises_above(daemon, 1, name, agent_id="quitter", reason="exit")
    _, text = await daemon.get("/metrics")
    exits = {"agent_id": "quitter", "reason": "exit"}
    assert daemon.metric_in(text, name, {"agent_id": "quitter"}) == daemon.metric_in(text, name, exits)


async def drains_are_counted(daemon: Supervised) -> None:
    async with moves(daemon, "drains_total", agent_id="sleeper", outcome="completed"):
        await command(daemon, "drain", agent="sleeper")
    await command(daemon, "start", agent="sleeper")


async def a_worker_waits_for_livekit(daemon: Supervised, livekit: OddLiveKit) -> None:
    """One that ends while LiveKit is away is started when it is back."""
    name, labels = "agent_restarts_total", {"agent_id": "gone", "reason": "livekit_lost"}
    await daemon.until(lambda s: s["agents"][4]["reason"] == "waits for LiveKit", 20)
    assert await daemon.metric(name, labels) == 0
    async with moves(daemon, name, agent_id="gone", reason="livekit_lost"):
        livekit.outcome.clear()


async def reloads_are_counted(daemon: Supervised) -> None:
    changed = {**SLEEPER, "command": ["sleep", "601"]}
    daemon.write(agents=[changed, QUITTER, EATER])
    async with (
        moves(daemon, "config_reloads_total", outcome="ok"),
        moves(daemon, "agent_restarts_total", agent_id="sleeper", reason="config"),
    ):
        await command(daemon, "reload")
    good = daemon.config.read_text()
    daemon.config.write_text("agents: 5")
    async with moves(daemon, "config_reloads_total", outcome="failed"):
        with pytest.raises(CliError):
            await command(daemon, "reload")
    assert await daemon.metric("config_last_reload_success") == 0
    daemon.config.write_text(good)
    await command(daemon, "reload")
    assert await daemon.metric("config_last_reload_success") == 1


# --- second processes, the store ----------------------------------------------------------------------


async def test_second_processes_and_the_store(livekit: OddLiveKit, tmp_path: Path, runtime_dir: Path) -> None:
    agents = [SLEEPER, {**SLEEPER, "id": "spared", "name": "P", "rogue": "report"}]
    async with supervised(tmp_path / "daemon", runtime_dir, livekit, agents) as daemon:
        await a_second_process_is_ended(daemon)
        await a_second_process_is_reported(daemon)
        await a_locked_store_is_counted(daemon)


async def a_second_process_is_ended(daemon: Supervised) -> None:
    async with (
        moves(daemon, "conflicts_total", kind="duplicate_process", resolution="terminated"),
        moves(daemon, "conflict_resolution_seconds_count", kind="duplicate_process"),
        moves(daemon, "reconcile_total", loop="scan", outcome="ok"),
        moves(daemon, "reconcile_duration_seconds_count", loop="scan"),
        second_process(daemon, "sleeper"),
    ):
        await rises_above(daemon, 0, "conflicts_total", kind="duplicate_process")


async def a_second_process_is_reported(daemon: Supervised) -> None:
    """It stays, and so it has no time of resolution."""
    timed = await daemon.metric("conflict_resolution_seconds_count", {"kind": "duplicate_process"})
    async with second_process(daemon, "spared"):
        await rises_above(daemon, 0, "conflicts_total", kind="duplicate_process", resolution="reported")
        await rises_above(daemon, 0, "conflicts_unresolved", kind="duplicate_process")
        status = await daemon.status()
        assert status is not None
        [problem] = [p for p in status["problems"] if p["message"].startswith("a second process")]
        assert (problem["severity"], problem["agent_id"]) == ("error", "spared")
    assert await daemon.metric("conflict_resolution_seconds_count", {"kind": "duplicate_process"}) == timed


async def a_locked_store_is_counted(daemon: Supervised) -> None:
    with contextlib.closing(sqlite3.connect(daemon.state / "supervisor.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        async with moves(daemon, "store_errors_total", 30):
            await kill_worker(daemon)  # which is to be remembered


# --- webhooks -----------------------------------------------------------------------------------------


async def test_webhooks(livekit: OddLiveKit, tmp_path: Path, runtime_dir: Path) -> None:
    async with supervised(tmp_path / "daemon", runtime_dir, livekit, [SLEEPER]) as daemon:
        good, lossy = event("participant_joined", "r"), event("room_started", "r", dropped=3)
        stale, other = event("room_finished", "r", age=3600), event("made_up", "r")
        sent: list[tuple[bytes, str | None, int, str, str]] = [
            (good, None, 200, "participant_joined", "accepted"),
            (good, None, 200, "participant_joined", "repeated"),
            (lossy, None, 200, "room_started", "accepted"),
            (other, None, 200, "other", "accepted"),
            (good, "", 401, "other", "unsigned"),
            (good, signature(good, "x" * 40), 401, "other", "unsigned"),
            (b"{", None, 400, "other", "malformed"),
            (stale, None, 400, "room_finished", "stale"),
            (b"x" * (2 << 20), "", 413, "other", "oversized"),
        ]
        for name in WEBHOOK_EVENTS:
            sent.append((event(name, "r"), None, 200, name, "accepted"))
        for body, authorization, status, name, outcome in sent:
            async with moves(daemon, "webhooks_total", event=name, outcome=outcome):
                assert await send(daemon, body, authorization) == status
        assert await daemon.metric("webhooks_total") == len(sent), "each is counted once"
        assert await daemon.metric("webhooks_dropped_total") == 3
        assert time.time() - await daemon.metric("webhook_last_received_timestamp_seconds") < 60


# --- calls to LiveKit ---------------------------------------------------------------------------------


async def test_calls_to_livekit(livekit: OddLiveKit, tmp_path: Path, runtime_dir: Path) -> None:
    rooms = {"resync": "1s", "missing_grace": "100ms"}
    agents = [{**SLEEPER, "rooms": ["*"]}]
    async with supervised(tmp_path / "daemon", runtime_dir, livekit, agents, rooms=rooms) as daemon:
        await every_outcome_is_counted(daemon, livekit)
        await a_room_that_cannot_be_read_is_tried_again(daemon, livekit)
        await a_dispatch_that_fails_is_counted(daemon, livekit)


async def every_outcome_is_counted(daemon: Supervised, livekit: OddLiveKit) -> None:
    async with (
        moves(daemon, "livekit_requests_total", method="list_rooms", outcome="ok"),
        moves(daemon, "livekit_request_duration_seconds_count", method="list_rooms"),
        moves(daemon, "reconcile_total", loop="workers", outcome="ok"),  # a resync looks at agents, too
    ):
        pass
    for outcome in ("unavailable", "unauthorized", "error", "timeout"):
        async with moves(daemon, "livekit_requests_total", method="list_rooms", outcome=outcome):
            livekit.outcome["ListRooms"] = outcome
    livekit.outcome.clear()
    await daemon.until(lambda s: s["livekit"]["up"], 10)
    livekit.outcome = {"ListParticipants": "not_found", "ListDispatch": "not_found"}
    async with (
        moves(daemon, "livekit_requests_total", method="list_participants", outcome="not_found"),
        moves(daemon, "livekit_requests_total", method="list_dispatches", outcome="not_found"),
        moves(daemon, "reconcile_total", loop="rooms", outcome="ok"),
        moves(daemon, "reconcile_duration_seconds_count", loop="rooms"),
    ):
        await send(daemon, event("room_finished", "gone"))


async def a_room_that_cannot_be_read_is_tried_again(daemon: Supervised, livekit: OddLiveKit) -> None:
    livekit.outcome = {"ListParticipants": "error"}
    async with moves(daemon, "reconcile_total", loop="rooms", outcome="requeued"):
        livekit.humans["unread"] = "caller"
    livekit.outcome = {"CreateDispatch": "unavailable"}
    await comes_to(daemon, 1, "rooms", state="missing_agent")
    livekit.outcome = {"ListParticipants": "error"}
    await comes_to(daemon, 1, "rooms", state="unknown")
    livekit.outcome.clear()


async def a_dispatch_that_fails_is_counted(daemon: Supervised, livekit: OddLiveKit) -> None:
    livekit.outcome = {"CreateDispatch": "unavailable"}
    async with (
        moves(daemon, "dispatches_total", agent_id="sleeper", outcome="failed"),
        moves(daemon, "livekit_requests_total", method="create_dispatch", outcome="unavailable"),
        moves(daemon, "livekit_request_duration_seconds_count", method="create_dispatch"),
        moves(daemon, "livekit_request_duration_seconds_count", method="list_participants"),
        moves(daemon, "livekit_request_duration_seconds_count", method="list_dispatches"),
        moves(daemon, "reconcile_total", loop="workers", outcome="ok"),
        moves(daemon, "reconcile_duration_seconds_count", loop="workers"),
        moves(daemon, "conflicts_total", kind="missing_agent", resolution="failed"),
    ):
        await kill_worker(daemon)


# --- and none is left out -----------------------------------------------------------------------------


def counters_and_histograms() -> list[str]:
    names = vars(Catalogue(CollectorRegistry()))
    metrics = [m for m in names.values() if isinstance(m, Counter | Histogram)]
    assert len(metrics) == 17
    suffix = {Counter: "_total", Histogram: "_count"}
    return [next(iter(m.describe())).name.removeprefix(PREFIX) + suffix[type(m)] for m in metrics]


@pytest.mark.parametrize("name", counters_and_histograms())
def test_every_counter_and_histogram_is_moved_by_some_fault(name: str) -> None:
    files = [
        *(TESTS / "observability").glob("test_metrics_effects*.py"),
        *(TESTS / "livekit").glob("test_*.py"),
    ]
    assert any(re.search(rf'"{name}"', path.read_text()) for path in files)
