"""``python -m tests.pictures``: the pictures of the README, taken of a real run of what they show.

One rule: nothing in them is drawn; a demo and a status page of a daemon on a real LiveKit server.  The table
of that demo is put into the README, too.
"""

from __future__ import annotations

import asyncio
import io
import re
import shutil
import tempfile
from pathlib import Path
from unittest import mock

from livekit import api
from rich import _export_format
from rich.console import Console

from supervisor.cli import demo, demo_view
from tests.documents import ROOT
from tests.livekit.server import LiveKitServer
from tests.livekit.supervised import Supervised, voice
from tests.observability.browser import browser
from tests.ports import free_port

PICTURES = ROOT / "docs" / "pictures"
MOST_BYTES = 150_000


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    for name, take in (("demo.svg", take_demo), ("status-page.png", take_status_page)):
        folder = Path(tempfile.mkdtemp(prefix="lks-", dir="/tmp"))
        try:
            take(folder, PICTURES / name)
        finally:
            shutil.rmtree(folder)
        print(f"{name}: {(PICTURES / name).stat().st_size:,} bytes")


# --- the demo -------------------------------------------------------------------------------------------


def take_demo(folder: Path, picture: Path) -> None:
    """As it is printed where no terminal is, with the colours of one."""
    (folder / "config.yaml").write_text(
        f"livekit: {{url: 'ws://127.0.0.1:{free_port()}', api_key: devkey, api_secret: {'s' * 40}}}\n"
        f"agents: [{{id: agent-66, name: Agent_66, script: {ROOT}/agent/voice.py, rooms: ['*']}}]\n"
        f"paths: {{state: {folder}/state, runtime: {folder}/run}}\n"
        f"http: {{listen: '127.0.0.1:{free_port()}'}}\n"
    )
    printed = Console(
        record=True, file=io.StringIO(), width=88, color_system="truecolor", highlight=False, markup=False
    )
    with mock.patch.object(demo_view, "console", return_value=printed):
        code = demo.run_demo(folder / "config.yaml", None, as_json=False)
    text = printed.export_text(clear=False)
    assert code == 0, text
    # Without the address of a font: a picture asks nobody for anything.
    frame = re.sub(r"@font-face \{\{.*?\}\}\n", "", _export_format.CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    picture.write_text(
        printed.export_svg(title="livekit-supervisor demo", code_format=frame, unique_id="demo")
    )

    summary = "\n".join(line.rstrip() for line in text[text.index("WHAT WAS DONE") :].splitlines())
    readme = ROOT / "README.md"
    readme.write_text(
        re.sub(r"(?<=^```text\n).*?(?=^```$)", f"{summary}\n", readme.read_text(), flags=re.M | re.S)
    )


# --- the status page ------------------------------------------------------------------------------------


def take_status_page(folder: Path, picture: Path) -> None:
    asyncio.run(_status_page(folder, picture))


async def _status_page(folder: Path, picture: Path) -> None:
    port = free_port()
    server = LiveKitServer(folder / "livekit", webhook_urls=(f"http://127.0.0.1:{port}/livekit/webhook",))
    agents = [
        voice(id="agent-66", name="Agent_66"),
        voice(id="night-desk", name="Night desk", rooms=["night-*"]),
    ]
    agents[0]["rooms"] = ["lobby", "support-*"]
    subject = Supervised(folder / "daemon", folder / "run", server, port=port, agents=agents)
    try:
        await asyncio.to_thread(server.start)
        await subject.start()
        await _call(subject, picture)
    finally:
        await subject.close()
        server.kill()


async def _call(subject: Supervised, picture: Path) -> None:
    """Three calls; a second dispatch of the same agent, and the death of its worker."""
    async with subject.human("lobby") as one, subject.human("support-7") as two, subject.human("night-1"):
        for human in (one, two):
            human.talk()
            assert await human.wait_settled(30), subject.tail()
        access = subject.server.http_url, subject.server.key, subject.server.secret
        async with api.LiveKitAPI(*access) as livekit:
            await livekit.agent_dispatch.create_dispatch(
                api.CreateAgentDispatchRequest(room="lobby", agent_name="Agent_66")
            )
        await _told(subject, "duplicate_request")
        worker = (await subject.agent())["pid"]
        assert worker is not None
        await asyncio.create_subprocess_exec("kill", "-KILL", str(worker))
        await _told(subject, "ghost_agent")
        for human in (one, two):
            assert await human.wait_settled(40), subject.tail()
        await subject.until(lambda s: s["rooms"].get("healthy") == 3 and not s["problems"], 30)
        await _photograph(subject, picture)


async def _told(subject: Supervised, kind: str) -> None:
    async with asyncio.timeout(30):
        while kind not in [c["kind"] for c in await subject.conflicts()]:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)


async def _photograph(subject: Supervised, picture: Path) -> None:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        async with browser(Path(profile)) as page:
            await page.show_as(width=1100, height=800)
            await page.open(f"http://127.0.0.1:{subject.port}/")
            await page.wait_until("document.querySelector('#connection').dataset.state === 'live'")
            await page.wait_until("document.querySelectorAll('#rooms > tr').length === 3")
            await page.call("Emulation.setScrollbarsHidden", hidden=True)
            await page.screenshot(picture)


if __name__ == "__main__":
    main()
