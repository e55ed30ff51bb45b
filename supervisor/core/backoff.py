"""How long to wait after the n-th failure in a row: exponential, capped, with jitter handed in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BackoffPolicy:
    initial: float
    """Seconds after the first failure."""
    factor: float
    max: float
    """Seconds; the cap, before jitter."""
    jitter: float = 0.0
    """Share of the delay that varies: 0.2 means 20 % less or more."""


def delay(policy: BackoffPolicy, failures: int, randomness: float = 0.5) -> float:
    """Seconds to wait after ``failures`` failures in a row; none after none.

    ``randomness`` lies in [0, 1]; 0.5 is the middle, without jitter.
    """
    if failures <= 0:
        return 0.0
    seconds = policy.initial
    for _ in range(failures - 1):
        longer = seconds * policy.factor
        if longer == seconds or seconds >= policy.max:  # it does not grow, or need not: failures may be many
            break
        seconds = longer
    seconds = min(seconds, policy.max)
    return seconds * (1 + policy.jitter * (2 * randomness - 1))
