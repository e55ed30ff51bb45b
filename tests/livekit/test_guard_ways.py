"""Every way of writing a worker runs guarded, unmodified: its job is asked for, joins, and carries our ID."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.livekit.guarded import (
    AGENT_ID,
    INSTANCE,
    GuardedWorker,
    StandInDaemon,
    agents,
    dispatch,
    server_api,
)
from tests.livekit.server import LiveKitServer
from tests.livekit.versions import VERSIONS, python_with


@dataclass(frozen=True)
class Way:
    """A script, as its author wrote it, with what lies beside it."""

    script: str
    files: dict[str, str]
    executor: str = "process"
    says: tuple[str, ...] = ("CONNECTED",)
    arguments: tuple[str, ...] = ("start",)
    attributes: dict[str, str] = field(default_factory=dict)


BARE = Way(
    script="agent.py",
    files={
        "data/words.txt": "from the data file",
        "helper.py": "WORD = 'from the helper'",
        "agent.py": """
import helper
from livekit.agents import AgentServer, JobContext, JobRequest

server = AgentServer()

async def on_request(request: JobRequest) -> None:
    await request.accept(name="named by the script", attributes={"own": "attribute"})

@server.rtc_session(agent_name="mine", on_request=on_request)
async def entrypoint(ctx: JobContext) -> None:
    await ctx.connect()
    print("CONNECTED", open("data/words.txt").read(), helper.WORD, flush=True)
""",
    },
    says=("CONNECTED from the data file from the helper",),
    attributes={"own": "attribute"},
)

OWN_LOOP = Way(
    script="own_loop.py",
    files={
        "own_loop.py": """
import asyncio
from livekit.agents import AgentServer, JobContext, JobExecutorType

async def entrypoint(ctx: JobContext) -> None:
    await ctx.connect()
    print("CONNECTED", flush=True)

async def main() -> None:
    server = AgentServer(job_executor_type=JobExecutorType.THREAD)
    server.rtc_session(entrypoint, agent_name="mine")
    await server.run()

if __name__ == "__main__":
    asyncio.run(main())
""",
    },
    executor="thread",
    arguments=(),
)

OPTIONS = Way(
    script="worker.py",
    files={
        "worker.py": """
from livekit.agents import JobContext, JobProcess, WorkerOptions, cli

def prewarm(process: JobProcess) -> None:
    process.userdata["warm"] = "WARM"

async def entrypoint(ctx: JobContext) -> None:
    await ctx.connect()
    print("CONNECTED", ctx.proc.userdata["warm"], flush=True)

if __name__ == "__main__":
    cli.run_app(
        WorkerOptions(
            entrypoint_fnc=entrypoint, prewarm_fnc=prewarm, agent_name="mine", multiprocessing_context="spawn"
        )
    )
""",
    },
    says=("CONNECTED WARM",),
)

PACKAGE = Way(
    script="company/bots/main.py",
    files={
        "company/__init__.py": "",
        "company/shared.py": "WORD = 'from the outer package'",
        "company/bots/__init__.py": "",
        "company/bots/words.py": "WORD = 'from the package'",
        "company/bots/types.py": "raise ImportError('a file of the package hides a module of Python')",
        "company/bots/main.py": """
from livekit.agents import AgentServer, JobContext, cli
from .words import WORD
from ..shared import WORD as OUTER

server = AgentServer()

@server.rtc_session(agent_name="mine")
async def entrypoint(ctx: JobContext) -> None:
    await ctx.connect()
    print("CONNECTED", WORD, OUTER, flush=True)

if __name__ == "__main__":
    cli.run_app(server)
""",
    },
    says=("CONNECTED from the package from the outer package",),
)


@pytest.fixture(scope="module", params=VERSIONS)
def python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return python_with(request.param, tmp_path_factory)


@pytest.fixture
async def daemon(runtime_dir: Path) -> AsyncIterator[StandInDaemon]:
    async with StandInDaemon(runtime_dir / "guard.sock") as daemon:
        yield daemon


@pytest.mark.parametrize(
    ("way", "forced"),
    [
        pytest.param(BARE, None, id="bare server, own on_request, data file, named agent.py"),
        pytest.param(OWN_LOOP, "forced", id="own event loop, thread executor, name forced"),
        pytest.param(OPTIONS, "forced", id="WorkerOptions, spawn, name forced"),
        pytest.param(PACKAGE, None, id="run_app(server), relative imports in a package"),
    ],
)
async def test_it_runs_guarded(
    way: Way,
    forced: str | None,
    python: str,
    daemon: StandInDaemon,
    livekit_server: LiveKitServer,
    tmp_path: Path,
) -> None:
    for name, text in way.files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    room, name = tmp_path.name, forced or "mine"
    with GuardedWorker(
        tmp_path / way.script,
        daemon.path,
        livekit_server,
        name=forced,
        arguments=way.arguments,
        python=python,
    ) as worker:
        guard = await daemon.registered()
        assert guard.hello["executor"] == way.executor
        assert guard.heard("registered")[0]["agent_name"] == name

        async with server_api(livekit_server) as livekit:
            await dispatch(livekit, room, name)
            job = await daemon.job()
            [agent] = await agents(livekit, room)

    assert daemon.requests()[0]["job_id"] == job.hello["job_id"]
    assert job.hello["identity"] == agent.identity == f"agent-{job.hello['job_id']}"
    expected = {"supervisor.agent_id": AGENT_ID, "supervisor.instance": INSTANCE, **way.attributes}
    assert expected.items() <= dict(agent.attributes).items()
    for words in way.says:
        assert words in worker.log.read_text()
