"""Every setting, with its type, its default and what it means: the one place that the documents come from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from supervisor.config import defaults
from supervisor.config.address import Address
from supervisor.config.types import (
    AgentId,
    AnyPath,
    Arguments,
    Command,
    Count,
    Duration,
    EnvironmentFile,
    Folder,
    Level,
    Line,
    ListenAddress,
    LiveKitUrl,
    LogFormat,
    LogSize,
    Number,
    Patterns,
    PositiveDuration,
    Python,
    ReadableFile,
    RogueAction,
    Secret,
    SecretFile,
    Size,
    Store,
    Switch,
    Variables,
    Word,
    secret_from,
    surroundings,
)

MiB = 1_048_576
DAY = 86_400.0


class Section(BaseModel):
    """A mapping in the file: frozen, without unknown keys; a key with nothing behind it is left out."""

    model_config = ConfigDict(
        frozen=True,
        strict=True,
        extra="forbid",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
        arbitrary_types_allowed=True,
    )

    @model_validator(mode="before")
    @classmethod
    def _without_nothing(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if value is not None or key not in cls.model_fields}


class LiveKitSettings(Section):
    """Where LiveKit is, and the key that it knows us by."""

    url: LiveKitUrl
    """LiveKit's address; workers get it as `LIVEKIT_URL`."""
    api_key: Word
    """Workers get it as `LIVEKIT_API_KEY`."""
    api_secret: Secret
    """The key's secret; or name a file that holds it, `api_secret_file`."""
    api_secret_file: SecretFile | None = None
    """A file that holds the secret and nothing else."""
    timeout: PositiveDuration = 5.0
    """For each call to LiveKit's server API."""
    webhook_api_key: Word | None = None
    """The key that LiveKit signs its webhooks with, where it is another one."""
    webhook_api_secret: Secret | None = None
    """The secret of `webhook_api_key`."""

    @model_validator(mode="before")
    @classmethod
    def _secret_from_file(cls, data: Any, info: ValidationInfo) -> Any:
        if isinstance(data, dict) and data.get("api_secret") is None and data.get("api_secret_file"):
            return {**data, "api_secret": secret_from(data["api_secret_file"], info)}
        return data


class RestartSettings(Section):
    """How soon a worker that died is started again; after `stable_after` of life, at once."""

    initial: Duration = 0.5
    """The first wait."""
    factor: Number = Field(default=2.0, ge=1, le=100)
    """By which each wait is longer than the one before."""
    max: Duration = 60.0
    """The longest wait."""
    jitter: Number = Field(default=0.2, ge=0, le=1)
    """The share of a wait that is left to chance, so that many workers do not start at once."""
    stable_after: Duration = 60.0
    """A worker that has lived so long is started again at once, and the waits begin anew."""

    @model_validator(mode="after")
    def _max_is_most(self) -> Self:
        if self.max < self.initial:
            raise ValueError("max must not be less than initial")
        return self


class HeartbeatSettings(Section):
    """A worker or job that has not been heard for `timeout` is taken for hung."""

    interval: PositiveDuration = 2.0
    """How often worker and job tell that they live."""
    timeout: PositiveDuration = 10.0
    """At least twice the interval."""

    @model_validator(mode="after")
    def _one_may_be_lost(self) -> Self:
        if self.timeout < 2 * self.interval:
            raise ValueError("timeout must be at least twice the interval")
        return self


class StopSettings(Section):
    """How a worker is ended."""

    drain: Duration = 300.0
    """How long running calls may go on before the worker is killed."""
    kill: Duration = 10.0
    """How long a worker that was told to end may take, before its whole tree is killed."""


class AgentSettings(Section):
    """One agent: one process, started and kept single by its ID."""

    id: AgentId
    """Names the process, its files and its metrics; unique, and never to be changed."""
    name: Line | None = None
    """LiveKit's agent name: forced on the script; empty: unnamed; left out: the script's own."""
    script: ReadableFile | None = None
    """A livekit-agents script, to be run under the guard."""
    command: Command | None = None
    """Any other program and its arguments, kept single but not guarded."""
    python: Python | None = None
    """The interpreter of the agent's own environment; it must have livekit-agents."""
    args: Arguments = ()
    """For the script, as `start --log-level debug`."""
    cwd: Folder
    """Working directory; by default the folder of this file."""
    env: Variables = Field(default={}, repr=False)
    """Environment variables, over those of `env_file`; `livekit`'s address, key and secret over both."""
    env_file: EnvironmentFile | None = None
    """A file of `NAME=value` lines; data, of which nothing is expanded or executed."""
    inherit_env: Switch = True
    """Whether the agent gets the daemon's environment, too."""
    rooms: Patterns | None = None
    """Name patterns of the rooms it serves where nothing else was dispatched.

    By default every room for an unnamed agent, and none for a named one."""
    # None while the script's own name, on which that depends, is not known.
    max_rooms: Count = 0
    """Rooms at a time; 0: no limit."""
    rogue: RogueAction = "terminate"
    """What is done about a second process for this agent that the daemon did not start."""
    restart: RestartSettings = RestartSettings()
    startup_timeout: PositiveDuration = 30.0
    """How long a worker may take from its start until LiveKit has registered it."""
    heartbeat: HeartbeatSettings = HeartbeatSettings()
    stop: StopSettings = StopSettings()
    memory_limit: Size = 0
    """For the whole process tree; 0: none."""
    warm_spare: Switch = False
    """Keep a second worker started, to take over when the first one dies; no effect in this version yet."""

    @model_validator(mode="before")
    @classmethod
    def _dependent_defaults(cls, data: Any, info: ValidationInfo) -> Any:
        if not isinstance(data, dict):
            return data
        data = {**data, "cwd": data.get("cwd") or "."}
        if data.get("rooms") is None and isinstance(data.get("name"), str):
            data["rooms"] = () if data["name"] else ("*",)
        return data

    @property
    def environment(self) -> Mapping[str, str]:
        """What the file and ``env`` add to the agent's environment."""
        return {**(self.env_file.variables if self.env_file else {}), **self.env}


