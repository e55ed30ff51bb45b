"""One target in this process, played by its grammar alone: where there is no atheris for this Python."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from hypothesis import HealthCheck, given, settings

from tests.fuzz.grammar import INPUTS
from tests.fuzz.targets import TARGETS

ROUND = 500
DEFECT = 77
"""The exit status that libFuzzer has for it."""


def play(target: str, seconds: float, folder: Path) -> int:
    """Plays, shrinks the first defect, and writes it down."""
    deadline = time.monotonic() + seconds
    last, count = b"", 0

    @settings(max_examples=ROUND, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(INPUTS[target])
    def one(data: bytes) -> None:
        nonlocal last, count
        last, count = data, count + 1
        TARGETS[target](data)

    while time.monotonic() < deadline:
        try:
            one()
        except Exception as error:  # a defect is whatever a target raises
            (folder / "crash-unguided").write_bytes(last)
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            return DEFECT
        print(f"#{count} cov: 0", file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(play(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])))
