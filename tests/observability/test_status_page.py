"""The status page in a real browser: it shows what happens without being reloaded, and text stays text.

Screenshots are kept in ``test-output/status-page``.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from supervisor.endpoints import http as http_module
from supervisor.endpoints.feed import Feed
from supervisor.endpoints.http import HttpServer
from supervisor.events import (
    ConflictKind,
    ConflictResolved,
    EventBus,
    RecoveryCause,
    Resolution,
    RestartReason,
    RoomRecovered,
    RoomStateChanged,
    WorkerExited,
    WorkerStateChanged,
)
from supervisor.log import rfc3339
from tests.observability.browser import Page, browser
from tests.unit.endpoint_fakes import STATUS, FakeSink, FakeViews, agent, room

PICTURES = Path(__file__).parents[2] / "test-output" / "status-page"
SCRIPT = "<script>document.title='broken'</script><img src=x onerror=document.title='broken'>"
LOST = "document.querySelector('#connection').dataset.state === 'lost'"
LIVE = "document.querySelector('#connection').dataset.state === 'live'"
ROWS = "document.querySelectorAll('#rooms > tr').length"


class World:
    def __init__(self) -> None:
        self.views = FakeViews()
        self.bus = EventBus()
        self.feed = Feed(self.views, self.bus)
        self.bus.subscribe(self.feed)
        self.server = self._server()
        self.show([agent("agent-a")])

    def _server(self) -> HttpServer:
        return HttpServer(self.views, FakeSink(), lambda _: (b"", "text/plain"), self.feed, self.bus)

    def show(self, agents: list[dict[str, object]], problems: list[dict[str, object]] | None = None) -> None:
        counts: dict[str, int] = {}
        for each in self.views.all_rooms:
            counts[str(each["state"])] = counts.get(str(each["state"]), 0) + 1
        self.views.now = {**STATUS, "agents": agents, "problems": problems or [], "rooms": counts}

    def stir(self) -> None:
        self.bus.publish(RoomStateChanged(room="r", old="healthy", new="conflict"))

    async def start(self, port: int = 0) -> int:
        await self.server.start(("127.0.0.1", port))
        return self.server.addresses[0][1]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.server.aclose()


@pytest.fixture
async def page() -> AsyncIterator[Page]:
    """Nothing may be written to the console, but by a test that says so."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        async with browser(Path(profile)) as page:
            await page.show_as()
            yield page
    assert page.complaints == []


async def opened(world: World, page: Page) -> None:
    port = await world.start()
    await page.open(f"http://127.0.0.1:{port}/")
    await page.wait_until(LIVE)


async def test_all_is_well(world: World, page: Page) -> None:
    world.views.all_rooms = [room("lobby"), room("support")]
    world.show([agent("agent-a", memory_bytes=430 * 1024 * 1024, jobs=2)])
    await opened(world, page)
    assert await page.text("#verdict-text") == "All is well"
    assert "1 of 1 agent ready, 2 rooms" in await page.text("#verdict-detail")
    assert "430 MiB" in await page.text("#agents")
    assert await page.wait_until(f"{ROWS} === 2")
    assert await page.evaluate("document.querySelector('#timeline-empty').hidden") is False
    await page.screenshot(PICTURES / "well.png")


async def test_nothing_at_all(world: World, page: Page) -> None:
    world.show([])
    await opened(world, page)
    assert await page.text("#agents-empty") == "No agents are configured."
    await page.wait_until("!document.querySelector('#rooms-empty').hidden")
    assert await page.text("#rooms-empty") == "No rooms at the moment."
    await page.screenshot(PICTURES / "nothing.png")


