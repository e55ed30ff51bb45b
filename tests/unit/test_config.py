"""What a good configuration becomes: types, defaults, paths, variables."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path

import pydantic
import pytest

from supervisor.config import Address, Settings, load
from supervisor.config.defaults import socket_fits

ROOT = Path(__file__).parents[2]

MINIMAL = """
livekit: {url: "ws://127.0.0.1:7880", api_key: key, api_secret: hidden-secret}
agents:
  - {id: a, script: agent.py}
"""

Load = Callable[..., Settings]


@pytest.fixture
def load_text(tmp_path: Path) -> Load:
    (tmp_path / "agent.py").touch()

    def load_it(text: str, environ: Mapping[str, str] | None = None) -> Settings:
        file = tmp_path / "config.yaml"
        file.write_text(text)
        return load(file, {"HOME": "/home/somebody", "PATH": os.environ["PATH"], **(environ or {})})

    return load_it


def test_defaults(load_text: Load, tmp_path: Path) -> None:
    settings = load_text(MINIMAL)
    agent = settings.agents[0]
    assert agent.script == tmp_path / "agent.py"
    assert agent.cwd == tmp_path
    assert (agent.name, agent.rooms, agent.command, agent.python, agent.args) == (None, None, None, None, ())
    assert (agent.rogue, agent.max_rooms, agent.memory_limit) == ("terminate", 0, 0)
    assert agent.startup_timeout == 30.0
    assert (agent.restart.initial, agent.restart.max, agent.restart.stable_after) == (0.5, 60.0, 60.0)
    assert (agent.heartbeat.interval, agent.heartbeat.timeout) == (2.0, 10.0)
    assert (agent.stop.drain, agent.stop.kill) == (300.0, 10.0)
    assert agent.inherit_env is True
    assert settings.livekit.timeout == 5.0
    assert settings.livekit.api_secret.get_secret_value() == "hidden-secret"
    assert settings.rooms.enforce is True
    assert (settings.rooms.resync, settings.rooms.human_return_grace) == (15.0, 15.0)
    assert settings.http.listen == Address("127.0.0.1", 9105)
    assert settings.http.webhook_listen is None
    assert settings.store == "sqlite"
    assert settings.history.max_age == 30 * 86_400
    assert settings.history.max_size == 100 * 1024**2
    assert (settings.log.level, settings.log.format, settings.log.keep) == ("info", "auto", 5)


def test_units_and_every_key_of_an_agent(load_text: Load, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "agent.env").write_text(
        "export A='from file'\nB=\"two\\nlines\"\nC=x # comment\n# no\n\nD=\n"
    )
    settings = load_text(
        """
        livekit: {url: wss://lk.example.org/, api_key: k, api_secret: s, timeout: 750ms}
        agents:
          - id: a.b_C-1
            name: ''
            script: ./agent.py
            python: python3
            args: [start, "--log-level", debug]
            cwd: work
            env: {A: from env, ON: "1"}
            env_file: agent.env
            inherit_env: false
            max_rooms: 3
            rogue: report
            restart: {initial: 1s, factor: 1.5, max: 2m, jitter: 0, stable_after: 1h}
            heartbeat: {interval: 0.5s, timeout: 1s}
            stop: {drain: 0, kill: 1.5 s}
            memory_limit: 1.5GiB
            warm_spare: true
          - {id: other, command: [sleep, "1"], rooms: ["a-*", b], name: Named}
        http: {listen: "[::1]:80", webhook_listen: "0.0.0.0:9106"}
        store: redis://127.0.0.1:6379/2
        """
    )
    agent, other = settings.agents
    assert settings.livekit.url == "wss://lk.example.org"
    assert settings.livekit.timeout == 0.75
    assert agent.name == ""
    assert agent.rooms == ("*",), "an unnamed agent serves every room by default"
    assert agent.python is not None
    assert agent.python.is_absolute()
    assert agent.args == ("start", "--log-level", "debug")
    assert agent.cwd == tmp_path / "work"
    assert agent.environment == {"A": "from env", "B": "two\nlines", "C": "x", "D": "", "ON": "1"}
    assert agent.restart.stable_after == 3600.0
    assert agent.stop.drain == 0.0
    assert agent.stop.kill == 1.5
    assert agent.memory_limit == 1.5 * 1024**3
    assert other.command == ("sleep", "1")
    assert other.rooms == ("a-*", "b")
    assert str(settings.http.listen) == "[::1]:80"
    assert settings.http.webhook_listen is not None
    assert settings.http.webhook_listen.url == "http://0.0.0.0:9106"


def test_a_named_agent_serves_no_room_unless_told(load_text: Load) -> None:
    assert load_text(MINIMAL.replace("id: a", "id: a, name: N")).agents[0].rooms == ()


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("127.0.0.1:1", "127.0.0.1:1", True),
        ("127.0.0.1:1", "127.0.0.1:2", False),
        ("127.0.0.1:1", "127.0.0.2:1", False),
        ("0.0.0.0:1", "127.0.0.1:1", True),
        ("0.0.0.0:1", "[::]:1", False),
        ("127.0.0.1:1", "[::]:1", False),
        ("[::1]:1", "[::]:1", True),
        ("[::1]:1", "[0:0:0:0:0:0:0:1]:1", True),
        ("localhost:1", "127.0.0.1:1", True),
        ("LocalHost:1", "[::1]:1", True),
        ("localhost:1", "192.0.2.1:1", False),
        ("some.host:1", "Some.Host:1", True),
        ("some.host:1", "0.0.0.0:1", True),
        ("some.host:1", "[::]:1", False),
        ("some.host:1", "other.host:1", False),
    ],
)
def test_addresses_that_cannot_both_be_listened_on(one: str, other: str, overlap: bool) -> None:
    assert Address.parse(one).overlaps(Address.parse(other)) is overlap
    assert Address.parse(other).overlaps(Address.parse(one)) is overlap


def test_settings_are_frozen(load_text: Load) -> None:
    settings = load_text(MINIMAL)
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        settings.store = "other"
    assert settings == load_text(MINIMAL)
    assert pickle.loads(pickle.dumps(settings)) == settings


def test_variables(load_text: Load) -> None:
    settings = load_text(
        """
        livekit: {url: "${URL}", api_key: "${KEY:-fallback}", api_secret: "a${S}b$${S}$c"}
        agents:
          - id: ${ID}
            script: ${EMPTY:-agent.py}
            name: ${NOTHING:-}
            max_rooms: ${MAX}
            warm_spare: ${WARM}
            restart: {factor: "${FACTOR}", initial: "${INITIAL:-2s}"}
            args: ["${NUMBER}"]
        """,
        {"URL": "ws://h:1", "S": "1", "ID": "007", "EMPTY": "", "MAX": "5", "WARM": "true"}
        | {"FACTOR": "3", "NUMBER": "8"},
    )
    agent = settings.agents[0]
    assert settings.livekit.url == "ws://h:1"
    assert settings.livekit.api_key == "fallback"
    assert settings.livekit.api_secret.get_secret_value() == "a1b${S}$c"
    assert agent.id == "007"
    assert agent.name is None, "what comes to nothing is left out"
    assert agent.max_rooms == 5
    assert agent.warm_spare is True
    assert agent.restart.factor == 3.0
    assert agent.restart.initial == 2.0
    assert agent.args == ("8",)


def test_keys_with_nothing_behind_them_are_left_out(load_text: Load, tmp_path: Path) -> None:
    settings = load_text(MINIMAL + "rooms:\nhttp: {webhook_listen: null}\npaths:\nlog: {level: }\n")
    assert settings.rooms.enforce is True
    assert settings.log.level == "info"


def test_shared_settings_by_anchor(load_text: Load) -> None:
    settings = load_text(
        """
        livekit: {url: "ws://h:1", api_key: k, api_secret: s}
        agents:
          - &base {id: a, script: agent.py, max_rooms: 2, restart: &r {max: 9s}}
          - {<<: *base, id: b, name: B}
          - {id: c, script: agent.py, restart: {<<: *r, initial: 1s}}
        """
    )
    assert [(a.id, a.name, a.max_rooms, a.restart.max) for a in settings.agents] == [
        ("a", None, 2, 9.0),
        ("b", "B", 2, 9.0),
        ("c", None, 0, 9.0),
    ]


def test_secret_from_a_file(load_text: Load, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-the-file\n")
    livekit = load_text(
        MINIMAL.replace(
            "api_secret: hidden-secret", "api_secret_file: secret, webhook_api_key: w, webhook_api_secret: v"
        )
    ).livekit
    assert livekit.api_secret.get_secret_value() == "from-the-file"
    assert livekit.webhook_api_secret is not None
    assert livekit.webhook_api_secret.get_secret_value() == "v"


def test_no_secret_is_shown(load_text: Load, tmp_path: Path) -> None:
    (tmp_path / "e").write_text("TOKEN=hidden-in-file\n")
    settings = load_text(
        MINIMAL.replace("script: agent.py", "script: agent.py, env_file: e, env: {TOKEN: hidden-in-env}")
        + "store: redis://:hidden-password@127.0.0.1:6379/0\n"
    )
    assert settings.agents[0].environment["TOKEN"] == "hidden-in-env"
    for shown in (repr(settings), str(settings), f"{settings.agents}", repr(settings.livekit)):
        assert "hidden" not in shown


# --- paths --------------------------------------------------------------------------------------------


def test_paths_of_the_user(load_text: Load) -> None:
    paths = load_text(MINIMAL).paths
    assert paths.state == Path("/home/somebody/.local/state/livekit-supervisor")
    assert paths.logs == paths.state / "logs"
    assert paths.runtime == Path(f"/tmp/livekit-supervisor-{os.getuid()}")

    paths = load_text(MINIMAL, {"XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/run/user/7"}).paths
    assert paths.state == Path("/s/livekit-supervisor")
    assert paths.runtime == Path("/run/user/7/livekit-supervisor")


def test_paths_of_systemd(load_text: Load) -> None:
    environ = {"STATE_DIRECTORY": "/lib/s:/other", "RUNTIME_DIRECTORY": "/run/s", "LOGS_DIRECTORY": "/log/s"}
    paths = load_text(MINIMAL, {**environ, "XDG_STATE_HOME": "/s"}).paths
    assert (paths.state, paths.runtime, paths.logs) == (Path("/lib/s"), Path("/run/s"), Path("/log/s"))


def test_paths_beside_a_state_directory_of_its_own(load_text: Load, tmp_path: Path) -> None:
    text = MINIMAL + "paths: {state: mine, logs: elsewhere}\n"
    paths = load_text(text, {"XDG_RUNTIME_DIR": "/run/user/7"}).paths
    assert paths.state == tmp_path / "mine"
    assert paths.logs == tmp_path / "elsewhere"
    assert paths.runtime != Path("/run/user/7/livekit-supervisor"), "two supervisors would meet there"


def test_sockets_fit_whatever_the_state_directory(load_text: Load) -> None:
    runtimes = set()
    for name in ("a", "b"):
        paths = load_text(MINIMAL + f"paths: {{state: /{'deep/' * 30}{name}}}\n").paths
        assert socket_fits(paths.runtime)
        runtimes.add(paths.runtime)
    assert len(runtimes) == 2


# --- what ships ---------------------------------------------------------------------------------------


def test_the_shipped_configuration() -> None:
    settings = load(ROOT / "config.yaml", {"HOME": "/home/somebody"})
    agent = settings.agents[0]
    assert (agent.id, agent.name, agent.rooms) == (
        "agent-4dfca708-49a8-4982-8e36-0f1146f9a66e",
        "Agent_66",
        ("*",),
    )
    assert agent.script == ROOT / "agent" / "voice.py"
    assert settings.paths.state == ROOT / ".state"
    assert settings.livekit.url == "ws://127.0.0.1:7880"
    assert len(settings.livekit.api_secret.get_secret_value()) >= 32
    assert load(ROOT / "config.yaml", {"HOME": "/", "LIVEKIT_URL": "wss://else"}).livekit.url == "wss://else"


def test_the_spelled_out_defaults_of_the_shipped_configuration_are_the_defaults(load_text: Load) -> None:
    shipped, minimal = load(ROOT / "config.yaml", {"HOME": "/"}), load_text(MINIMAL)
    assert (shipped.rooms, shipped.http, shipped.store) == (minimal.rooms, minimal.http, minimal.store)
    assert (shipped.history, shipped.log) == (minimal.history, minimal.log)
