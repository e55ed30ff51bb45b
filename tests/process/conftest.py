"""Real processes, started and cleared away: whatever a test does, its trees are gone afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from supervisor.core.ports import ProcessSpec
from supervisor.process.ending import Prey, end
from supervisor.process.host import PosixProcessHost
from supervisor.process.procfs import carrying
from supervisor.process.variables import STATE
from tests.process.programs import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A state directory, specs for it, and the end of all that carries its name."""
    bench = Bench(tmp_path)
    yield bench
    asyncio.run(end(Prey(marked=carrying(((STATE, str(bench.state)),)))))


@pytest.fixture
async def host(bench: Bench) -> AsyncIterator[PosixProcessHost]:
    yield PosixProcessHost(bench.state)
    await end(Prey(marked=carrying(((STATE, str(bench.state)),))))


@pytest.fixture
def sleeper(bench: Bench) -> ProcessSpec:
    """Sleeps until it is ended."""
    return bench.spec("sleep", "300")
