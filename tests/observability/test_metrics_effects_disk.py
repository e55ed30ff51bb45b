"""A full disk costs history, and that only as long as it is full: rooms are granted and refused as before."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.livekit.stand import becomes
from tests.livekit.supervised import Supervised
from tests.observability import guard_mouth
from tests.observability.effects import SLEEPER, command, moves, supervised
from tests.observability.guard_mouth import AGENT, Lender, Mouth
from tests.observability.odd_livekit import OddLiveKit
from tests.process.mounts import unshare

pytestmark = pytest.mark.skipif(unshare() is None, reason="may not mount anything here")

SMALL_DISK = 'mkdir -p "{0}" && mount -t tmpfs -o size=2m,mode=0700 tmpfs "{0}" && exec "$@"'


async def test_a_full_disk(livekit: OddLiveKit, tmp_path: Path, runtime_dir: Path) -> None:
    lent, folder = Lender(runtime_dir), tmp_path / "daemon"
    inside = (*(unshare() or ()), "sh", "-c", SMALL_DISK.format(folder / "state"), "sh")
    agents = [lent.configured(stop={"drain": "0s", "kill": "1s"}), SLEEPER]
    async with supervised(folder, runtime_dir, livekit, agents, inside=inside) as daemon:
        await lent.listens()
        async with guard_mouth.worker(lent.path, AGENT) as worker:
            assert await worker.asks("one", "first") == "granted"
            with full(Path(f"/proc/{daemon.pid}/root{daemon.state}")):
                await all_but_history_goes_on(daemon, worker)
            await becomes(partial(history_is_written, daemon))


async def all_but_history_goes_on(daemon: Supervised, worker: Mouth) -> None:
    async with moves(daemon, "store_errors_total"):
        assert await worker.asks("one", "second") == "held"
    assert await worker.asks("two", "third") == "granted"
    assert await daemon.metric("claims", {"agent_id": AGENT}) == 2
    async with moves(daemon, "agent_restarts_total", agent_id="sleeper", reason="command"):
        await command(daemon, "restart", agent="sleeper", now=True)
    assert not await history_is_written(daemon)


async def history_is_written(daemon: Supervised) -> bool:
    return [conflict["kind"] for conflict in await daemon.conflicts()] == ["duplicate_request"]


@contextlib.contextmanager
def full(folder: Path) -> Iterator[None]:
    ballast = folder / "ballast"
    try:
        with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        yield
    finally:
        ballast.unlink()
