"""Chaos for a minute, or ten: the program that ``make chaos`` runs, and its report."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path

import pytest

from tests.livekit.supervised import ROOT
from tests.scale import times

MINUTES = times(test=1, soak=10)
PATIENCE = times(test=5, soak=2)
"""What must hold is the same; but `make test` may share its machine with anything."""


@pytest.mark.soak
@pytest.mark.timeout(60 * MINUTES + 540)
async def test_chaos(tmp_path: Path) -> None:
    report = tmp_path / "chaos.txt"
    seed = random.getrandbits(32)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.chaos",
        *("--minutes", str(MINUTES), "--seed", str(seed), "--report", str(report)),
        *("--patience", str(PATIENCE)),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    print(output.decode(errors="replace"))
    assert process.returncode == 0
    document = json.loads(await asyncio.to_thread(report.with_suffix(".json").read_text))
    assert document["invariants_broken"] == 0
    assert document["seed"] == seed
    assert len(document["rounds"]) >= 3
    assert set(document["faults"]) == {kind for r in document["rounds"] for kind in r["kinds"]}
    assert document["webhooks"]["passed"] > 0
