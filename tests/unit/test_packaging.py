"""Wheel and sdist: the same bits from the same source, complete, and with nothing that does not belong there.

Also the locks: what is installed is what is pinned, with hashes, and what pyproject.toml asks for.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from hashlib import sha256
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from supervisor import __version__
from tests.documents import as_written
from tests.package import ROOT, build, call

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return build(tmp_path_factory.mktemp("dist"))


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


# --- wheel and sdist ------------------------------------------------------------------------------------


def test_the_same_source_makes_the_same_bits(built: tuple[Path, Path], tmp_path: Path) -> None:
    """In another folder, with other times and modes, and once more from the sdist."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            copy = tmp_path / "copy" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy)
            copy.chmod(0o700 if (ROOT / name).stat().st_mode & 0o100 else 0o600)
    assert [digest(p) for p in build(tmp_path / "dist", tmp_path / "copy")] == [digest(p) for p in built]
    with tarfile.open(built[1]) as archive:
        archive.extractall(tmp_path, filter="data")
    again, _ = build(tmp_path / "again", tmp_path / f"livekit_supervisor-{__version__}")
    assert digest(again) == digest(built[0])


def test_the_documents_way_to_build(tmp_path: Path) -> None:
    """In a clone of what is committed."""
    call(["git", "clone", "--quiet", ROOT, "clone"], tmp_path)
    line = as_written("SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) python -m hatchling build")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    call(["sh", "-c", line], tmp_path / "clone", {"PATH": path})
    assert {file.suffix for file in (tmp_path / "clone/dist").iterdir()} == {".whl", ".gz"}


def test_the_wheel_has_all_that_is_needed_and_nothing_else(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as archive:
        names = set(archive.namelist())
    info = f"livekit_supervisor-{__version__}.dist-info"
    for name in (
        "supervisor/py.typed",
        "supervisor/endpoints/static/index.html",
        "supervisor/_agent/voice.py",
        "supervisor/_agent/agent_guard/__main__.py",
        "supervisor/_deploy/systemd/livekit-supervisor.service",
        "supervisor/_dev/livekit-server/go.sum",
        f"{info}/licenses/LICENSE",
    ):
        assert name in names
    assert {name.partition("/")[0] for name in names} == {"supervisor", info}
    modules = {
        f"supervisor/{p.relative_to(ROOT / 'supervisor')}" for p in (ROOT / "supervisor").rglob("*.py")
    }
    assert modules <= names


def test_the_sdist_can_be_tested_and_says_what_changed(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("README.md", "LICENSE", "CHANGELOG.md", "Makefile", "config.yaml", "tests/conftest.py"):
        assert name in names
    assert not [n for n in names if "__pycache__" in n or n.startswith((".venv", ".state", "test-output"))]


def test_the_metadata(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[0]) as archive:
        text = archive.read(f"livekit_supervisor-{__version__}.dist-info/METADATA").decode()
    told = Parser().parsestr(text)
    assert (told["Name"], told["Version"]) == ("livekit-supervisor", __version__)
    assert told["License-Expression"] == "Apache-2.0"
    assert told["Requires-Python"] == ">=3.11"
    assert "Typing :: Typed" in told.get_all("Classifier", [])
    assert told["Description-Content-Type"] == "text/markdown"


def test_the_version_has_its_place_in_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert "## [Unreleased]" in changelog or f"## [{__version__}]" in changelog


# --- locks ----------------------------------------------------------------------------------------------


def pins(name: str) -> dict[str, str]:
    """Versions by name.  Each has a hash, and none comes from anywhere but the index."""
    found: dict[str, str] = {}
    text = (ROOT / f"requirements/{name}.txt").read_text()
    for block in re.split(r"\n(?=[A-Za-z0-9])", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)):
        match = re.match(r"([A-Za-z0-9_.-]+)(?:\[[^]]*\])?==([^ ;\\]+)", block.strip())
        if block.strip():
            assert match is not None, block
            assert "--hash=sha256:" in block, f"{match[1]} has no hash"
            assert "://" not in block.replace("https://github.com", ""), f"{match[1]} comes from an address"
            found[canonicalize_name(match[1])] = match[2]
    return found


def wanted(*extras: str) -> list[Requirement]:
    optional = PROJECT["optional-dependencies"]
    return [Requirement(r) for r in (*PROJECT["dependencies"], *(r for e in extras for r in optional[e]))]


@pytest.mark.parametrize(("name", "extras"), [("daemon", ()), ("dev", ("agent", "dev"))])
def test_the_lock_holds_what_is_asked_for(name: str, extras: tuple[str, ...]) -> None:
    pinned = pins(name)
    for requirement in wanted(*extras):
        version = pinned.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not locked: make lock"
        assert requirement.specifier.contains(version, prereleases=True), (
            f"{requirement}: {version} is locked"
        )


def test_what_is_tested_is_what_is_shipped() -> None:
    daemon, dev = pins("daemon"), pins("dev")
    assert {name: dev.get(name) for name in daemon} == daemon


def test_the_daemon_needs_no_livekit_agents() -> None:
    assert not {"livekit-agents", "livekit", "numpy"} & pins("daemon").keys()


def test_what_runs_here_is_what_is_locked() -> None:
    installed: dict[str, str] = {
        canonicalize_name(d.metadata["Name"]): d.version for d in metadata.distributions()
    }
    different = {
        name: (version, installed[name])
        for name, version in pins("daemon").items()
        if name in installed and installed[name] != version
    }
    assert different == {}
