"""What to do about a worker, as a table of facts and actions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from supervisor.core.backoff import BackoffPolicy
from supervisor.core.worker_plan import (
    CRASH_LOOP_FAILURES,
    Drain,
    Ending,
    EndReason,
    Kill,
    Plan,
    Restart,
    Spawn,
    Terminate,
    WorkerPolicy,
    WorkerView,
    after_exit,
    begin_ending,
    plan,
)

POLICY = WorkerPolicy(
    backoff=BackoffPolicy(0.5, 2.0, 60.0),
    stable_after=60.0,
    startup_timeout=30.0,
    heartbeat_timeout=10.0,
    drain=300.0,
    kill=10.0,
    memory_limit=1000,
)
NOW = 1000.0
IDLE = WorkerView(wanted=True, policy=POLICY, alive=False)
RUNNING = WorkerView(
    wanted=True, policy=POLICY, alive=True, started_at=900.0, registered_once=True, last_heartbeat=999.0
)


def ending(reason: EndReason, *, drain: float | None = None, signalled: float | None = None) -> Ending:
    return Ending(reason, since=NOW, drain_until=drain, signalled_at=signalled)


@pytest.mark.parametrize(
    ("view", "expected"),
    [
        pytest.param(IDLE, Plan((Spawn(),)), id="wanted and not there"),
        pytest.param(replace(IDLE, wanted=False), Plan(), id="not wanted"),
        pytest.param(replace(IDLE, next_start_at=NOW + 3), Plan(look_at=NOW + 3), id="backoff"),
        pytest.param(replace(IDLE, waits_for_livekit=True), Plan(), id="waits for LiveKit"),
        pytest.param(RUNNING, Plan(look_at=1009.0), id="all is well"),
        pytest.param(
            replace(RUNNING, registered_once=False, last_heartbeat=None, started_at=NOW - 29),
            Plan(look_at=NOW + 1),
            id="a slow start is no hang",
        ),
        pytest.param(
            replace(RUNNING, registered_once=False, started_at=NOW - 30),
            Plan(
                (Terminate(ending(EndReason.STARTUP_TIMEOUT, signalled=NOW)),),
                look_at=NOW + 10,
            ),
            id="startup deadline",
        ),
        pytest.param(
            replace(RUNNING, registered_once=False, started_at=NOW - 30, livekit_up=False),
            Plan(look_at=1009.0),
            id="no startup deadline while LiveKit is away",
        ),
        pytest.param(
            replace(RUNNING, last_heartbeat=NOW - 10),
            Plan((Terminate(ending(EndReason.HUNG, signalled=NOW)),), look_at=NOW + 10),
            id="heartbeat overdue",
        ),
        pytest.param(
            replace(RUNNING, unhealthy_since=NOW - 9),
            Plan(look_at=NOW + 1),
            id="unhealthy, which may pass",
        ),
        pytest.param(
            replace(RUNNING, unhealthy_since=NOW - 10, busy_rooms=1),
            Plan((Drain(ending(EndReason.HUNG, drain=NOW + 300)),), look_at=NOW + 300),
            id="unhealthy for too long: its calls end first",
        ),
        pytest.param(
            replace(RUNNING, wanted=False),
            Plan((Terminate(ending(EndReason.STOPPED, signalled=NOW)),), look_at=NOW + 10),
            id="not wanted any more",
        ),
        pytest.param(
            replace(RUNNING, config_changed=True),
            Plan((Terminate(ending(EndReason.CONFIG, drain=NOW + 300, signalled=NOW)),), look_at=NOW + 10),
            id="changed and idle",
        ),
        pytest.param(
            replace(RUNNING, config_changed=True, busy_rooms=1),
            Plan((Drain(ending(EndReason.CONFIG, drain=NOW + 300)),), look_at=NOW + 300),
            id="changed and busy",
        ),
        pytest.param(
            replace(RUNNING, memory_bytes=1001, busy_rooms=2),
            Plan((Drain(ending(EndReason.MEMORY_LIMIT, drain=NOW + 300)),), look_at=NOW + 300),
            id="over its memory",
        ),
        pytest.param(
            replace(RUNNING, ending=ending(EndReason.CONFIG, drain=NOW + 5), busy_rooms=1),
            Plan(look_at=NOW + 5),
            id="draining",
        ),
        pytest.param(
            replace(RUNNING, ending=ending(EndReason.CONFIG, drain=NOW + 5), busy_rooms=0),
            Plan((Terminate(ending(EndReason.CONFIG, drain=NOW + 5, signalled=NOW)),), look_at=NOW + 10),
            id="drained",
        ),
        pytest.param(
            replace(RUNNING, ending=ending(EndReason.CONFIG, drain=NOW), busy_rooms=1),
            Plan((Terminate(ending(EndReason.CONFIG, drain=NOW, signalled=NOW)),), look_at=NOW + 10),
            id="drained long enough",
        ),
        pytest.param(
            replace(RUNNING, ending=ending(EndReason.HUNG, signalled=NOW - 1)),
            Plan(look_at=NOW + 9),
            id="signalled, may still end",
        ),
        pytest.param(
            replace(RUNNING, ending=ending(EndReason.HUNG, signalled=NOW - 10)),
            Plan(
                (Kill(replace(ending(EndReason.HUNG, signalled=NOW - 10), killed_at=NOW)),),
                look_at=NOW + 10,
            ),
            id="would not end",
        ),
    ],
)
def test_plan(view: WorkerView, expected: Plan) -> None:
    assert plan(view, NOW) == expected


def test_a_program_without_a_guard_has_no_startup_deadline() -> None:
    policy = replace(POLICY, guarded=False)
    view = replace(RUNNING, policy=policy, registered_once=False, last_heartbeat=None, started_at=0.0)
    assert plan(view, NOW) == Plan()


WITHOUT_GUARD = replace(
    RUNNING, policy=replace(POLICY, guarded=False), last_heartbeat=None, drains_on_sigterm=True
)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(
            ending(EndReason.COMMAND, drain=NOW + 300),
            Plan((Terminate(ending(EndReason.COMMAND, drain=NOW + 300, signalled=NOW)),), look_at=NOW + 300),
            id="SIGTERM is its drain",
        ),
        pytest.param(
            ending(EndReason.COMMAND, drain=NOW + 1, signalled=NOW - 299),
            Plan(look_at=NOW + 1),
            id="it drains",
        ),
        pytest.param(
            ending(EndReason.COMMAND, drain=NOW, signalled=NOW - 300),
            Plan(
                (Kill(replace(ending(EndReason.COMMAND, drain=NOW, signalled=NOW - 300), killed_at=NOW)),),
                look_at=NOW + 10,
            ),
            id="drained long enough",
        ),
        pytest.param(
            ending(EndReason.COMMAND, drain=NOW, signalled=NOW - 1),
            Plan(look_at=NOW + 9),
            id="a short drain leaves it the time to end",
        ),
        pytest.param(
            ending(EndReason.STOPPED),
            Plan((Terminate(ending(EndReason.STOPPED, signalled=NOW)),), look_at=NOW + 10),
            id="no drain",
        ),
        pytest.param(
            replace(ending(EndReason.STOPPED, drain=NOW + 300, signalled=NOW - 20), killed_at=NOW - 10),
            Plan(
                (
                    Kill(
                        replace(ending(EndReason.STOPPED, drain=NOW + 300, signalled=NOW - 20), killed_at=NOW)
                    ),
                ),
                look_at=NOW + 10,
            ),
            id="killed it drains no more",
        ),
    ],
)
def test_a_program_without_a_guard_drains_by_itself(given: Ending, expected: Plan) -> None:
    assert plan(replace(WITHOUT_GUARD, ending=given), NOW) == expected


def test_an_emergency_does_not_drain_and_a_wish_can_be_either() -> None:
    assert begin_ending(POLICY, EndReason.HUNG, NOW).drain_until is None
    assert begin_ending(POLICY, EndReason.CONFIG, NOW).drain_until == NOW + 300
    assert begin_ending(POLICY, EndReason.COMMAND, NOW, drain=True).drain_until == NOW + 300
    assert begin_ending(POLICY, EndReason.COMMAND, NOW, drain=False).drain_until is None


def death(*, failures: int = 0, uptime: float = 1.0, wanted: bool = False, lost: bool = False) -> Restart:
    return after_exit(
        POLICY,
        failures=failures,
        uptime=uptime,
        now=NOW,
        randomness=0.5,
        wanted_end=wanted,
        livekit_lost=lost,
    )


def test_the_first_death_after_a_stable_time_restarts_at_once() -> None:
    assert death(failures=7, uptime=60.0) == Restart(0, NOW, looping=False)


def test_deaths_in_a_row_wait_longer_and_are_called_a_loop() -> None:
    failures, waits = 0, []
    for _ in range(CRASH_LOOP_FAILURES):
        restart = death(failures=failures)
        waits.append(restart.next_start_at - NOW)
        failures = restart.failures
    assert waits == pytest.approx([0.5, 1, 2, 4, 8])
    assert restart.looping


def test_an_end_we_asked_for_is_no_failure() -> None:
    assert death(failures=4, wanted=True) == Restart(0, NOW, looping=False)


def test_giving_up_on_livekit_is_no_failure_and_waits_for_livekit() -> None:
    assert death(failures=4, lost=True) == Restart(4, NOW, looping=False, waits_for_livekit=True)