class RoomsSettings(Section):
    """What is kept true in LiveKit's rooms, and how patiently."""

    enforce: Switch = True
    """False: decide and report, and touch nothing."""
    resync: PositiveDuration = 15.0
    """How often all rooms are looked at, whatever webhooks said."""
    missing_grace: Duration = 2.0
    """How long a human may be without an agent before one is dispatched."""
    join_timeout: PositiveDuration = 15.0
    """How long a dispatched agent may take to be in the room."""
    reconnect_grace: Duration = 5.0
    """How long a job that lost LiveKit is waited for, once the human is back."""
    human_return_grace: Duration = 15.0
    """How long a job waits for its human to return; at most the room's departure_timeout - 3 s."""
    ignore: Patterns = ()
    """Name patterns of rooms that are left wholly alone."""
    ignore_agents: Patterns = ()
    """Agent names, or identity patterns, that are never counted, removed or dispatched."""


class HttpSettings(Section):
    """What is read from outside. Nothing here changes state, and nobody logs in: keep it on loopback."""

    listen: ListenAddress = Address("127.0.0.1", 9105)
    """Metrics, health, status page, webhooks."""
    webhook_listen: ListenAddress | None = None
    """A second address, for `/livekit/webhook` only."""
    webhook_max_age: PositiveDuration = 300.0
    """A webhook that was signed longer ago is refused."""


class HistorySettings(Section):
    """How much of what happened is kept in the state directory."""

    max_age: PositiveDuration = 30 * DAY
    """Older events are forgotten."""
    max_size: Size = 100 * MiB
    """The oldest go when there is more."""


class PathSettings(Section):
    """Where files are kept; by default systemd's directories, else those of the user."""

    state: AnyPath
    """Locks, pidfiles, the store: ours alone, and one daemon for each.

    By default `STATE_DIRECTORY`, else `~/.local/state/livekit-supervisor`."""
    runtime: AnyPath
    """Sockets; a short path.

    By default `RUNTIME_DIRECTORY`, else `run` in a `state` that is given, else
    `$XDG_RUNTIME_DIR/livekit-supervisor`."""
    logs: AnyPath
    """What workers print, a file for each agent; by default `LOGS_DIRECTORY`, else `logs` in `state`."""

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, data: Any, info: ValidationInfo) -> Any:
        return defaults.paths(data, surroundings(info)) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _sockets_fit(self) -> Self:
        if not defaults.socket_fits(self.runtime):
            raise ValueError("runtime is too long a path for a socket in it: set a shorter one")
        return self


class LogSettings(Section):
    """What the daemon says on standard error, and how workers' logs are rotated."""

    level: Level = "info"
    """Names of rooms and people are told at `debug` only."""
    format: LogFormat = "auto"
    """`json`, `console`; `auto`: console on a terminal."""
    redact: Switch = False
    """Hash the names of rooms and people."""
    max_size: LogSize = 10 * MiB
    """Of one log file, before it is rotated; at least `4KiB`."""
    keep: Count = 5
    """Rotated files."""


class Settings(Section):
    livekit: LiveKitSettings
    agents: tuple[AgentSettings, ...]
    rooms: RoomsSettings = RoomsSettings()
    http: HttpSettings = HttpSettings()
    store: Store = Field(default="sqlite", repr=False)
    """`sqlite`; this version refuses `redis://host:port/db`, meant for several hosts that share the rooms."""
    history: HistorySettings = HistorySettings()
    paths: PathSettings
    log: LogSettings = LogSettings()

    @model_validator(mode="before")
    @classmethod
    def _paths_have_defaults(cls, data: Any) -> Any:
        return {**data, "paths": data.get("paths") or {}} if isinstance(data, dict) else data
