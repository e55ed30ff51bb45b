"""Files that a configuration names, and that somebody has meddled with: one message each, nothing else."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.config import ConfigError, Settings, load

Load = Callable[[], Settings]

BASE = (
    "livekit: {{url: ws://127.0.0.1, api_key: k, {secret}}}\n"
    "agents: [{{id: a, command: ['true'], {agent}}}]\n"
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "named"


def problem(folder: Path, *, secret: str = "api_secret: s", agent: str = "") -> str:
    config = folder / "config.yaml"
    config.write_text(BASE.format(secret=secret, agent=agent))
    with pytest.raises(ConfigError) as raised:
        load(config, os.environ)
    return "\n".join(p.message for p in raised.value.problems)


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Root may look at everything; whoever else runs this has no need to change."""
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)


@pytest.mark.parametrize("key", ["secret", "agent"])
def test_a_pipe_in_its_place_is_not_waited_for(tmp_path: Path, file: Path, key: str) -> None:
    os.mkfifo(file)
    named = {"secret": f"api_secret_file: {file}", "agent": f"env_file: {file}"}[key]
    assert "is not a file" in problem(tmp_path, **{key: named})


@pytest.mark.parametrize("key", ["secret", "agent"])
def test_an_endless_file_is_not_read_to_its_end(tmp_path: Path, file: Path, key: str) -> None:
    with file.open("wb") as endless:
        endless.truncate(1 << 40)
    named = {"secret": f"api_secret_file: {file}", "agent": f"env_file: {file}"}[key]
    if key == "agent":
        assert "is larger than 1 MiB" in problem(tmp_path, agent=named)
        return
    config = tmp_path / "config.yaml"
    config.write_text(BASE.format(secret=named, agent=""))
    assert len(load(config, os.environ).livekit.api_secret) <= 65_536


@pytest.mark.parametrize(
    "content",
    [b"A=1\0B", b"LIVEKIT_SUPERVISOR_STATE=/tmp\n", b"LD PRELOAD=x\n", b"$(reboot)\n", b"\xff\xfe", b"A='\n"],
)
def test_an_env_file_is_data(tmp_path: Path, file: Path, content: bytes) -> None:
    file.write_bytes(content)
    told = problem(tmp_path, agent=f"env_file: {file}")
    assert told
    assert "reboot" not in told


def test_what_may_not_be_looked_at_is_a_message_and_no_traceback(runtime_dir: Path) -> None:
    """Found on a real systemd: a directory of credentials that belongs to somebody else."""
    hidden = runtime_dir / "hidden"
    hidden.mkdir()
    (hidden / "secret").write_text("s")
    (hidden / "secret").chmod(0o600)
    runtime_dir.chmod(0o777)
    config = runtime_dir / "config.yaml"
    config.write_text(
        BASE.format(
            secret=f"api_secret_file: {hidden}/secret", agent=f"cwd: {hidden}/work, env_file: {hidden}/env"
        )
    )
    hidden.chmod(0o000)
    try:
        with as_nobody(), pytest.raises(ConfigError) as raised:
            load(config, os.environ)
    finally:
        hidden.chmod(0o700)
    messages = [p.message for p in raised.value.problems]
    assert len(messages) == 3
    assert all("cannot be looked at by this user" in message for message in messages)
