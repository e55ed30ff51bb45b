"""A log that cannot be rotated: told when that begins, and for as long as it lasts."""

from __future__ import annotations

from pathlib import Path

from supervisor.config import LogSettings, Settings
from supervisor.daemon import specs
from supervisor.daemon.log_rotation import AGAIN_SECONDS, LogRotation
from supervisor.events import EventBus, StoreFailed
from supervisor.reconcile.worker import Worker
from tests.unit.test_config import MINIMAL, Load, load_text

__all__ = ["load_text"]


class Scene:
    """One worker's log, and a clock."""

    def __init__(self, settings: Settings) -> None:
        worker = Worker(specs.unconfigured_spec("a", settings), wanted=True)
        self.log = Path(worker.spec.process.log_path)
        self.log.parent.mkdir(parents=True)
        self.now = 1000.0
        self.faults: list[str] = []
        bus = EventBus()
        bus.subscribe(lambda e: self.faults.append(e.error) if isinstance(e, StoreFailed) else None)
        limits = LogSettings.model_construct(max_size=4, keep=1)
        self.rotation = LogRotation(lambda: [worker], bus, lambda: limits, lambda: self.now)

    async def look_for(self, seconds: float) -> int:
        """How many faults were told in that time."""
        before, end = len(self.faults), self.now + seconds
        while self.now < end:
            await self.rotation.look()
            self.now += 5.0
        return len(self.faults) - before


async def test_a_fault_that_stands_is_told_again(load_text: Load, tmp_path: Path) -> None:
    scene = Scene(load_text(f"{MINIMAL}paths: {{state: {tmp_path / 'state'}}}\n"))
    scene.log.symlink_to("where-others-want-it")
    assert await scene.look_for(AGAIN_SECONDS) == 1
    assert await scene.look_for(3 * AGAIN_SECONDS) == 3
    scene.log.unlink()
    assert await scene.look_for(2 * AGAIN_SECONDS) == 0
    scene.log.symlink_to("where-others-want-it")
    assert await scene.look_for(5.0) == 1, "a new one, at once"