async def test_a_crash_and_a_conflict_appear_without_a_reload(world: World, page: Page) -> None:
    world.views.all_rooms = [room("lobby")]
    await opened(world, page)
    await page.evaluate("window.notReloaded = true")

    world.views.all_rooms = [
        room("lobby", "missing_agent", reason="no ready worker", agents=[]),
        room("support", "conflict", reason="two agents: removing the one without a claim"),
    ]
    crashed = agent(
        "agent-a", state="crash_loop", ready=False, reason="exit code 1: ImportError", restarts=7, jobs=0
    )
    problem: dict[str, object] = {
        "severity": "error",
        "agent_id": "agent-a",
        "room": None,
        "message": "crash loop: exit code 1: ImportError",
        "fix": "livekit-supervisor logs agent-a",
    }
    world.show([crashed], [problem])
    world.bus.publish(WorkerStateChanged(agent_id="agent-a", old="backoff", new="crash_loop"))
    world.bus.publish(WorkerExited(agent_id="agent-a", pid=1, reason=RestartReason.EXIT, exit_code=1))
    world.bus.publish(
        ConflictResolved(
            kind=ConflictKind.DUPLICATE_AGENT, resolution=Resolution.EVICTED, seconds=0.012, room="support"
        )
    )
    world.bus.publish(
        RoomRecovered(room="support", agent_id="agent-a", cause=RecoveryCause.WORKER_DEATH, seconds=3.4)
    )

    await page.wait_until("document.querySelector('#verdict-text').textContent === '1 thing is wrong'")
    assert "crash loop" in await page.text("#agents")
    assert "exit code 1: ImportError" in await page.text("#problems")
    await page.wait_until(f"{ROWS} === 2")
    rooms = await page.text("#rooms")
    assert rooms.index("support") < rooms.index("lobby"), "a conflict first"
    assert "no ready worker" in rooms
    timeline = await page.text("#timeline")
    for text in (
        "Worker exited",
        "exit, exit code 1",
        "Duplicate agent: evicted",
        "after 12 ms",
        "worker death",
    ):
        assert text in timeline
    assert timeline.index("Room has its agent again") < timeline.index("Worker exited"), "the newest first"
    assert await page.evaluate("document.title") == "(1) livekit-supervisor"
    assert await page.evaluate("window.notReloaded") is True
    for name, width, dark in (("light", 1280, False), ("dark", 1280, True), ("phone", 390, False)):
        await page.show_as(width=width, dark=dark)
        await page.screenshot(PICTURES / f"trouble-{name}.png")


async def test_names_of_rooms_and_agents_stay_text(world: World, page: Page) -> None:
    world.views.all_rooms = [
        room(
            SCRIPT,
            "conflict",
            reason=SCRIPT,
            agents=[{"identity": SCRIPT, "agent_id": SCRIPT, "holder": True}],
        )
    ]
    problem: dict[str, object] = {
        "severity": "error",
        "agent_id": SCRIPT,
        "room": SCRIPT,
        "message": SCRIPT,
        "fix": SCRIPT,
    }
    world.show([agent("agent-a", name=SCRIPT, reason=SCRIPT), agent(SCRIPT)], [problem])
    await opened(world, page)
    world.bus.publish(RoomRecovered(room=SCRIPT, agent_id=SCRIPT, cause=RecoveryCause.OTHER, seconds=1.0))
    await page.wait_until(f"{ROWS} === 1 && document.querySelectorAll('#timeline > li').length === 1")
    for selector in ("#problems", "#agents", "#rooms", "#timeline"):
        assert SCRIPT in await page.text(selector)
    assert await page.evaluate("document.querySelectorAll('main img, main script').length") == 0
    assert await page.evaluate("document.title") == "(1) livekit-supervisor"


