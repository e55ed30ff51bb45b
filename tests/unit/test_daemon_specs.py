"""What a worker is given: LiveKit from ``livekit:``, the rest from its agent, and a hash over all of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.config import Settings, load
from supervisor.core.ports import ProcessSpec
from supervisor.daemon import specs

OLD = {
    "LIVEKIT_URL": "ws://old.example.org",
    "LIVEKIT_API_KEY": "old-key",
    "LIVEKIT_API_SECRET": "old-secret",
}
NEW = {
    "LIVEKIT_URL": "ws://new.example.org",
    "LIVEKIT_API_KEY": "new-key",
    "LIVEKIT_API_SECRET": "new-secret",
}

Load = Callable[..., Settings]


@pytest.fixture
def load_with(tmp_path: Path) -> Load:
    """One agent with these lines, on the new LiveKit or another."""

    def load_it(
        *lines: str, livekit: dict[str, str] = NEW, env_file: dict[str, str] | None = None
    ) -> Settings:
        (tmp_path / ".env").write_text("".join(f"{n}={v}\n" for n, v in (env_file or {}).items()))
        url, key, secret = livekit.values()
        text = f"livekit: {{url: {url!r}, api_key: {key}, api_secret: {secret}}}\n"
        text += "agents:\n  - id: a\n    command: [sleep, infinity]\n    env_file: .env\n"
        (tmp_path / "config.yaml").write_text(text + "".join(f"    {line}\n" for line in lines))
        return load(tmp_path / "config.yaml", {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"})

    return load_it


def process_of(settings: Settings) -> ProcessSpec:
    return specs.agent_spec(settings.agents[0], settings, Path("/guard"), dev=False).process


def livekit_of(process: ProcessSpec) -> dict[str, str]:
    return {name: value for name, value in process.env if name in NEW}


def test_livekit_is_that_of_the_configuration_whatever_an_agent_names(load_with: Load) -> None:
    from_file = process_of(load_with(env_file={**OLD, "MODEL": "small"}))
    assert livekit_of(from_file) == NEW
    assert dict(from_file.env)["MODEL"] == "small"
    assert livekit_of(process_of(load_with(f"env: {{LIVEKIT_URL: {OLD['LIVEKIT_URL']!r}}}"))) == NEW


def test_another_livekit_is_another_command(load_with: Load) -> None:
    """So that a worker on the old one is drained and started anew, with or without an old env_file."""
    before = process_of(load_with(env_file=OLD, livekit=OLD)).command_hash
    assert process_of(load_with(env_file=OLD)).command_hash != before
    assert process_of(load_with(livekit=OLD)).command_hash == before


def test_an_agent_that_inherits_nothing_any_more_is_another_command(load_with: Load) -> None:
    usual, alone = process_of(load_with()), process_of(load_with("inherit_env: false"))
    assert alone.command_hash != usual.command_hash
    assert process_of(load_with("inherit_env: true")).command_hash == usual.command_hash


def test_what_an_agent_names_in_vain_is_told(load_with: Load) -> None:
    [(agent_id, text)] = specs.notices(load_with(env_file=OLD))
    assert agent_id == "a"
    assert text.startswith(
        "its env or env_file names LIVEKIT_URL, LIVEKIT_API_KEY, LIVEKIT_API_SECRET, which"
    )
    assert not any(value in text for value in (*OLD.values(), *NEW.values()))
    [(_, text)] = specs.notices(load_with("env: {LIVEKIT_API_KEY: another}", env_file=NEW))
    assert "names LIVEKIT_API_KEY, which is not used" in text


def test_nothing_is_told_of_the_same_livekit(load_with: Load) -> None:
    assert specs.notices(load_with(env_file={**NEW, "LIVEKIT_URL": NEW["LIVEKIT_URL"] + "/"})) == []
    assert specs.notices(load_with()) == []
    assert len(specs.notices(load_with("warm_spare: true", env_file=OLD))) == 2
