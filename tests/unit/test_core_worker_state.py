"""The whole grid of states and events: every pair is either in the table or raises."""

from __future__ import annotations

import itertools

import pytest

from supervisor.core.worker_state import (
    HAS_PROCESS,
    TRANSITIONS,
    IllegalTransition,
    WorkerEvent,
    WorkerState,
    transition,
)

S, E = WorkerState, WorkerEvent

ILLEGAL = {
    # without a process nothing can register, drain or lose its registration
    *itertools.product((S.STOPPED, S.BACKOFF, S.CRASH_LOOP), (E.REGISTERED, E.UNREGISTERED, E.DRAIN)),
    # with one, none is started, and nothing loops
    *itertools.product((S.STARTING, S.READY, S.DRAINING, S.STOPPING), (E.SPAWNED, E.LOOPING)),
    (S.STOPPED, E.LOOPING),
    # only a drain can be taken back
    *((state, E.RESUME) for state in S if state is not S.DRAINING),
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(S, E)))
def test_every_pair_is_answered(state: WorkerState, event: WorkerEvent) -> None:
    if (state, event) in ILLEGAL:
        with pytest.raises(IllegalTransition, match=str(state)):
            transition(state, event)
    else:
        assert transition(state, event) is TRANSITIONS[state, event]


def test_a_process_is_only_gained_by_spawning_and_only_lost_by_its_end() -> None:
    for (state, event), after in TRANSITIONS.items():
        gained = after in HAS_PROCESS and state not in HAS_PROCESS
        lost = state in HAS_PROCESS and after not in HAS_PROCESS
        assert gained == (event is E.SPAWNED)
        assert not lost or event in (E.EXITED, E.ENDED)


def test_a_drain_that_is_taken_back_leads_to_where_a_registration_makes_it_ready() -> None:
    assert transition(transition(S.DRAINING, E.RESUME), E.REGISTERED) is S.READY


def test_every_state_can_be_left_and_every_state_reached() -> None:
    assert {after for (before, _), after in TRANSITIONS.items() if after is not before} == set(S)
    assert {before for (before, _), after in TRANSITIONS.items() if after is not before} == set(S)
