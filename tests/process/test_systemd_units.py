"""The units as files: systemd finds no fault with them, and little exposure."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from supervisor.cli import install_service
from tests.process.programs import REPOSITORY

MOST_EXPOSED = 4.0


def write(folder: Path, name: str) -> Path:
    text = install_service.template(name).replace(install_service.TEMPLATE_PROGRAM, "/bin/true")
    unit = folder / "livekit-supervisor.service"
    unit.write_text(text)
    return unit


def analyze(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["systemd-analyze", *arguments],
        env={"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": str(folder), "HOME": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize(
    ("name", "options"),
    [("livekit-supervisor.service", ()), ("livekit-supervisor.user.service", ("--user",))],
)
def test_systemd_finds_no_fault(tmp_path: Path, name: str, options: tuple[str, ...]) -> None:
    assert analyze(tmp_path, *options, "verify", str(write(tmp_path, name))) == ""


def test_exposure(tmp_path: Path) -> None:
    unit = write(tmp_path, "livekit-supervisor.service")
    told = analyze(tmp_path, "security", "--offline=true", "--no-pager", str(unit))
    match = re.search(r"Overall exposure level for livekit-supervisor.service: ([0-9.]+)", told)
    assert match is not None, told
    assert float(match[1]) < MOST_EXPOSED
    if analyze(tmp_path, "--version").startswith("systemd 252 "):  # each version counts anew
        assert f"exposure level {match[1]}" in (REPOSITORY / "docs/security.md").read_text()


def test_what_the_issue_of_supervising_asks_for() -> None:
    """Settings that look like oversights, and are not."""
    unit = install_service.template("livekit-supervisor.service").splitlines()
    for line in (
        "KillMode=process",
        "OOMPolicy=continue",
        "Restart=always",
        "StartLimitIntervalSec=0",
        "RuntimeDirectoryPreserve=restart",
        "NotifyAccess=main",
    ):
        assert line in unit
    assert not [line for line in unit if line.startswith(("PrivateTmp=", "PrivateUsers="))]
