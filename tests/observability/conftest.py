"""What answers under LiveKit's address, where no test of rooms is played."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.observability.odd_livekit import OddLiveKit


@pytest.fixture
async def livekit() -> AsyncIterator[OddLiveKit]:
    odd = OddLiveKit()
    async with odd.running():
        yield odd
