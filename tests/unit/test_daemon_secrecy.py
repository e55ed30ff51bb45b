"""Agents' secrets: which they are, and that neither log nor history has them from a worker's last words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import cast

import pytest

from supervisor.cli import known_secrets, redaction
from supervisor.config import Settings, load, secret_names
from supervisor.core.ports import ProcessSpec
from supervisor.daemon import specs
from supervisor.daemon.app import Daemon
from supervisor.daemon.evidence import LONGEST, DeathEvidence
from supervisor.daemon.secrecy import secrets_of
from supervisor.process.host import PosixProcessHost

LIVEKIT = "livekits-own-secret"
KEY = "-----BEGIN KEY-----\nMIIEvQIBADANBgkq\n-----END KEY-----\n"


def settings_with(folder: Path, env: str, env_file: str = "") -> Settings:
    (folder / ".env").write_text(env_file)
    (folder / "config.yaml").write_text(
        f"livekit: {{url: 'ws://127.0.0.1:7880', api_key: a-long-key, api_secret: {LIVEKIT}}}\n"
        f"agents: [{{id: receptionist, command: [sleep, infinity], env: {env}, env_file: .env}}]\n"
        f"paths: {{state: {folder / 'state'}, runtime: {folder / 'run'}}}\n"
    )
    return load(folder / "config.yaml", {"HOME": str(folder), "PATH": os.defpath})


def test_which_they_are(tmp_path: Path) -> None:
    env = "{OPENAI_API_KEY: sk-from-env, MODEL: not-a-secret, AUTH_MODE: basic, TOKEN_OF: receptionist}"
    file = "DB_PASSWORD=from-the-file\nLIVEKIT_API_KEY=a-long-key\n"
    environ = {"DEEPGRAM_TOKEN": "inherited", "PRIVATE_KEY": KEY, "PWD": "/srv/voice", "HOME": "/home/voice"}
    secrets = secrets_of(settings_with(tmp_path, env, file), environ)
    lines = {KEY, *KEY.splitlines()}
    assert secrets == {LIVEKIT, "sk-from-env", "from-the-file", "inherited", *lines}


def test_the_judge_is_that_of_the_bundle() -> None:
    assert all(vars(module)["is_secret"] is secret_names.is_secret for module in (redaction, known_secrets))


class Host:
    """Of a worker that said this last."""

    def __init__(self, text: str) -> None:
        self._text = text

    def last_output(self, spec: ProcessSpec) -> str:
        del spec
        return self._text


async def test_what_a_worker_said_last_is_clean_also_after_a_reload(tmp_path: Path) -> None:
    daemon = Daemon(settings_with(tmp_path, "{API_TOKEN: the-first-one}"), tmp_path / "config.yaml", None)
    log = daemon._open_log()
    try:
        evidence = DeathEvidence(cast(PosixProcessHost, Host("")), log.without_secrets)
        spec = specs.unconfigured_spec("receptionist", daemon._settings).process
        evidence._host = cast(PosixProcessHost, Host(f"token=the-first-one {LIVEKIT}"))
        assert evidence.last_output(spec) == "token=*** ***"
        daemon._settings = settings_with(tmp_path, "{API_TOKEN: the-second-one}")
        daemon._apply_settings()
        evidence._host = cast(PosixProcessHost, Host("the-second-one, and of before: the-first-one"))
        assert evidence.last_output(spec) == "***, and of before: ***"
    finally:
        log.close()


def test_a_secret_is_not_cut_in_two() -> None:
    text = "the-secret" + "x" * (LONGEST - 4)
    evidence = DeathEvidence(cast(PosixProcessHost, Host(text)), lambda t: t.replace("the-secret", "***"))
    said = evidence.last_output(cast(ProcessSpec, None))
    assert len(said) == LONGEST - 1
    assert said.startswith("***x")


def test_a_log_that_is_gone_is_no_output() -> None:
    class Gone(Host):
        def last_output(self, spec: ProcessSpec) -> str:
            raise OSError

    assert DeathEvidence(cast(PosixProcessHost, Gone("")), str).last_output(cast(ProcessSpec, None)) == ""


def test_the_daemon_takes_this_evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose word goes into the event, and so into log, history and page alike."""
    daemon = Daemon(settings_with(tmp_path, "{API_TOKEN: the-only-one}"), tmp_path / "config.yaml", None)
    log = daemon._open_log()
    try:
        monkeypatch.setattr(daemon._host, "last_output", lambda _: "with the-only-one")
        assert daemon._workers._evidence.last_output(cast(ProcessSpec, None)) == "with ***"
    finally:
        log.close()
