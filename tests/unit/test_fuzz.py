"""Hostile input: the targets of ``make fuzz`` at a small size, and every input that once was a defect."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, seed, settings

from tests.fuzz.grammar import INPUTS
from tests.fuzz.targets import TARGETS, corpus
from tests.scale import SOAK, times

ROUND = 500
"""Of one memory: hypothesis remembers every case, and a configuration is a large one."""

KEPT = [(name, path) for name in TARGETS for path in corpus(name)]


@pytest.mark.parametrize(("name", "path"), KEPT, ids=lambda value: getattr(value, "name", value))
def test_what_is_kept(name: str, path: Path) -> None:
    TARGETS[name](path.read_bytes())


@pytest.mark.soak
@pytest.mark.timeout(1_800 if SOAK else 300)
@pytest.mark.parametrize("name", TARGETS)
def test_anything(name: str) -> None:
    for _ in range(0, times(test=300, soak=10_000), ROUND):
        _play(name, random.getrandbits(32))


def _play(name: str, number: int) -> None:
    target = TARGETS[name]

    @seed(number)
    @settings(max_examples=times(test=300, soak=ROUND), suppress_health_check=list(HealthCheck))
    @given(data=INPUTS[name])
    def play(data: bytes) -> None:
        target(data)

    play()
