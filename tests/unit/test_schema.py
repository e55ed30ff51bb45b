"""The JSON Schema and the reference: made from the settings, checked in, and true of real files."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from supervisor.cli import app as cli_app
from supervisor.cli import schema, schema_reference
from supervisor.config import ConfigError, load
from supervisor.config.units import parse_duration, parse_size, spell_duration, spell_size

ROOT = Path(__file__).parents[2]

EVERYTHING = """
livekit:
  url: wss://livekit.example.org
  api_key: key
  api_secret: ${SECRET}
  timeout: 2.5s
  webhook_api_key: other
  webhook_api_secret: ${SECRET}
agents:
  - id: one
    name: ''
    script: worker.py
    python: python3
    args: [start, --log-level, debug]
    cwd: .
    env: {LOG_LEVEL: debug}
    env_file: .env
    inherit_env: ${SWITCH}
    rooms: ["*"]
    max_rooms: ${NUMBER}
    rogue: report
    restart: {initial: 0, factor: 1.5, max: 1m, jitter: 0, stable_after: 90s}
    startup_timeout: ${TIME}
    heartbeat: {interval: 500ms, timeout: 2s}
    stop: {drain: 0, kill: "0"}
    memory_limit: 2GiB
    warm_spare: true
  - {id: two, command: [sleep, "1"]}
rooms: {enforce: false, resync: 15s, missing_grace: 2s, join_timeout: 15s, reconnect_grace: 5s,
        human_return_grace: 15s, ignore: [a*], ignore_agents: [b]}
http: {listen: "[::1]:9105", webhook_listen: "0.0.0.0:9106", webhook_max_age: 5m}
store: redis://127.0.0.1:6379/0
history: {max_age: 30d, max_size: 100 MB}
paths: {state: state, runtime: /tmp/r, logs: logs}
log: {level: "${LEVEL}", format: json, redact: true, max_size: 4KiB, keep: 0}
"""

SMALLEST = (
    "livekit: {url: ws://127.0.0.1, api_key: k, api_secret: s}\nagents: [{id: one, command: ['true']}]\n"
)

ENVIRON = {
    "SECRET": "s" * 32,
    "SWITCH": "false",
    "NUMBER": "3",
    "TIME": "20s",
    "LEVEL": "debug",
    "PATH": "/bin:/usr/bin",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "worker.py").write_text("")
    (tmp_path / ".env").write_text("A=b\n")
    return tmp_path


def accepted_by_check(folder: Path, text: str) -> bool:
    file = folder / "config.yaml"
    file.write_text(text)
    try:
        load(file, {**ENVIRON, "HOME": str(folder)})
    except ConfigError as error:
        print(error)
        return False
    return True


def accepted_by_schema(text: str) -> bool:
    return jsonschema.Draft7Validator(schema.document()).is_valid(yaml.safe_load(text))


def test_what_is_checked_in_is_what_the_settings_say() -> None:
    assert (ROOT / "docs/config.schema.json").read_text() == schema.render(), (
        "write it anew: livekit-supervisor schema > docs/config.schema.json"
    )
    assert (ROOT / "docs/configuration.md").read_text() == schema_reference.render(), (
        "write it anew: livekit-supervisor schema --reference > docs/configuration.md"
    )


def test_it_is_a_schema_and_the_example_fits() -> None:
    jsonschema.Draft7Validator.check_schema(schema.document())
    assert accepted_by_schema((ROOT / "config.yaml").read_text())


@pytest.mark.parametrize("text", [EVERYTHING, SMALLEST], ids=["everything", "smallest"])
def test_what_check_accepts_the_schema_accepts(folder: Path, text: str) -> None:
    assert accepted_by_check(folder, text)
    assert accepted_by_schema(text)


def test_every_key_is_tried() -> None:
    def keys(section: dict[str, Any]) -> set[str]:
        found = set()
        for key, value in section.get("properties", {}).items():
            inner = value.get("items", value)
            found |= {key, *keys(inner)}
        return found

    tried = {word for word in keys(schema.document()) if f"{word}:" in EVERYTHING}
    assert keys(schema.document()) - tried == {"api_secret_file"}


@pytest.mark.parametrize(
    "change",
    [
        "store: 5",
        "unknown: 1",
        "rooms: {enforce: yes please}",
        "rooms: {resync: 15}",
        "rooms: {resync: 15 parsecs}",
        "rooms: {ignore: lobby}",
        "history: {max_size: 10 apples}",
        "log: {level: loud}",
        "log: {keep: -1}",
        "log: {max_size: 0}",
        "http: {port: 9105}",
        "agents: []",
        "agents: [{id: one}]",
        "agents: [{command: ['true']}]",
        "agents: [{id: one, command: []}]",
        "agents: [{id: one, command: ['true'], restart: {jitter: 2}}]",
        "agents: [{id: one, command: ['true'], env: {A: 1}}]",
        "livekit: {url: ws://127.0.0.1, api_key: k}",
        "livekit: {api_key: k, api_secret: s}",
    ],
)
def test_what_the_schema_can_know_to_be_wrong(folder: Path, change: str) -> None:
    key = change.partition(":")[0]
    kept = [line for line in SMALLEST.splitlines() if not line.startswith(key)]
    text = "\n".join([*kept, change, ""])
    assert not accepted_by_check(folder, text)
    assert not accepted_by_schema(text)


@given(st.integers(0, 10**9))
def test_a_spelled_duration_or_size_is_read_as_the_same(value: int) -> None:
    assert parse_size(spell_size(value)) == value
    assert parse_duration(spell_duration(value)) == value
    assert parse_duration(spell_duration(value / 1000)) == pytest.approx(value / 1000)


def test_a_default_is_told_in_the_words_of_the_file() -> None:
    properties = schema.document()["properties"]
    assert properties["http"]["properties"]["listen"]["default"] == "127.0.0.1:9105"
    assert properties["agents"]["items"]["properties"]["startup_timeout"]["default"] == "30s"
    assert properties["history"]["properties"]["max_size"]["default"] == "100MiB"


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code, expected in (
        (["schema"], 0, schema.render()),
        (["schema", "--reference"], 0, schema_reference.render()),
        (["schema", "--no-such-option"], 2, ""),
    ):
        monkeypatch.setattr(sys, "argv", ["livekit-supervisor", *arguments])
        with pytest.raises(SystemExit) as end:
            cli_app.main()
        assert (end.value.code, capsys.readouterr().out) == (code, expected)
    assert json.loads(schema.render())["$schema"] == schema.DIALECT
