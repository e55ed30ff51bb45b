"""The whole daemon over real programs: one process per agent ID, through every crash, command and reload.

LiveKit is not there, which changes nothing about processes; the agents are ``command:`` agents.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from supervisor.cli.client import NotRunning, Refused
from supervisor.cli.documents import Status
from tests.livekit.supervised import ROOT, Supervised
from tests.ports import free_port
from tests.scale import times

SOON = 15.0


class Nowhere:
    """A LiveKit server that is not there."""

    key = "devkey"
    secret = "for-tests-on-loopback-only-0123456789abcdef"

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}"


def program(folder: Path, name: str, source: str, **settings: Any) -> dict[str, Any]:
    """An agent that runs this Python source."""
    script = folder / f"{name}.py"
    script.write_text(textwrap.dedent(source))
    return {
        "id": name,
        "command": [sys.executable, str(script)],
        "cwd": str(folder),
        "restart": {"initial": "20ms", "max": "200ms", "jitter": 0, "stable_after": "60s"},
        "stop": {"drain": "1s", "kill": "1s"},
        **settings,
    }


IDLE = "import time\nprint('up', flush=True)\nwhile True: time.sleep(60)"


class Field:
    """A folder, and the daemons that run over it."""

    def __init__(self, folder: Path, runtime: Path) -> None:
        self.folder = folder
        self.runtime = runtime
        self.subject: Supervised | None = None

    async def start(self, *agents: dict[str, Any], **settings: Any) -> Supervised:
        server: Any = Nowhere()
        settings = {"log": {"level": "info", "format": "json"}, **settings}
        self.subject = Supervised(
            self.folder / "daemon", self.runtime, server, agents=list(agents), **settings
        )
        await self.subject.start(wait=False)
        await self.subject.until(lambda _: True, SOON)
        return self.subject

    def processes(self) -> list[psutil.Process]:
        """Every process of every agent, wherever its parents are."""
        found = []
        mark = str(self.folder / "daemon" / "state")
        for process in psutil.process_iter():
            try:
                if process.environ().get("LIVEKIT_SUPERVISOR_STATE") == mark:
                    found.append(process)
            except psutil.Error:
                continue
        return [p for p in found if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
async def field(tmp_path: Path, runtime_dir: Path) -> AsyncIterator[Field]:
    field = Field(tmp_path, runtime_dir)
    yield field
    if field.subject is not None:
        await field.subject.close()
    assert field.processes() == []


async def until(subject: Supervised, state: str, number: int = 0) -> dict[str, Any]:
    status = await subject.until(lambda s: s["agents"][number]["state"] == state, SOON)
    return dict(status["agents"][number])


async def replaced(subject: Supervised, pid: int | None) -> int:
    status = await subject.until(lambda s: s["agents"][0]["pid"] not in (None, pid), SOON)
    found = status["agents"][0]["pid"]
    assert found is not None
    return found


async def command(subject: Supervised, name: str, **arguments: Any) -> dict[str, Any]:
    return await asyncio.to_thread(subject.client.command, name, {"agent": "a", **arguments})


# --- deaths ---------------------------------------------------------------------------------------


async def test_a_dead_program_is_started_again_and_its_end_is_told(field: Field) -> None:
    subject = await field.start(program(field.folder, "a", IDLE))
    before = await until(subject, "ready")
    os.kill(before["pid"], signal.SIGKILL)
    await replaced(subject, before["pid"])
    assert (await subject.agent())["restarts"] == 1
    assert await subject.metric("agent_restarts_total", {"agent_id": "a", "reason": "signal"}) == 1
    assert len(field.processes()) == 1


@pytest.mark.parametrize(
    ("source", "reason", "told"),
    [
        ("print('bye'); raise SystemExit(0)", "exit", "bye"),
        ("print('no luck'); raise SystemExit(3)", "exit", "no luck"),
        ("import os, signal; print('ouch', flush=True); os.kill(os.getpid(), 11)", "signal", "ouch"),
        ("import os; os.close(1); os.close(2); raise SystemExit(1)", "exit", ""),
        ("import os; os.fork() and os._exit(0); import time; time.sleep(60)", "exit", ""),
    ],
    ids=["exits with 0", "exits with 3", "crashes", "closes its output", "forks and exits"],
)
async def test_a_program_that_does_not_stay_is_a_visible_crash_loop(
    field: Field, source: str, reason: str, told: str
) -> None:
    subject = await field.start(program(field.folder, "a", source), program(field.folder, "b", IDLE))
    looping = await until(subject, "crash_loop")
    assert "failures in a row" in looping["reason"]
    other = (await subject.agent(1))["pid"]
    assert await subject.metric("agent_restarts_total", {"agent_id": "a", "reason": reason}) >= 4
    assert told in subject.log.read_text()
    (field.folder / "a.py").write_text(IDLE)  # the cause is gone: it recovers by itself
    await until(subject, "ready")
    after = await subject.agent(1)
    assert (after["pid"], after["restarts"]) == (other, 0)


async def test_a_program_that_cannot_be_started_says_why(field: Field) -> None:
    agent = program(field.folder, "a", IDLE)
    broken = field.folder / "broken"
    broken.write_text("#!/nowhere/interpreter\n")
    broken.chmod(0o755)
    agent["command"] = [str(broken)]
    subject = await field.start(agent, program(field.folder, "b", IDLE))
    looping = await until(subject, "crash_loop")
    assert "broken" in looping["reason"]
    await until(subject, "ready", 1)


async def test_a_tree_that_ignores_everything_is_gone_in_kill_time(field: Field) -> None:
    stubborn = """
        import os, signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if len(sys.argv) == 1:
            subprocess.Popen([sys.executable, __file__, "child"], start_new_session=True)
        print("up", flush=True)
        while True: time.sleep(60)
    """
    subject = await field.start(program(field.folder, "a", stubborn), program(field.folder, "b", IDLE))
    await subject.until(lambda _: len(field.processes()) == 3, SOON)
    started = asyncio.get_running_loop().time()
    await command(subject, "stop")
    asked = asyncio.get_running_loop().time()
    await subject.status()
    assert asyncio.get_running_loop().time() - asked < 1.0, "commands must answer meanwhile"
    await until(subject, "stopped")
    assert asyncio.get_running_loop().time() - started < 1.0 + 1.0 + 0.7
    assert len(field.processes()) == 1


# --- commands -------------------------------------------------------------------------------------


async def test_stopped_stays_stopped_through_a_crash_and_a_fresh_run_starts_all(field: Field) -> None:
    subject = await field.start(program(field.folder, "a", IDLE))
    await until(subject, "ready")
    await command(subject, "stop")
    await until(subject, "stopped")
    await subject.kill()
    await subject.start(wait=False)
    await subject.until(lambda s: s["agents"][0]["state"] == "stopped", SOON)
    assert (await subject.agent())["want"] == "stopped"
    await command(subject, "start")
    await until(subject, "ready")
    await command(subject, "stop")
    await until(subject, "stopped")
    assert await subject.stop() == 0
    await subject.start(wait=False)
    await until(subject, "ready")


async def test_restart_and_unknown_agents(field: Field) -> None:
    subject = await field.start(program(field.folder, "a", IDLE))
    before = await until(subject, "ready")
    await command(subject, "restart", now=True)
    await replaced(subject, before["pid"])
    assert await subject.metric("agent_restarts_total", {"reason": "command"}) == 1
    with pytest.raises(Refused, match="no agent"):
        await asyncio.to_thread(subject.client.command, "stop", {"agent": "nobody"})


async def test_a_hundred_starts_at_once_are_one_process(field: Field) -> None:
    subject = await field.start(program(field.folder, "a", IDLE))
    await until(subject, "ready")
    await command(subject, "stop")
    await until(subject, "stopped")
    await asyncio.gather(*(command(subject, "start") for _ in range(100)))
    await until(subject, "ready")
    assert len(field.processes()) == 1


async def test_twenty_daemons_at_once_are_one(field: Field) -> None:
    subject = await field.start(program(field.folder, "a", IDLE))
    first = await until(subject, "ready")
    await subject.kill()
    rivals = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "supervisor",
            "--config",
            str(subject.config),
            "run",
            cwd=ROOT,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        for _ in range(times(test=8, soak=20))
    ]
    try:
        async with asyncio.timeout(60):
            waits = {asyncio.ensure_future(r.wait()): r for r in rivals}
            pending = set(waits)
            while len(pending) > 1:
                _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        assert sorted(r.returncode for r in rivals if r.returncode is not None) == [4] * (len(rivals) - 1)
        status = await subject.until(lambda s: s["agents"][0]["ready"], SOON)
        assert status["agents"][0]["pid"] == first["pid"]
    finally:
        for rival in rivals:
            if rival.returncode is None:
                rival.kill()
                await rival.wait()
        await asyncio.gather(*waits)


async def test_handoff_leaves_the_worker_to_the_next_daemon(field: Field) -> None:
    subject = await field.start(program(field.folder, "a", IDLE))
    before = await until(subject, "ready")
    await command(subject, "handoff")
    assert await subject.ended() == 0
    assert [p.pid for p in field.processes()] == [before["pid"]]
    with pytest.raises(NotRunning):
        await asyncio.to_thread(subject.client.status)
    await subject.start(wait=False)
    assert (await until(subject, "ready"))["pid"] == before["pid"]
    os.kill(before["pid"], signal.SIGTERM)  # no child of this daemon, and its exit is noticed all the same
    await replaced(subject, before["pid"])


# --- stopping ---------------------------------------------------------------------------------------

DEAF = """
    import signal, time
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("up", flush=True)
    while True: time.sleep(60)
