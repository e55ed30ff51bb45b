"""``python -m tests.chaos --minutes N --seed S --report FILE``; exits with 1 when an invariant was broken."""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import run


def main() -> int:
    options = _options()
    # The RTC client tells of every connection that is lost; here that is the point.
    logging.getLogger("livekit").setLevel(logging.CRITICAL)
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    print(f"chaos: seed {options.seed}, {options.minutes:g} minutes; logs in {folder}", flush=True)
    report = asyncio.run(run(folder, options.minutes, options.seed, options.patience))
    report.write(options.report)
    print(f"\n{report.text()}\nreport: {options.report}, {options.report.with_suffix('.json')}")
    if report.broken:
        print(f"logs: {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description="Random faults, and who hears it."
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="default: 10")
    parser.add_argument(
        "--seed", type=int, default=random.SystemRandom().randrange(2**32), help="to repeat a run"
    )
    parser.add_argument(
        "--report", type=Path, default=Path("test-output/chaos.txt"), help="default: %(default)s"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=1.0,
        help="how many times as long everything may take, on a machine that is busy with other things",
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
