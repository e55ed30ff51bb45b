"""Puts the guard where workers of any virtual environment can import it, and nothing else with it.

The rule: a folder is named after what is in it and never changes.  So an upgrade of the supervisor does not
change the code under a running worker, whose job processes import it anew for every job.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

PACKAGE = "agent_guard"


def source() -> Path:
    """The guard's package as it was installed with us, or as it lies in the checkout."""
    root = Path(__file__).resolve().parents[1]
    for folder in (root / "_agent" / PACKAGE, root.parent / "agent" / PACKAGE):
        if (folder / "__init__.py").is_file():
            return folder
    raise FileNotFoundError(f"the guard's package {PACKAGE!r} is missing from this installation")


def install(state: Path) -> Path:
    """The folder to put on a worker's PYTHONPATH: ``state/guard/<hash>``, filled if it is not there yet."""
    package = source()
    files = sorted(p for p in package.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    target = state / "guard" / _digest(package, files)
    if target.is_dir():
        return target
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(dir=target.parent, prefix=".new-"))
    try:
        for file in files:
            copy = unfinished / PACKAGE / file.relative_to(package)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
        # the same content under the same name: whoever is first wins, and the other loses nothing
        with contextlib.suppress(OSError):
            os.rename(unfinished, target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


def _digest(package: Path, files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(package)).encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]
