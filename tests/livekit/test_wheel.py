"""The wheel where nothing else is: installed with pip, uv and pipx, and run there as the documents say.

With each Python that is here in ``make soak``, with this one and the newest in ``make test``.

The source tree is out of reach: the environments are empty, the working directory is another one, and the
agent's own environment (that of these tests) does not have the supervisor's package on its path.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from livekit import api

from supervisor import __version__
from tests import json_documents
from tests.documents import as_written
from tests.livekit.conftest import MakeServer
from tests.livekit.server import LiveKitServer
from tests.livekit.supervised import VOICE
from tests.package import ROOT, UV, build, call, constraints, interpreters
from tests.ports import free_port
from tests.scale import SOAK

SUPPORTED = ("3.11", "3.12", "3.13")
PRESENT = tuple(version for version in SUPPORTED if version in interpreters())
ABSENT = tuple(version for version in SUPPORTED if version not in interpreters())

# As the steady voice of the other tests, on the voice that came with the wheel.
SCRIPT = VOICE.read_text().replace(
    'str(Path(__file__).resolve().parents[3] / "agent")', "str(Path(__file__).parent)"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("dist"))[0]


class Installed:
    """A new environment that holds the wheel and what it needs, at the locked versions."""

    def __init__(self, folder: Path, wheel: Path, python: Path = Path(sys.executable)) -> None:
        self.folder = folder
        self.program = folder / "venv/bin/livekit-supervisor"
        call(
            [UV, "venv", "--quiet", "--python", python, folder / "venv"],
            folder,
            {"UV_PYTHON_DOWNLOADS": "never"},
        )
        into = ("--python", folder / "venv/bin/python", "--constraint", constraints(folder))
        call([UV, "pip", "install", "--quiet", *into, wheel], folder)

    def run(self, *arguments: str, code: int = 0, config: Path | None = None) -> str:
        named = ["--config", str(config)] if config is not None else []
        done = subprocess.run(
            [self.program, *named, *arguments],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
        assert done.returncode == code, f"{arguments}: {done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr
        return done.stdout

    def environment(self) -> dict[str, str]:
        return {"PATH": os.defpath, "HOME": str(self.folder), "PYTHONUNBUFFERED": "1"}


# --- installing -----------------------------------------------------------------------------------------


def test_the_documents_way_to_install(tmp_path: Path) -> None:
    """With pip, out of a checkout, into an empty environment; in another place, at the locked versions."""
    place = tmp_path / "venv"
    locked = {"PIP_CONSTRAINT": str(constraints(tmp_path)), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for line in ("python3 -m venv /opt/livekit-supervisor", "/opt/livekit-supervisor/bin/pip install ."):
        there = as_written(line).replace("/opt/livekit-supervisor", str(place))
        there = there.replace("python3", sys.executable)
        call(["sh", "-c", there], ROOT, locked)
    told = call([place / "bin/livekit-supervisor", "--version"], tmp_path)
    assert told == f"livekit-supervisor {__version__}\n"
    # Without livekit-agents: 100 MB that the daemon does not need.
    listed = call([place / "bin/python", "-m", "pip", "list", "--format=freeze"], tmp_path)
    assert not {"livekit-agents", "livekit"} & {line.partition("==")[0] for line in listed.splitlines()}


def test_pipx_installs_it(wheel: Path, tmp_path: Path) -> None:
    places = {"PIPX_HOME": str(tmp_path / "pipx"), "PIPX_BIN_DIR": str(tmp_path / "bin")}
    arguments = [f"--pip-args=--constraint={constraints(tmp_path)}", "--python", sys.executable, str(wheel)]
    call([sys.executable, "-m", "pipx", "install", "--quiet", *arguments], tmp_path, places)
    told = call([tmp_path / "bin/livekit-supervisor", "--version"], tmp_path)
    assert told == f"livekit-supervisor {__version__}\n"


@pytest.mark.soak
@pytest.mark.parametrize("version", [*ABSENT, *(PRESENT if SOAK else PRESENT[-1:])])
def test_it_runs_on_each_python_that_is_here(
    wheel: Path, tmp_path: Path, runtime_dir: Path, version: str
) -> None:
    """A program under supervision, started and stopped; no LiveKit is needed for that."""
    if version in ABSENT:
        pytest.skip(f"no Python {version} on this machine: untested with it")
    installed = Installed(tmp_path, wheel, interpreters()[version])
    config = write(
        tmp_path, runtime_dir, f"ws://127.0.0.1:{free_port()}", {"id": "one", "command": ["sleep", "60"]}
    )
    assert installed.run("check", config=config).startswith("OK: ")
    installed.run("status", config=config, code=3)
    with running(installed, config) as until:
        until(lambda s: s["agents"][0]["pid"] is not None)
        told = installed.run("stop", "one", config=config)
        assert "stopped" in told
    installed.run("schema")


# --- running --------------------------------------------------------------------------------------------


def write(folder: Path, runtime: Path, url: str, agent: dict[str, Any], port: int | None = None) -> Path:
    config = folder / "config.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "livekit": {"url": url, "api_key": "devkey", "api_secret_file": "secret"},
                "agents": [agent],
                "http": {"listen": f"127.0.0.1:{port or free_port()}"},
                "paths": {"state": "state", "runtime": str(runtime)},
            }
        )
    )
    (folder / "secret").write_text("for-tests-on-loopback-only-0123456789abcdef\n")
    (folder / "secret").chmod(0o600)
    return config


@contextlib.contextmanager
def running(installed: Installed, config: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """The daemon; inside, a function that waits until its status fulfils a condition."""
    log = installed.folder / "daemon.log"
    with log.open("wb") as output:
        daemon = subprocess.Popen(
            [installed.program, "--config", config, "run"],
            cwd=installed.folder,
            env=installed.environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )

    def until(condition: Callable[[dict[str, Any]], bool], timeout: float = 60) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            assert daemon.poll() is None, log.read_text()
            done = subprocess.run(
                [installed.program, "--config", config, "status", "--json"],
                cwd=installed.folder,
                env=installed.environment(),
                capture_output=True,
                text=True,
                check=False,
            )
            status: dict[str, Any] = json.loads(done.stdout) if done.stdout else {}
            if status and condition(status):
                return status
        raise AssertionError(f"not in {timeout} s\n{log.read_text()}")

    try:
        yield until
    finally:
        if daemon.poll() is None:
            daemon.send_signal(signal.SIGTERM)
            time.sleep(0.1)
            daemon.send_signal(signal.SIGTERM)
            try:
                assert daemon.wait(30) == 0, log.read_text()
            finally:
                daemon.kill()
                daemon.wait()


async def test_check_run_status_diagnose_a_conflict_and_stop(
    wheel: Path, make_livekit_server: MakeServer, tmp_path: Path, runtime_dir: Path
) -> None:
    installed = Installed(tmp_path, wheel)
    site = next((tmp_path / "venv/lib").glob("python*/site-packages"))
    (tmp_path / "voice.py").write_bytes((site / "supervisor/_agent/voice.py").read_bytes())
    (tmp_path / "agent.py").write_text(SCRIPT)
    port = free_port()
    server = make_livekit_server(webhook_urls=(f"http://127.0.0.1:{port}/livekit/webhook",))
    agent = {
        "id": "agent-66",
        "name": "Agent_66",
        "script": "agent.py",
        "python": sys.executable,
        "rooms": ["*"],
    }
    config = write(tmp_path, runtime_dir, server.url, agent, port)
    assert installed.run("check", "--online", config=config) == f"OK: {config}: 1 agent\n"
    with running(installed, config) as until:
        until(lambda s: s["livekit"]["up"] and all(a["ready"] for a in s["agents"]))
        assert installed.run("status", config=config).startswith("✓ Nothing is wrong")
        await _conflict(installed, config, server)
        findings = json.loads(installed.run("diagnose", "--json", config=config))
        assert findings["wrong"] is False
        assert "livekit-server 1.13.5, workers can register" in json.dumps(findings)
        assert "stopped" in installed.run("stop", "Agent_66", config=config)
        status = until(lambda s: s["agents"][0]["state"] == "stopped")
        assert status["agents"][0]["pid"] is None
    installed.run("status", config=config, code=3)


async def _conflict(installed: Installed, config: Path, server: LiveKitServer) -> None:
    """The agent is dispatched twice into one room: the second is refused, and told."""
    access = server.http_url, server.key, server.secret
    request = api.CreateAgentDispatchRequest(room="lobby", agent_name="Agent_66")
    async with api.LiveKitAPI(*access) as livekit:
        await livekit.agent_dispatch.create_dispatch(request)
        deadline = time.monotonic() + 30
        while not await _agents(livekit):
            assert time.monotonic() < deadline, "the agent did not come"
        await livekit.agent_dispatch.create_dispatch(request)
        while not _told(installed, config):
            assert time.monotonic() < deadline, "no conflict was told"
        assert await _agents(livekit) == 1
        rooms = json.loads(installed.run("rooms", "--json", config=config))
        jsonschema.validate(rooms, json_documents.ROOMS)
        assert [room["claim"]["agent_id"] for room in rooms["rooms"]] == ["agent-66"]
        await livekit.room.delete_room(api.DeleteRoomRequest(room="lobby"))


async def _agents(livekit: api.LiveKitAPI) -> int:
    listed = await livekit.room.list_participants(api.ListParticipantsRequest(room="lobby"))
    return len(listed.participants)


def _told(installed: Installed, config: Path) -> bool:
    document = json.loads(installed.run("conflicts", "--json", config=config))
    jsonschema.validate(document, json_documents.CONFLICTS)
    conflicts = document["conflicts"]
    return any(c["kind"] == "duplicate_request" and c["resolution"] == "rejected" for c in conflicts)
