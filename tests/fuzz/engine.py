"""One target in this process, driven by the branches that it takes: atheris, which is libFuzzer for Python.

``python -m tests.fuzz.engine TARGET [libFuzzer's arguments]``; it ends at the first defect.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

INSTRUMENTED = ["supervisor", "agent_guard", "yaml", "jwt", "google.protobuf.json_format"]


def main(target: str, arguments: Sequence[str]) -> None:
    atheris = importlib.import_module("atheris")
    with atheris.instrument_imports(include=INSTRUMENTED, enable_loader_override=False):
        targets = importlib.import_module("tests.fuzz.targets")
    play = targets.TARGETS[target]
    play(b"")  # what is made once is made before anything is timed
    atheris.Setup([sys.argv[0], *arguments], play, enable_python_coverage=True)
    atheris.Fuzz()


if __name__ == "__main__":
    os.environ.setdefault("SUPERVISOR_FUZZ_SECONDS", "20")
    main(sys.argv[1], sys.argv[2:])
