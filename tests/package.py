"""Our package as it would be published: built from this checkout, installed where nothing else is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
EPOCH = "1700000000"
UV = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"


def call(command: Sequence[str | Path], folder: Path, variables: Mapping[str, str] | None = None) -> str:
    """What it prints, run in a folder with an environment that knows nothing of the checkout."""
    kept = (
        "PATH",
        "LANG",
        "SSL_CERT_FILE",
        "PIP_INDEX_URL",
        "PIP_CONFIG_FILE",
        "PIP_CACHE_DIR",
        "UV_CACHE_DIR",
    )
    proxies = tuple(name for name in os.environ if name.lower().endswith("_proxy") or name.startswith("UV_"))
    environment = {name: os.environ[name] for name in (*kept, *proxies) if name in os.environ}
    environment |= {"HOME": os.environ.get("HOME", str(folder)), **(variables or {})}
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(folder: Path, source: Path = ROOT) -> tuple[Path, Path]:
    """Wheel and sdist."""
    folder.mkdir(parents=True, exist_ok=True)
    call([sys.executable, "-m", "hatchling", "build", "-d", folder], source, {"SOURCE_DATE_EPOCH": EPOCH})
    [wheel], [sdist] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def constraints(folder: Path) -> Path:
    """The locked versions of what the daemon needs."""
    pinned = re.findall(
        r"^([A-Za-z0-9_.-]+==[^ ;\\]+)", (ROOT / "requirements/daemon.txt").read_text(), re.MULTILINE
    )
    file = folder / "constraints.txt"
    file.write_text("\n".join(pinned) + "\n")
    return file


def interpreters() -> dict[str, Path]:
    """Python 3.11 and newer on this machine, by version; the one that runs this first."""
    found = {f"{sys.version_info.major}.{sys.version_info.minor}": Path(sys.executable)}
    for version in ("3.11", "3.12", "3.13", "3.14"):
        named = shutil.which(f"python{version}")
        installed = sorted((Path.home() / ".pyenv/versions").glob(f"{version}.*/bin/python"))
        for candidate in (*([Path(named)] if named else []), *installed):
            if version not in found and _is(candidate, version):
                found[version] = candidate
    return found


def _is(python: Path, version: str) -> bool:
    code = "import sys, venv; print('%d.%d' % sys.version_info[:2])"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout.strip() == version
