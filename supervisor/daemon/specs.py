"""Configuration turned into what the reconcilers are handed: one :class:`AgentSpec` per agent.

The rule: the command hash covers what the operator configured and nothing else, so that an unchanged agent
is never restarted by a reload, an upgrade or another terminal's environment.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from supervisor.config import AgentSettings, Settings
from supervisor.core.backoff import BackoffPolicy
from supervisor.core.ports import ProcessSpec
from supervisor.core.room import RoomPolicy
from supervisor.core.worker_plan import WorkerPolicy
from supervisor.reconcile.worker import AgentSpec

AGENT_ID = "LIVEKIT_SUPERVISOR_AGENT_ID"
STATE = "LIVEKIT_SUPERVISOR_STATE"

DEV_DRAIN = 2.0
DEV_KILL = 4.0
"""Seconds: Ctrl-C in development is over within 10 s, whatever a script does."""

_NOT_INHERITED = (
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
)
"""What systemd gave to us alone."""
_WORKER_COMMANDS = frozenset({"start", "dev", "connect"})


def agent_spec(agent: AgentSettings, settings: Settings, guard: Path, *, dev: bool) -> AgentSpec:
    """``guard`` is the folder that goes on the worker's PYTHONPATH."""
    return AgentSpec(
        id=agent.id,
        name=agent.name,
        rooms=agent.rooms,
        max_rooms=agent.max_rooms,
        policy=_policy(agent, dev=dev),
        process=_process(agent, settings, guard, dev=dev),
    )


def notices(settings: Settings) -> list[tuple[str, str]]:
    """What the operator asked for and does not get: agent ID and text."""
    return [(agent.id, text) for agent in settings.agents for text in _notices(agent, settings)]


def _notices(agent: AgentSettings, settings: Settings) -> Iterator[str]:
    if agent.warm_spare:
        yield "warm_spare is not supported by this version: a worker that died is replaced by a new one"
    theirs = agent.environment
    unused = [
        name for name, value in _livekit(settings).items() if theirs.get(name, value).rstrip("/") != value
    ]
    if unused:
        yield f"its env or env_file names {', '.join(unused)}, which is not used: livekit: says otherwise"


def unconfigured_spec(agent_id: str, settings: Settings) -> AgentSpec:
    """Of an agent that an earlier configuration had: enough to find what runs of it, and to end it."""
    process = ProcessSpec(
        id=agent_id,
        argv=(),
        cwd=str(settings.paths.state),
        env=(),
        log_path=str(settings.paths.logs / f"{agent_id}.log"),
        marks=_marks(agent_id, settings),
    )
    policy = WorkerPolicy(
        backoff=BackoffPolicy(0.5, 2.0, 60.0),
        stable_after=60.0,
        startup_timeout=30.0,
        heartbeat_timeout=10.0,
        drain=300.0,
        kill=10.0,
        guarded=False,
    )
    return AgentSpec(agent_id, None, (), 0, policy, process)


def room_policy(settings: Settings, instance: str) -> RoomPolicy:
    rooms = settings.rooms
    return RoomPolicy(
        missing_grace=rooms.missing_grace,
        join_timeout=rooms.join_timeout,
        reconnect_grace=rooms.reconnect_grace,
        ignore_agents=rooms.ignore_agents,
        instance=instance,
    )


def instance_name(state: Path) -> str:
    """Names a supervisor in the attributes of its agents: its state directory, on this machine."""
    try:
        machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        machine = os.uname().nodename
    return hashlib.sha256(f"{machine}\0{state}".encode()).hexdigest()[:12]


def _policy(agent: AgentSettings, *, dev: bool) -> WorkerPolicy:
    restart, stop = agent.restart, agent.stop
    return WorkerPolicy(
        backoff=BackoffPolicy(restart.initial, restart.factor, restart.max, restart.jitter),
        stable_after=restart.stable_after,
        startup_timeout=agent.startup_timeout,
        heartbeat_timeout=agent.heartbeat.timeout,
        drain=min(stop.drain, DEV_DRAIN) if dev else stop.drain,
        kill=min(stop.kill, DEV_KILL) if dev else stop.kill,
        memory_limit=agent.memory_limit,
        guarded=agent.script is not None,
    )


def _process(agent: AgentSettings, settings: Settings, guard: Path, *, dev: bool) -> ProcessSpec:
    argv = _argv(agent)
    marks = _marks(agent.id, settings)
    # An env_file that came from an old set-up has a LiveKit of its own, which nobody changes with livekit:.
    configured = {**agent.environment, **_livekit(settings)}
    env = {**_inherited(agent), **configured, **dict(marks)}
    if agent.script is not None:
        env.update(_guard_environment(agent, settings, guard, env, dev=dev))
    return ProcessSpec(
        id=agent.id,
        argv=argv,
        cwd=str(agent.cwd),
        env=tuple(sorted(env.items())),
        log_path=str(settings.paths.logs / f"{agent.id}.log"),
        marks=marks,
        command_hash=_hash(agent, argv, configured, dev),
    )


def _livekit(settings: Settings) -> dict[str, str]:
    return {
        "LIVEKIT_URL": settings.livekit.url,
        "LIVEKIT_API_KEY": settings.livekit.api_key,
        "LIVEKIT_API_SECRET": settings.livekit.api_secret.get_secret_value(),
    }


def _marks(agent_id: str, settings: Settings) -> tuple[tuple[str, str], ...]:
    return ((AGENT_ID, agent_id), (STATE, str(settings.paths.state)))


def _argv(agent: AgentSettings) -> tuple[str, ...]:
    if agent.command is not None:
        return agent.command
    args = agent.args if agent.args and agent.args[0] in _WORKER_COMMANDS else ("start", *agent.args)
    python = str(agent.python) if agent.python is not None else sys.executable
    return (python, "-m", "agent_guard", str(agent.script), *args)


def _inherited(agent: AgentSettings) -> dict[str, str]:
    if not agent.inherit_env:
        return {"PATH": os.environ.get("PATH", os.defpath)}
    return {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}


def _guard_environment(
    agent: AgentSettings, settings: Settings, guard: Path, env: Mapping[str, str], *, dev: bool
) -> dict[str, str]:
    path = env.get("PYTHONPATH", "")
    told = {
        "agent_name": agent.name,
        "dev": dev,
        "human_return_grace": settings.rooms.human_return_grace,
        "heartbeat_interval": agent.heartbeat.interval,
    }
    return {
        "PYTHONPATH": f"{guard}{os.pathsep}{path}" if path else str(guard),
        "PYTHONUNBUFFERED": "1",
        # a types.py in the working directory is not Python's; the launcher takes it back for the script
        "PYTHONSAFEPATH": "1",
        "LIVEKIT_SUPERVISOR_SOCKET": str(settings.paths.runtime / "guard.sock"),
        "LIVEKIT_SUPERVISOR_INSTANCE": instance_name(settings.paths.state),
        "LIVEKIT_SUPERVISOR_GUARD": json.dumps(told),
    }


def _hash(agent: AgentSettings, argv: tuple[str, ...], configured: Mapping[str, str], dev: bool) -> str:
    """Of what the configuration says: what is inherited may be another for the next daemon."""
    told = [argv, str(agent.cwd), sorted(configured.items()), agent.name, dev]
    if not agent.inherit_env:  # the usual is left out: workers of before stay as they are
        told.append("inherits nothing")
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]
