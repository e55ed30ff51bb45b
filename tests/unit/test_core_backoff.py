"""The delays as a table."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.core.backoff import BackoffPolicy, delay

POLICY = BackoffPolicy(initial=0.5, factor=2.0, max=60.0, jitter=0.2)


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(-1, 0), (0, 0), (1, 0.5), (2, 1), (3, 2), (4, 4), (7, 32), (8, 60), (9, 60), (10_000, 60)],
)
def test_delay_doubles_up_to_the_cap(failures: int, seconds: float) -> None:
    assert delay(POLICY, failures) == pytest.approx(seconds)


@pytest.mark.parametrize(("initial", "factor"), [(0.5, 1.0), (0.0, 2.0)])
def test_a_delay_that_does_not_grow_costs_no_more_after_many_failures(initial: float, factor: float) -> None:
    """It would hold up the event loop: nobody has the time for so many steps."""
    assert delay(BackoffPolicy(initial, factor, 60.0), 10**15) == initial


@pytest.mark.parametrize(("randomness", "seconds"), [(0.0, 0.8), (0.5, 1.0), (1.0, 1.2)])
def test_jitter_varies_the_delay_by_its_share(randomness: float, seconds: float) -> None:
    assert delay(POLICY, 2, randomness) == pytest.approx(seconds)


@given(st.integers(0, 200), st.floats(0, 1))
def test_never_negative_and_never_above_cap_and_jitter(failures: int, randomness: float) -> None:
    assert 0 <= delay(POLICY, failures, randomness) <= 60 * 1.2