async def test_a_thousand_rooms(world: World, page: Page) -> None:
    world.views.all_rooms = [room(f"room-{n}") for n in range(1_000)]
    world.views.all_rooms[777] = room("room-777", "unknown", reason="LiveKit did not answer")
    world.show([agent("agent-a")])
    await opened(world, page)
    await page.wait_until(f"{ROWS} === 100")
    assert "room-777" in await page.evaluate("document.querySelector('#rooms > tr').innerText")
    assert await page.text("#more") == "Show 100 more of 900"
    assert await page.text("#rooms-count") == "1,000 rooms"

    await page.evaluate("document.querySelector('#more').click()")
    assert await page.evaluate(ROWS) == 200
    await page.evaluate(
        "document.querySelector('#search').value = 'ROOM-99';"
        "document.querySelector('#search').dispatchEvent(new Event('input'))"
    )
    await page.wait_until(f"{ROWS} === 11")
    assert await page.text("#rooms-count") == "11 of 1,000 rooms"
    await page.evaluate("document.querySelector('#states button[data-key=unknown]').click()")
    assert await page.text("#rooms-empty") == "No room is like that."

    # An update of a room that is shown must not make the browser busy.
    await page.evaluate("document.querySelector('#search').value = ''")
    await page.evaluate("document.querySelector('#states button[data-key=unknown]').click()")
    world.views.all_rooms[3] = room("room-3", "conflict", reason="two agents")
    world.stir()
    await page.wait_until("document.querySelector('#rooms > tr').innerText.includes('two agents')")
    busy = await page.evaluate(
        "(() => { const t = performance.now(); drawRooms(); return performance.now() - t })()"
    )
    assert busy < 200
    await page.screenshot(PICTURES / "thousand-rooms.png")


async def test_with_the_keyboard_alone(world: World, page: Page) -> None:
    world.views.all_rooms = [room("lobby"), room("support", "conflict", reason="two agents")]
    world.show([agent("agent-a")])
    await opened(world, page)
    await page.wait_until(f"{ROWS} === 2")

    async def focused() -> str:
        node = "document.activeElement"
        return str(await page.evaluate(f"{node}.id || {node}.className || {node}.dataset.key"))

    order = []
    for _ in range(4):
        await page.press("Tab", 9)
        order.append(await focused())
    assert order == ["skip", "conflict", "healthy", "search"]
    await page.evaluate("document.querySelector('#states button[data-key=conflict]').focus()")
    await page.press(" ", 32)
    await page.wait_until(f"{ROWS} === 1")
    assert await focused() == "conflict", "the focus stays where it was"
    assert await page.evaluate("document.activeElement.ariaPressed") == "true"

    world.views.all_rooms = [room("lobby"), room("support", "healthy")]
    world.stir()
    await page.wait_until(f"{ROWS} === 0")
    assert await focused() == "conflict", "an update does not take the focus away"


async def test_what_a_screen_reader_is_told(world: World, page: Page) -> None:
    world.views.all_rooms = [room("lobby", "conflict", reason="two agents")]
    world.show([agent("agent-a")])
    await opened(world, page)
    await page.wait_until(f"{ROWS} === 1")
    tree = await page.call("Accessibility.getFullAXTree")
    told = {
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree["nodes"]
        if not node.get("ignored") and "role" in node
    }
    for role, name in (
        ("heading", "All is well"),
        ("heading", "Agents"),
        ("heading", "Rooms"),
        ("heading", "Timeline"),
        ("main", ""),
        ("table", "Agents"),
        ("table", "Rooms"),
        ("columnheader", "State"),
        ("rowheader", "lobby"),
        ("searchbox", "Find a room by name, reason or agent"),
        ("link", "Skip to the state of things"),
    ):
        assert (role, name) in told, sorted(told)
    assert await page.evaluate("document.documentElement.lang") == "en"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
async def test_text_can_be_read(world: World, page: Page, dark: bool) -> None:
    """Every text has the contrast to its ground that WCAG's level AA asks for."""
    world.views.all_rooms = [
        room(f"r-{s}", s, reason="why") for s in ("healthy", "conflict", "missing_agent", "unknown", "empty")
    ]
    states = ("ready", "starting", "backoff", "crash_loop", "stopped", "draining")
    problems: list[dict[str, object]] = [
        {"severity": s, "agent_id": "agent-a", "room": None, "message": "what is wrong", "fix": "a command"}
        for s in ("error", "warning")
    ]
    world.show([agent(f"agent-{s}", state=s, reason="why") for s in states], problems)
    world.feed.preload(
        [(0.0, "worker_exited", {"reason": "signal", "signal": "SIGKILL", "agent_id": "agent-a"})]
    )
    await page.show_as(dark=dark, height=2000)
    await opened(world, page)
    await page.wait_until(f"{ROWS} === 5")
    poor = await page.evaluate(CONTRAST)
    assert poor == []


