"""A target for so many seconds in a process of its own, with what it found and learnt kept in test-output.

The process is its own because libFuzzer ends the one that it runs in.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.grammar import MODULES, WORDS
from tests.fuzz.targets import CORPUS

ROOT = Path(__file__).parents[2]
OUTPUT = ROOT / "test-output" / "fuzz"

SEEDS = 200
HANG_SECONDS = 30
"""Of the clock, and of instrumented code."""
LONGEST = 4_096
PATIENCE = 60
"""Seconds after its time that a run may take to end."""
GUIDED = importlib.util.find_spec("atheris") is not None

_PROGRESS = re.compile(r"#(\d+)\s.*cov: (\d+)")


@dataclass
class Result:
    target: str
    runs: int = 0
    branches: int = 0
    failed: bool = False
    found: tuple[Path, ...] = ()


def run(target: str, seconds: float, progress: Callable[[Result], None]) -> Result:
    folder = OUTPUT / target
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    before = set(_artifacts(folder))
    with tempfile.TemporaryDirectory(prefix="lks-fuzz-", dir="/tmp") as scratch:
        result = _played(_command(target, seconds, folder, corpus), target, Path(scratch), folder, progress)
    result.found = tuple(sorted(set(_artifacts(folder)) - before))
    return result


def _artifacts(folder: Path) -> list[Path]:
    """libFuzzer names them ``crash-…``, ``timeout-…``, ``oom-…``."""
    return [path for path in folder.iterdir() if path.is_file() and "-" in path.name]


def _command(target: str, seconds: float, folder: Path, corpus: Path) -> list[str]:
    if not GUIDED:
        return [sys.executable, "-m", "tests.fuzz.unguided", target, str(seconds), str(folder)]
    if not any(corpus.iterdir()):
        _plant(target, corpus)
    words = folder / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in WORDS[target] if len(word) <= 64))
    limits = [f"-max_total_time={max(1, round(seconds))}", f"-timeout={HANG_SECONDS}", f"-max_len={LONGEST}"]
    where = [f"-artifact_prefix={folder}/", f"-dict={words}", str(corpus), str(CORPUS / target)]
    return [sys.executable, "-m", "tests.fuzz.engine", target, *limits, *where]


def _escaped(word: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word)


def _plant(target: str, corpus: Path) -> None:
    """To begin with: some documents that the grammar makes."""
    count = 0

    @settings(
        max_examples=SEEDS,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(MODULES[target].DOCUMENTS)
    def write(data: bytes) -> None:
        nonlocal count
        count += 1
        if len(data) <= LONGEST:
            (corpus / f"seed{count}").write_bytes(data)

    write()


def _played(
    command: list[str], target: str, scratch: Path, folder: Path, progress: Callable[[Result], None]
) -> Result:
    result = Result(target)
    environment = {**os.environ, "SUPERVISOR_FUZZ_FOLDER": str(scratch)}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    assert process.stderr is not None
    try:
        with (folder / "log").open("w", buffering=1) as log:
            for line in process.stderr:
                log.write(line)
                match = _PROGRESS.match(line)
                if match:
                    result.runs, result.branches = int(match[1]), int(match[2])
                    progress(result)
        result.failed = process.wait(PATIENCE) != 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
    return result
