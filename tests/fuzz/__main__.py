"""``make fuzz``: hostile input to every target, guided by the branches it reaches, and what it broke."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.fuzz import campaign
from tests.fuzz.targets import TARGETS

TELL_SECONDS = 15.0


def main() -> int:
    arguments = _parser().parse_args()
    targets = arguments.target or list(TARGETS)
    if arguments.file is not None:
        for target in targets:
            TARGETS[target](arguments.file.read_bytes())
            print(f"{target}: no defect")
        return 0
    if not campaign.GUIDED:
        print("there is no atheris for this Python: played by the grammars alone, not guided by coverage")
    seconds = arguments.minutes * 60 / len(targets)
    results = [campaign.run(target, seconds, _Teller()) for target in targets]
    for result in results:
        _report(result)
    return 1 if any(result.failed for result in results) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "target", nargs="*", choices=[*TARGETS, []], metavar="TARGET", help=", ".join(TARGETS)
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="altogether (default: 5)")
    parser.add_argument(
        "--file", type=Path, help="play this one input and show the traceback, if there is one"
    )
    return parser


class _Teller:
    """A line now and then, so that nobody wonders."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, result: campaign.Result) -> None:
        if time.monotonic() - self._told >= TELL_SECONDS:
            self._told = time.monotonic()
            print(f"  {_counts(result)}", flush=True)


def _counts(result: campaign.Result) -> str:
    return f"{result.target}: {result.runs:,} inputs, {result.branches:,} branches"


def _report(result: campaign.Result) -> None:
    log = campaign.OUTPUT / result.target / "log"
    if not result.failed:
        print(f"{_counts(result)}, no defect")
        return
    print(f"{_counts(result)}, DEFECT; the traceback is in {log}")
    for path in result.found:
        print(f"  again: python -m tests.fuzz {result.target} --file {path}")


if __name__ == "__main__":
    sys.exit(main())
