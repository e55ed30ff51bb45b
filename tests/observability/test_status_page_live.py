"""The status page of a running supervisor, in a real browser: real deaths and conflicts appear by themselves.

What it looks like, and all that it can do, is in ``test_status_page``.
"""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

from tests.observability.browser import browser
from tests.observability.effects import SLEEPER, kill_worker, second_process, supervised
from tests.observability.odd_livekit import OddLiveKit
from tests.observability.test_status_page import LIVE, LOST, PICTURES, SCRIPT


def says(selector: str, text: str) -> str:
    return f"document.querySelector({selector!r}).innerText.includes({text!r})"


async def test_a_frozen_supervisor_is_not_called_live(
    livekit: OddLiveKit, tmp_path: Path, runtime_dir: Path
) -> None:
    async with supervised(tmp_path / "daemon", runtime_dir, livekit, [SLEEPER]) as daemon:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            async with browser(Path(profile)) as page:
                await page.open(f"http://127.0.0.1:{daemon.port}/")
                await page.wait_until(LIVE)
                os.kill(daemon.pid, signal.SIGSTOP)
                try:
                    await page.evaluate("lostAfterMs = 500")
                    await page.wait_until(LOST)
                    assert "no connection; this is from " in await page.text("#connection")
                    await page.evaluate("lostAfterMs = 40_000")
                finally:
                    os.kill(daemon.pid, signal.SIGCONT)
                await page.wait_until(LIVE)
                assert page.complaints == []


async def test_what_happens_appears_without_a_reload(
    livekit: OddLiveKit, tmp_path: Path, runtime_dir: Path
) -> None:
    agents = [{**SLEEPER, "rooms": ["*"]}]
    rooms = {"resync": "1s", "missing_grace": "100ms"}
    livekit.outcome = {"CreateDispatch": "unavailable"}
    async with supervised(tmp_path / "daemon", runtime_dir, livekit, agents, rooms=rooms) as daemon:
        await daemon.until(lambda s: s["livekit"]["up"], 20)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
            async with browser(Path(profile)) as page:
                await page.show_as()
                await page.open(f"http://127.0.0.1:{daemon.port}/")
                await page.wait_until(LIVE)
                await page.evaluate("window.notReloaded = true")
                assert await page.text("#verdict-text") == "All is well"

                await kill_worker(daemon)
                await page.wait_until(says("#timeline", "SIGKILL"))
                async with second_process(daemon, "sleeper"):
                    await page.wait_until(says("#timeline", "Duplicate process: terminated"))
                livekit.humans[SCRIPT] = "caller"
                await page.wait_until(says("#rooms", "<script>"))

                assert "missing agent" in (await page.text("#rooms")).lower()
                assert await page.evaluate("document.querySelectorAll('main img, main script').length") == 0
                assert await page.evaluate("window.notReloaded") is True
                await page.screenshot(PICTURES / "live.png")
                assert page.complaints == []