CONTRAST = """
(() => {
  const parse = (text) => {
    const parts = text.match(/[\\d.]+/g).map(Number);
    return { r: parts[0], g: parts[1], b: parts[2], a: parts[3] ?? 1 };
  };
  const over = (top, under) => ({
    r: top.r * top.a + under.r * (1 - top.a), g: top.g * top.a + under.g * (1 - top.a),
    b: top.b * top.a + under.b * (1 - top.a), a: 1,
  });
  const light = ({ r, g, b }) => {
    const linear = (v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    const [x, y, z] = [r, g, b].map((v) => linear(v / 255));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const ground = (node) => {
    const layers = [];
    for (let n = node; n; n = n.parentElement) layers.unshift(parse(getComputedStyle(n).backgroundColor));
    return layers.reduce((under, top) => over(top, under), { r: 255, g: 255, b: 255, a: 1 });
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !node.checkVisibility()) continue;
    if (node.closest("noscript, .unseen, .skip, button:disabled")) continue;
    const under = ground(node);
    const [a, b] = [light(over(parse(getComputedStyle(node).color), under)), light(under)];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.push([walker.currentNode.data.trim(), ratio]);
  }
  return poor;
})()
"""


async def test_a_lost_connection_is_told_and_comes_back(world: World, page: Page) -> None:
    world.views.all_rooms = [room("lobby")]
    await opened(world, page)
    await page.wait_until(f"{ROWS} === 1")
    port = world.server.addresses[0][1]
    await world.server.aclose()
    await page.wait_until(LOST)
    assert "no connection; this is from " in await page.text("#connection")
    assert "lobby" in await page.text("#rooms"), "what was last known stays"

    again = World()
    again.views.all_rooms = [room("elsewhere")]
    again.show([agent("agent-b")])
    await again.start(port)
    try:
        await page.wait_until(f"{LIVE} && document.querySelector('#rooms').innerText.includes('elsewhere')")
        assert "lobby" not in await page.text("#rooms")
        assert "agent-a" not in await page.text("#agents")
    finally:
        await again.server.aclose()
    page.complaints.clear()  # the browser itself tells the console of a refused connection


async def test_silence_is_a_lost_connection_too(
    world: World, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end is not told by a supervisor that is frozen, nor by a host that is gone."""
    monkeypatch.setattr(http_module, "SILENCE_SECONDS", 0.1)
    await opened(world, page)
    await page.evaluate(
        "lostAfterMs = 3000; window.states = []; new MutationObserver(() =>"
        " states.push(document.querySelector('#connection').dataset.state)"
        ").observe(document.querySelector('#connection'), { attributes: true })"
    )
    started = await page.evaluate("performance.now()")
    await page.wait_until(f"performance.now() - {started} > 5000")
    assert set(await page.evaluate("states")) <= {"live"}, "with nothing to tell, it is told so"

    monkeypatch.setattr(http_module, "SILENCE_SECONDS", 1000.0)
    await page.wait_until(LOST)
    assert "no connection; this is from " in await page.text("#connection")
    monkeypatch.setattr(http_module, "SILENCE_SECONDS", 0.1)
    await page.wait_until(LIVE)


async def test_how_long_ago(world: World, page: Page) -> None:
    world.show([agent("agent-a", since=rfc3339(time.time() - 3 * 86_400))])
    await opened(world, page)
    assert await page.text("#agents time") == "3 days"