"""


async def test_a_daemon_that_stops_takes_no_order_to_start_anything(field: Field) -> None:
    """It would wait for what it has started itself."""
    subject = await field.start(program(field.folder, "a", DEAF, stop={"kill": "3s"}))
    await until(subject, "ready")
    log = subject.state / "logs" / "a.log"
    await subject.until(lambda _: log.exists() and "up" in log.read_text(), SOON)
    os.kill(subject.pid, signal.SIGTERM)
    await until(subject, "draining")
    for name in ("start", "restart", "reload"):
        with pytest.raises(Refused, match="the daemon is stopping"):
            await command(subject, name)
    os.kill(subject.pid, signal.SIGHUP)
    await command(subject, "drain")
    await command(subject, "stop")
    assert await subject.ended() == 0
    assert field.processes() == []
    assert "config_reloaded" not in subject.log.read_text()


# --- reload ---------------------------------------------------------------------------------------


async def test_reload_touches_only_what_changed(field: Field) -> None:
    a, b, c = (program(field.folder, name, IDLE) for name in "abc")
    subject = await field.start(a, b)
    await until(subject, "ready")
    pids = [(await subject.agent(n))["pid"] for n in range(2)]
    subject.write(agents=[a, {**b, "env": {"CHANGED": "yes"}}, c])
    answer = await command(subject, "reload")
    assert answer == {"added": ["c"], "changed": ["b"], "removed": []}
    await subject.until(
        lambda s: [x["ready"] for x in s["agents"]] == [True] * 3 and s["agents"][1]["pid"] != pids[1], SOON
    )
    assert (await subject.agent(0))["pid"] == pids[0]
    assert await subject.metric("agent_restarts_total", {"agent_id": "b", "reason": "config"}) == 1
    subject.write(agents=[a])
    assert (await command(subject, "reload"))["removed"] == ["b", "c"]
    await subject.until(lambda s: [x["id"] for x in s["agents"]] == ["a"], SOON)
    assert (await subject.agent(0))["pid"] == pids[0]
    assert len(field.processes()) == 1


async def test_an_invalid_configuration_changes_nothing_and_says_why(field: Field) -> None:
    subject = await field.start(program(field.folder, "a", IDLE))
    before = await until(subject, "ready")
    subject.write(agents=[{**program(field.folder, "a", IDLE), "rogue": "hug"}])
    with pytest.raises(Refused, match=r"config.yaml:\d+: agents\[0\]\.rogue"):
        await command(subject, "reload")
    assert await subject.metric("config_last_reload_success") == 0
    assert await subject.metric("config_reloads_total", {"outcome": "failed"}) == 1
    assert (await subject.agent())["pid"] == before["pid"]


# --- limits ---------------------------------------------------------------------------------------


async def test_a_tree_over_its_memory_is_restarted(field: Field) -> None:
    hungry = """
        import os, time
        again = os.path.exists("been-here")
        open("been-here", "w").close()
        ballast = b"x" * (1 if again else 200_000_000)
        while True: time.sleep(60)
    """
    subject = await field.start(program(field.folder, "a", hungry, memory_limit="100MiB"))
    before = await until(subject, "ready")
    status = await subject.until(lambda s: s["agents"][0]["pid"] not in (None, before["pid"]), 30)
    assert status["agents"][0]["restarts"] == 1
    assert await subject.metric("agent_restarts_total", {"reason": "memory_limit"}) == 1


async def test_a_gigabyte_of_output_is_bounded(field: Field) -> None:
    size = times(test=64, soak=1024)
    loud = f"""
        import sys, time
        line = "x" * 1023 + "\\n"
        for _ in range({size} * 1024): sys.stdout.write(line)
        sys.stdout.flush()
        open("done", "w").close()
        while True: time.sleep(60)
    """
    limits = {"level": "info", "format": "json", "max_size": "4MiB", "keep": 2}
    subject = await field.start(program(field.folder, "a", loud), log=limits)
    logs = field.folder / "daemon" / "state" / "logs"

    def bounded(_: Any) -> bool:
        used = sum(f.stat().st_blocks * 512 for f in logs.glob("a.log*"))
        return (field.folder / "done").exists() and used < 16 * 1024 * 1024

    await subject.until(bounded, 60)


# --- bad input ------------------------------------------------------------------------------------


async def test_scripts_that_run_no_worker_say_why_also_while_livekit_is_away(field: Field) -> None:
    """Not "waits for LiveKit": that would hide what has to be mended."""
    scripts = {
        "imports": ("import no_such_module", "no_such_module"),
        "ends": ("raise SystemExit(0)", "without having run a server"),
        "fails": ("raise SystemExit(3)", "exited with 3"),
    }
    agents = []
    for name, (source, _) in scripts.items():
        agent = program(field.folder, name, source, restart={"initial": "1h", "max": "1h"})
        agent["script"] = agent.pop("command")[1]
        agents.append(agent)
    subject = await field.start(*agents, program(field.folder, "b", IDLE))
    told = [told for _, told in scripts.values()]

    def says_why(status: Status) -> bool:
        return all(text in (a["reason"] or "") for text, a in zip(told, status["agents"], strict=False))

    status = await subject.until(says_why, 60)
    assert [agent["state"] for agent in status["agents"][:3]] == ["backoff"] * 3
    assert (await subject.agent(3))["restarts"] == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
@pytest.mark.parametrize("given_away", ["runtime", "logs"])
async def test_a_directory_of_another_user_is_one_message(
    field: Field, runtime_dir: Path, given_away: str
) -> None:
    subject = await field.start(program(field.folder, "a", IDLE))
    before = await until(subject, "ready")
    await subject.kill()
    folder = runtime_dir if given_away == "runtime" else subject.state / "logs"
    os.chown(folder, 65534, 65534)
    try:
        await subject.start(wait=False)
        assert await subject.ended() == 2
        assert subject.tail(1).endswith(f"{folder}: belongs to user 65534, not to us (user 0)")
        assert [p.pid for p in field.processes()] == [before["pid"]]
    finally:
        os.chown(folder, 0, 0)
    await subject.start(wait=False)
    assert (await until(subject, "ready"))["pid"] == before["pid"]
