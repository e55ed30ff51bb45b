"""``python -m tests.bench [process] [claims] [rooms] [scrape] [--quick] [--json FILE]``."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from tests import leaks
from tests.bench import claims, machine, process, rooms, scrape
from tests.bench.ground import Ground

Part = Callable[[Ground], Coroutine[Any, Any, None]]

PARTS: dict[str, Part] = {
    "process": process.run,
    "claims": claims.run,
    "rooms": rooms.run,
    "scrape": scrape.run,
}


def main() -> int:
    arguments = _arguments()
    processes = leaks.Processes()
    described = machine.describe()
    print(machine.text(described), flush=True)
    failed: list[str] = []
    parts: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="lks-bench-") as name:
        processes.mark(Path(name))
        for part in arguments.parts:
            ground = Ground(Path(name), quick=arguments.quick)
            print(f"\n## {part}", flush=True)
            started = time.monotonic()
            try:
                asyncio.run(PARTS[part](ground))
            except Exception as error:  # the other parts' figures are worth having all the same
                failed.append(part)
                why = f"{type(error).__name__}: {str(error)[:2000]}"
                print(f"{part} failed: {why}", file=sys.stderr, flush=True)
            parts[part] = {
                "seconds": round(time.monotonic() - started, 1),
                "tables": [table.as_json() for table in ground.tables],
            }
            left = leaks.end(processes.all(), grace=10)
            if left:
                failed.append(part)
                print("processes left:\n" + "\n".join(left), file=sys.stderr, flush=True)
    if arguments.json is not None:
        document = {"version": 1, "machine": described, "quick": arguments.quick, "parts": parts}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    return 1 if failed else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer trials: minutes instead of half an hour")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here, too")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - PARTS.keys()
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    arguments.parts = arguments.parts or list(PARTS)
    return arguments


if __name__ == "__main__":
    sys.exit(main())
